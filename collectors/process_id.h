// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>

namespace boxo {

/// The inode numbers of the machine's first namespaces, constants of the kernel (PROC_PID_INIT_INO, PROC_USER_INIT_INO).
inline constexpr std::uint32_t kFirstPidNamespace = 0xEFFFFFFC;
inline constexpr std::uint32_t kFirstUserNamespace = 0xEFFFFFFD;

/// The identity of a process: a reused pid has another start time.
struct ProcessId {
  pid_t pid = 0;                  ///< as the agent sees it (in the pid namespace of its /proc)
  std::uint64_t start_ticks = 0;  ///< field 22 of /proc/PID/stat: clock ticks since boot
  auto operator<=>(const ProcessId&) const = default;
};

}  // namespace boxo
