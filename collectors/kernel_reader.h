// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "collectors/process_id.h"
#include "collectors/result.h"
#include "collectors/socket.h"

namespace boxo {

/// What a thread may wait for, by the names that the probe sched uses as well.
inline constexpr std::array<const char*, 15> kWaitReasons = {
    "other", "block_io", "fsync",    "page_fault", "futex",  "poll",           "socket", "pipe",
    "sleep", "child",    "io_uring", "stopped",    "kernel", "dirty_throttle", "memory"};

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
  std::uint64_t task = 0;        ///< the kernel's own name of it, which it keeps when exec gives it another tid
  std::size_t waits_for = kWaitReasons.size();  ///< index into kWaitReasons, or its size: it does not wait
  std::uint64_t blocked_ns = 0;                 ///< how long it has been waiting now
};

/// What threads count of themselves.
struct ThreadCounts {
  std::uint64_t voluntary = 0;  ///< context switches
  std::uint64_t involuntary = 0;
  std::uint64_t wait_ns = 0;  ///< time ready to run, waiting for a CPU
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
  /// What threads of the target have counted until their end, beyond what threads() told of them last: never goes back.
  /// Of those that it never told of, all since the kernel has followed them.
  virtual ThreadCounts ended_threads() const = 0;
  /// Adds to `out` the process's TCP, UDP and Unix sockets, in whichever network namespace they are.
  virtual Result<> sockets(pid_t pid, std::vector<Socket>& out) = 0;
};

/// Payload bytes of the target's datagrams since the kernel counts them; they never go back.
struct DatagramBytes {
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
};

/// What the kernel has noticed of the target's processes since it follows them.
struct Forks {
  std::uint64_t count = 0;       ///< how many new processes
  std::uint64_t generation = 0;  ///< Target::generation() of the set that it follows
};

/// What processes have used, with what they took over from children that they waited for.
struct Used {
  std::uint64_t user_ns = 0;
  std::uint64_t system_ns = 0;
  std::uint64_t minor_faults = 0;
  std::uint64_t major_faults = 0;
  std::uint64_t chars_read = 0;  ///< this and the following as in /proc/PID/io
  std::uint64_t chars_written = 0;
  std::uint64_t reads = 0;
  std::uint64_t writes = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t bytes_cancelled = 0;
};

/// How processes of the target ended, as the kernel saw it.
struct Ends {
  /// Of all whom no process of the target had waited for when the kernel forgot them, since it follows. Those that
  /// were waited for are in what the one who waited has used.
  Used unclaimed;
  /// Of those that left the target since the last call: the ones whose end the kernel saw. They are or will be in
  /// `unclaimed`, or somebody took them over.
  std::vector<ProcessId> seen;
};

/// How long the target's threads have been ready to run and waited for a CPU, those that have ended included.
struct CpuWait {
  double seconds = 0;
  std::chrono::steady_clock::time_point at;  ///< when it was read
  bool by_kernel = false;                    ///< by a KernelReader, not from /proc
};

/// What the target's data directory lies on, by device numbers.
struct DataPlace {
  std::string filesystem;  ///< "ext4" or "xfs"; "" for any other
  dev_t files = 0;         ///< of the file system itself
  std::set<dev_t> blocks;  ///< of the block devices below it, all layers
  bool operator==(const DataPlace&) const = default;
};

/// Where a collector lays down what the others may use. Shared by all collectors of one agent.
struct Handover {
  KernelReader* reader = nullptr;  ///< nullptr while there is none
  /// Empty, or nothing, while the kernel does not follow every process of the target.
  std::function<std::optional<Forks>()> forks;
  /// The living processes that members of the set in forks() have forked, and theirs, as the agent numbers them, but for
  /// those that were in Target at the last collection. May be empty.
  std::function<std::vector<pid_t>()> born;
  /// As they stand now, or why they are not counted; empty as long as nobody could count them.
  std::function<Result<DatagramBytes>()> datagrams;
  /// Adds to the sockets the target's TCP connections that have ended since the last call, with all that they had, or says
  /// why nobody sees them; empty as long as nobody could.
  std::function<Result<>(std::vector<Socket>&)> ended;
  /// Empty, or nothing, while the kernel does not follow the end of every process of the target. What Target knows
  /// now is what it follows from then on.
  std::function<std::optional<Ends>()> ends;
  std::optional<CpuWait> cpu_wait;  ///< nothing while it is not known
  /// Of the target or, while there is none, of the one before; or why it is not known. Nothing as long as nobody has looked.
  std::optional<Result<DataPlace>> data;
};

}  // namespace boxo
