// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "collectors/result.h"
#include "collectors/snapshot.h"
#include "collectors/target.h"

namespace boxo {

/// Whether `error` of a read below `process` means that the process has ended, which is no error of the
/// agent: ESRCH, or a file that is missing because the whole directory is.
bool ended(const Process& process, const Error& error);

/// Why a file of a process cannot be read, with the mend: for Snapshot::absent.
std::string reason(const Error& error);

inline constexpr const char* kMoreThreads = "raise how many the agent may have (TasksMax=, pids.max)";
/// The name under which a row of a family is absent while others are there: boxo_network_sockets{protocol="udp"}.
std::string with_labels(std::string_view metric, const Labels& labels);

/// The reason for everything while there is no process to look at.
inline constexpr const char* kNoTarget = "the target is not running";
/// The reason for what needs two readings, on the first.
inline constexpr const char* kFirstReading = "needs two readings";

}  // namespace boxo
