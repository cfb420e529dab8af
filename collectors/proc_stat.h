// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace boxo {

/// What says who a process is, out of /proc/PID/stat.
struct ProcStat {
  pid_t pid = 0;
  std::string comm;  ///< may hold anything: spaces, parentheses, line breaks
  char state = '?';
  pid_t parent = 0;
  bool kernel_thread = false;
  long threads = 0;
  std::uint64_t start_ticks = 0;

  /// Nothing of it runs any more. A main thread that has ended while others go on is a zombie too, but not
  /// this.
  bool ended() const { return zombie() && threads <= 1; }
  bool zombie() const { return state == 'Z' || state == 'X' || state == 'x'; }
};

/// Nothing if the text is not of this form.
std::optional<ProcStat> parse_proc_stat(std::string_view text);

}  // namespace boxo
