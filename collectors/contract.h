// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string_view>

#include "collectors/metric.h"

namespace boxo {

/// Whether `name` is one of the sixteen names that dashboards already know, or another that several sources can fill;
/// boxo_agent_metric_source_info tells which one did.
bool has_several_sources(std::string_view name);

/// The value of the label `source` there: app, uprobe, kernel or proc (cgroup files count as proc).
std::string_view source_label(Source source);

}  // namespace boxo
