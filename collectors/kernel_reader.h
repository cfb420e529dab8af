// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "collectors/result.h"
#include "collectors/socket.h"

namespace boxo {

/// One thread as the kernel describes it.
struct ThreadReading {
  pid_t tid = 0;                 ///< as the agent sees it
  char state = 'R';              ///< the letter that /proc shows
  std::uint64_t started_at = 0;  ///< since boot, ns: tells it from a later one with the same tid
  std::uint64_t run_ns = 0;      ///< time on a CPU
  std::uint64_t wait_ns = 0;     ///< time ready to run, waiting for one
  std::uint64_t turns = 0;       ///< how often it was given one
  std::uint64_t voluntary = 0;   ///< context switches
  std::uint64_t involuntary = 0;
};

/// Reads all threads or sockets of one process at once, where the kernel can (BPF iterators). Promises: the
/// values are those of /proc/PID/task and of sock_diag; nothing of other processes is read. Used by the tick
/// thread only.
class KernelReader {
 public:
  KernelReader() = default;
  KernelReader(const KernelReader&) = delete;
  KernelReader& operator=(const KernelReader&) = delete;
  KernelReader(KernelReader&&) = delete;
  KernelReader& operator=(KernelReader&&) = delete;
  virtual ~KernelReader() = default;

  /// Replaces `out`; empty if there is no such process. Whether `pid` is still the process that is meant the
  /// caller has to find out afterwards.
  virtual Result<> threads(pid_t pid, std::vector<ThreadReading>& out) = 0;
  /// Adds to `out` the process's TCP, UDP and Unix sockets, in whichever network namespace they are.
  virtual Result<> sockets(pid_t pid, std::vector<Socket>& out) = 0;
};

/// What the kernel has noticed of the target's processes since it follows them.
struct Forks {
  std::uint64_t count = 0;       ///< how many new processes
  std::uint64_t generation = 0;  ///< Target::generation() of the set that it follows
};

/// Where a collector lays down what the others may use. Shared by all collectors of one agent.
struct Handover {
  KernelReader* reader = nullptr;  ///< nullptr while there is none
  /// Empty, or nothing, while the kernel does not follow every process of the target.
  std::function<std::optional<Forks>()> forks;
};

}  // namespace boxo
