// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "collectors/target.h"

namespace boxo::host {

/// How many descriptors the process has open, in one system call: since Linux 6.2 the size of /proc/PID/fd.
/// Nothing where that does not tell.
std::optional<std::uint64_t> quick_fd_count(const Process& process);

}  // namespace boxo::host
