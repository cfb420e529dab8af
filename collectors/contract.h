// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string_view>

#include "collectors/metric.h"

namespace boxo {

/// Whether `name` is one of those whose source is told whatever can fill them, the sixteen names that dashboards already
/// know among them; boxo_agent_metric_source_info tells it of these, and of every other that several sources can fill.
bool has_told_source(std::string_view name);

/// The value of the label `source` there. The dashboards know app, uprobe, kernel and proc: of the names above, cgroup files
/// count as proc.
std::string_view source_label(std::string_view name, Source source);

/// `metric` as another source tells it, for the list of a collector that has several.
constexpr Metric from(Source source, Metric metric) {
  metric.source = source;
  return metric;
}

}  // namespace boxo
