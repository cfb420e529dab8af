// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "collectors/fd.h"
#include "collectors/proc_stat.h"
#include "collectors/target.h"

namespace boxo {

/// The processes of a target, each pinned, with one of them as the main one.
/// Promises: what is in it was alive and had this identity when it was added; `generation` counts the
/// changes.
class Members {
 public:
  /// `proc` outlives it.
  explicit Members(const Dir& proc) : proc_(&proc) {}

  const std::vector<Process>& list() const { return list_; }
  const Process* find(pid_t pid) const;
  std::uint64_t generation() const { return generation_; }

  /// Pins a process and adds it, unless it is gone, has nothing left that runs (`ended_too` takes it all the
  /// same), or does not have the start time that is expected of it. `ran_before` says whether it has a life behind it
  /// that was not the target's; empty: nobody has. arrange() must follow.
  using RanBefore = std::function<bool(const ProcessId&)>;
  bool add(pid_t pid, std::optional<std::uint64_t> start_ticks, bool ended_too, const RanBefore& ran_before = {});
  /// Why the last add() that failed did so, if it was for want of descriptors; "" again from keep_if() or clear() on.
  const std::string& shortage() const { return shortage_; }
  /// Removes those that `keep` does not want. arrange() must follow.
  void keep_if(const std::function<bool(const Process&)>& keep);
  void clear();
  /// After changes: the main process first, the rest by pid, parents that are in the set.
  void arrange(ProcessId main);

  /// Begins to watch the first process more closely.
  void watch_main();
  /// Whether anything of the main process runs; takes note of an exec.
  bool main_runs();
  /// Looks whether the main threads of the others have ended.
  void find_survivors();
  /// The executable of the main process as its link shows it, "" if it cannot be read.
  const std::string& main_exe() const { return main_exe_; }
  int ended_fd() const { return main_pidfd_.get(); }

 private:
  std::size_t room() const;
  bool room_for_another();
  bool find_survivor(Process& process, const ProcStat& stat);
  struct Parent {
    pid_t pid;
    pid_t parent;
  };
  std::size_t index_of(pid_t pid) const;  // list_.size(): none
  void link_parent(Process& process, pid_t parent);

  const Dir* proc_;
  std::vector<Process> list_;
  std::vector<Parent> parents_;  // of those added since the last arrange()
  bool removed_ = false;
  std::uint64_t generation_ = 0;
  std::string shortage_;
  std::optional<std::size_t> room_;  ///< until arrange()
  bool told_full_ = false;
  Fd main_pidfd_;
  std::string main_exe_;
};

/// Whether this very process still has its entry in /proc, be it as a zombie.
bool is_there(const Process& process);
/// Whether its main thread has ended while others go on.
bool runs_headless(const Process& process);

}  // namespace boxo
