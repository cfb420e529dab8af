// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string>

#include "agent/monitor.h"

namespace boxo {

/// --list: a line per metric: name with its labels, type, unit, source, help. Several sources of one name share a line.
std::string list_of_metrics();

/// --check: a line per collector and per probe or feature in it: works, or why not. After one collection.
std::string table_of_checks(PerformanceMonitor& monitor, const Target& target);

}  // namespace boxo
