// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "collectors/cgroup.h"
#include "collectors/fd.h"
#include "collectors/kernel_reader.h"
#include "collectors/process_id.h"
#include "collectors/result.h"

namespace boxo {

/// What the user asked to watch.
struct TargetSpec {
  enum class Kind {
    kDiscover,   ///< find a running boxo-based node (a Go program built with github.com/ipfs/boxo)
    kPid,        ///< `pid` and its descendants; once it has ended it never comes back
    kComm,       ///< the process named `name` and its descendants; re-attached when it restarts
    kCgroup,     ///< every process in the cgroup `name` and below
    kContainer,  ///< every process of the container `name` (id or unambiguous prefix)
  };
  Kind kind = Kind::kDiscover;
  pid_t pid = 0;
  std::string name;
};

/// One living process of the target, pinned by its /proc directory: reads fail with ESRCH once it is gone,
/// and never reach another process with the same pid.
struct Process {
  ProcessId id;
  ProcessId parent;  ///< pid 0 if the parent is not part of the target
  std::string comm;  ///< of the main process as it is now, of others as it was when they were first seen
  Dir proc;
  /// Of a process whose main thread has ended while others go on: one of these. What they share, /proc shows only there.
  ProcessId survivor{};
  Dir survivor_proc{};
  /// It came to the target while that was watched, and neither began there nor was forked there: what it had counted when
  /// it was first seen is not the target's. Not so for those that were there when the watch began.
  bool ran_before = false;

  /// Where memory, open files, executable, directories, environment, cgroup and namespaces are read. The counts of the
  /// process as a whole (stat, io, limits, task) are in `proc`.
  const Dir& shared() const { return survivor_proc ? survivor_proc : proc; }
};

/// Now, as the start time of a process that begins now.
std::uint64_t ticks_since_boot();

/// What is watched: a set of living processes that `refresh` brings up to date once a tick. Used by the tick
/// thread only.
class Target {
 public:
  /// `proc` is /proc, `cgroup_root` the directory the cgroup hierarchies are mounted under (/sys/fs/cgroup);
  /// both are parameters so that tests can give their own trees. Fails only if what was asked for can never
  /// be met: a pid that does not exist (code ESRCH), an ambiguous container prefix. A name or a cgroup that
  /// is not there yet is waited for; a zombie is a target that has ended. `clock` is that of the start times in `proc`.
  static Result<Target> make(TargetSpec spec, const std::string& proc = "/proc",
                             const std::string& cgroup_root = "/sys/fs/cgroup",
                             std::function<std::uint64_t()> clock = ticks_since_boot);

  Target(Target&&) noexcept;
  Target& operator=(Target&&) noexcept;
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target();

  /// Who follows the target's processes from now on, so that refresh() need not look for new ones.
  void use(std::shared_ptr<const Handover> handover);

  /// Looks for new, ended and restarted processes. What else is on the host costs nothing while the target is there:
  /// of others only those born since the last look are looked at, and where the kernel follows the target (use()), or in
  /// a cgroup, not even those; of a container named by the beginning of its id the groups are listed once a minute, until
  /// there is another such. While the target is looked for all are listed. A descendant stays a member
  /// when its parent ends; one whose parents all came and went between two refreshes is known for one only where the
  /// kernel follows.
  /// When the main process ends, all are let go, except in a cgroup.
  void refresh();

  bool up() const { return !processes().empty(); }
  /// Main process first, then the others by pid. Empty while the target is not there.
  const std::vector<Process>& processes() const;
  /// The process that was asked for; for a cgroup its oldest, until that ends. nullptr while the target is
  /// down.
  const Process* main() const;
  /// Changes whenever processes() changed or the main process became another program (exec): what was learnt
  /// about them is then stale.
  std::uint64_t generation() const;
  /// How often a new process became the main one since the first. One that ran beside the target before is none, nor
  /// one that was in the cgroup already and is now the oldest there.
  std::uint64_t restarts() const;
  /// Becomes readable when the main process ends (a pidfd); -1 if there is none or the kernel has no pidfds
  /// (< 5.3).
  int ended_fd() const;
  /// The group that tells the target's limits and pressure in the hierarchy of `controller` ("" is v2): for
  /// --cgroup and
  /// --container the watched one, else the main process's own. As /proc/PID/cgroup writes it; "" while
  /// unknown, or if the watched group is not in that hierarchy.
  std::string cgroup_path(const std::string& controller) const;
  /// The same group by descriptor with its ancestors, also where only the target's own mounts show it. A
  /// group that was made again has the same path: keep a view only as long as its files can be read and
  /// generation() stays.
  Result<CgroupView> cgroup(const std::string& controller) const;
  /// Whether the target is a cgroup (then kernel probes and limits are about the group, not about a process
  /// tree).
  bool is_cgroup() const;
  const TargetSpec& spec() const;
  /// Why not all of its processes are in processes(), so that a sum over these would lack some; "" if all are.
  std::string shortage() const;
  /// "pid 4711 (ipfs)", "no boxo-based process yet": for the log and for people.
  std::string describe() const;
  /// Where /proc is, for what is not below one process.
  const Dir& proc_root() const;

 private:
  struct Impl;
  explicit Target(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace boxo
