// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string_view>

namespace boxo {

enum class MetricType { kCounter, kGauge, kHistogram };

/// Where a value comes from, worst first: where several sources offer one metric, the last one in this order is
/// published. The names are those of boxo_agent_metric_source_info.
enum class Source { kAgent, kProc, kCgroup, kKernel, kUprobe, kApp };

std::string_view name_of(MetricType type);  ///< "counter", "gauge", "histogram"
std::string_view name_of(Source source);    ///< "agent", "proc", "cgroup", "kernel", "uprobe", "app"

/// The description of one exported metric: a row of `--list` and of docs/metrics.md. Plain text that outlives every
/// Snapshot; collectors keep theirs as constants.
struct Metric {
  std::string_view name;       ///< the exported name, boxo_…
  MetricType type;
  std::string_view unit;       ///< base unit: "seconds", "bytes", "ratio"; "" for a count of things
  std::string_view labels;     ///< label names, comma separated, "" for none
  Source source;
  std::string_view help;
};

}  // namespace boxo
