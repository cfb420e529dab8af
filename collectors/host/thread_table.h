// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "collectors/fd.h"
#include "collectors/kernel_reader.h"
#include "collectors/target.h"

namespace boxo::host {

inline constexpr std::array<const char*, 6> kThreadStates = {"running", "sleeping", "disk_sleep",
                                                             "stopped", "zombie",   "idle"};
/// The index into kThreadStates of the letter that /proc shows.
std::size_t thread_state(char letter);

/// The threads of a set of processes: how many in which state, and what they and those that have ended
/// counted. Promises: totals never go back; a thread that cannot be read for a while is not counted anew
/// after, nor one that takes over the main thread's number by an exec. Exact while a process has few threads (kLookAtEach); above, a
/// thread that has not run since it was last seen waiting is taken to wait still. One that has just been
/// woken but was given no CPU yet is then counted a tick late; in exchange 2,000 threads cost 1 us each and
/// not 10.
class ThreadTable {
 public:
  using Totals = ThreadCounts;

  static constexpr std::size_t kLookAtEach = 64;

  /// `reader` if there is one; what it cannot read is read from /proc.
  void update(const std::vector<Process>& processes, KernelReader* reader = nullptr);

  const Totals& totals() const { return totals_; }
  const std::array<std::uint64_t, kThreadStates.size()>& by_state() const { return by_state_; }
  /// Threads that wait, by kWaitReasons; of use only where by_reader().
  struct Waiting {
    std::uint64_t threads = 0;
    std::uint64_t longest_ns = 0;  ///< the longest wait that goes on
  };
  const std::array<Waiting, kWaitReasons.size()>& waiting() const { return waiting_; }
  std::size_t size() const;
  bool has_schedstat() const { return has_schedstat_; }
  /// Whether `reader` read all of the last update.
  bool by_reader() const { return by_reader_; }
  /// Why the last update could not read all; "" if it could.
  const std::string& trouble() const { return trouble_; }

 private:
  struct Counts {
    std::uint64_t run_ns = 0;
    std::uint64_t wait_ns = 0;
    std::uint64_t turns = 0;  ///< how often it was given a CPU
    std::uint64_t voluntary = 0;
    std::uint64_t involuntary = 0;
  };
  struct Thread : Counts {
    pid_t tid = 0;
    Fd schedstat;  ///< kept open: it is of this thread and never of a later one with the same tid
    std::uint64_t started_at = 0;  ///< 0: not known
    std::uint64_t task = 0;        ///< the kernel's own name of it; 0: not known
    char state = 0;  ///< 0: not seen yet
    bool schedstat_missing = false;
  };
  struct Member {
    Dir tasks;
    std::vector<Thread> threads;  ///< by tid
    std::uint64_t stack = 0;      ///< where the program's stack began; 0: not known
    std::uint64_t seen = 0;
    bool ran_before = false;      ///< what its threads had counted before is not the target's, and not known in full yet
  };
  enum class Look { kUnchanged, kChanged, kUnread, kEnded };

  void update(const Process& process, Member& member);
  bool update_by(KernelReader& reader, const Process& process, Member& member);
  void take(const ThreadReading& reading, Thread& thread);
  void take_ended(const ThreadCounts& ended);
  void let_go(std::vector<Thread>& threads);
  void update_main(const Process& process, Member& member, const std::function<bool(Thread&)>& forget);
  void list(const Process& process, Member& member);
  Look look_at_schedstat(const Member& member, Thread& thread);
  Look look_at_status(const Process& process, const Member& member, Thread& thread);

  std::map<ProcessId, Member> members_;
  std::array<std::uint64_t, kThreadStates.size()> by_state_{};
  std::array<Waiting, kWaitReasons.size()> waiting_{};
  Totals totals_;
  std::uint64_t round_ = 0;
  std::size_t kept_ = 0;    ///< descriptors open in all
  std::size_t budget_ = 0;  ///< how many may be
  bool has_schedstat_ = true;
  bool by_reader_ = false;
  std::optional<ThreadCounts> ended_;  ///< of the reader, at the last update, if it read all then
  std::vector<ThreadReading> readings_;
  std::vector<Thread> next_;
  std::vector<Counts> gone_;  ///< of those of the process being read that have just ended
  std::string trouble_;
};

}  // namespace boxo::host
