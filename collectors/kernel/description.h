// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bpf/metric.h"
#include "collectors/kernel/probes.h"
#include "collectors/result.h"
#include "collectors/snapshot.h"

namespace boxo::kernel {

/// One metric of a probe: how it is exported and where its values lie.
struct ProbeMetric {
  std::shared_ptr<const metric> raw;  ///< what `exported` points into
  Metric exported;
  std::string map;
  std::uint32_t first = 0;      ///< index of the first element in the map
  std::vector<Labels> rows;     ///< labels of each element; one row without labels if it has none
  std::vector<double> bounds;   ///< of a histogram, in base units
  double scale = 1;             ///< the map's unit in base units
  bool by_remote = false;       ///< the map is one of remote addresses, whose label is not in `rows`
  std::vector<std::string> programs;  ///< of each row, or each of `data_on`, the one that tells of it; empty: all are known
  std::string tracepoint;       ///< known only where this passes on at least `arguments`; "": always
  std::uint32_t arguments = 0;
  std::uint32_t not_measured = 0;  ///< bit n: nothing counts in row n
  bool needs_cgroup = false;    ///< says something only of a target with a cgroup of its own
  std::vector<std::string> data_on;  ///< counts only the data directory, on these file systems (or "*"); empty: it counts all
};

/// What a probe says of itself.
struct Description {
  EmbeddedProbe object;
  std::string help;
  bool on_request = false;
  std::vector<ProbeMetric> metrics;
};

/// Reads the description from the object file; loads nothing, needs no privilege.
Result<Description> describe(const EmbeddedProbe& object);
/// Those of all embedded probes. Read once.
const std::vector<Description>& descriptions();
/// One metric of a description, checked: every text ends, label names and values fit, a histogram has edges.
Result<ProbeMetric> describe_metric(const metric& raw);

}  // namespace boxo::kernel
