// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/metric.h"

namespace boxo {

std::string_view name_of(MetricType type) {
  switch (type) {
    case MetricType::kCounter: return "counter";
    case MetricType::kGauge: return "gauge";
    case MetricType::kHistogram: return "histogram";
  }
  return "";
}

std::string_view name_of(Source source) {
  switch (source) {
    case Source::kAgent: return "agent";
    case Source::kProc: return "proc";
    case Source::kCgroup: return "cgroup";
    case Source::kKernel: return "kernel";
    case Source::kUprobe: return "uprobe";
    case Source::kApp: return "app";
  }
  return "";
}

}  // namespace boxo
