// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "collectors/result.h"
#include "collectors/target.h"

namespace boxo::host {

/// What /proc/PID/stat counts. `reaped_…` is what children had used when the process waited for them.
struct ProcessTimes {
  std::uint64_t user_ticks = 0;
  std::uint64_t system_ticks = 0;
  std::uint64_t minor_faults = 0;
  std::uint64_t major_faults = 0;
  std::uint64_t reaped_user_ticks = 0;
  std::uint64_t reaped_system_ticks = 0;
  std::uint64_t reaped_minor_faults = 0;
  std::uint64_t reaped_major_faults = 0;
};

/// What /proc/PID/status says of memory, in bytes; zero for a process that has none any more (a zombie)
/// and for one whose main thread has ended without a survivor being known.
struct ProcessMemory {
  std::uint64_t resident = 0;
  std::uint64_t anonymous = 0;
  std::uint64_t file = 0;
  std::uint64_t shared = 0;
  std::uint64_t swapped = 0;
  std::uint64_t mapped = 0;
};

/// libproc2, whose only door this is. It reads the agent's own /proc by pid; a process is told from a later
/// one with the same pid by its start time, or by its directory, which answers only while it lives. Promises: what is in an answer belongs to the process that was
/// asked for; one that has ended, or cannot be read now, is not in the answer.
class Procps {
 public:
  static Result<Procps> open();
  Procps(Procps&&) noexcept;
  Procps& operator=(Procps&&) noexcept;
  Procps(const Procps&) = delete;
  Procps& operator=(const Procps&) = delete;
  ~Procps();

  /// In the order in which the kernel is asked: the last of `processes` first, so that children come before
  /// the parents that may wait for them meanwhile.
  Result<std::map<ProcessId, ProcessTimes>> times(const std::vector<Process>& processes);
  Result<std::map<ProcessId, ProcessMemory>> memory(const std::vector<Process>& processes);

 private:
  struct Impl;
  explicit Procps(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace boxo::host
