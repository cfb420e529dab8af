// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "collectors/cgroup.h"
#include "collectors/fd.h"
#include "collectors/kernel_reader.h"
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

/// The identity of a process: a reused pid has another start time.
struct ProcessId {
  pid_t pid = 0;                  ///< as the agent sees it (in the pid namespace of its /proc)
  std::uint64_t start_ticks = 0;  ///< field 22 of /proc/PID/stat: clock ticks since boot
  auto operator<=>(const ProcessId&) const = default;
};

/// One living process of the target, pinned by its /proc directory: reads fail with ESRCH once it is gone,
/// and never reach another process with the same pid.
struct Process {
  ProcessId id;
  ProcessId parent;  ///< pid 0 if the parent is not part of the target
  std::string comm;  ///< of the main process as it is now, of others as it was when they were first seen
  Dir proc;
};

/// What is watched: a set of living processes that `refresh` brings up to date once a tick. Used by the tick
/// thread only.
class Target {
 public:
  /// `proc` is /proc, `cgroup_root` the directory the cgroup hierarchies are mounted under (/sys/fs/cgroup);
  /// both are parameters so that tests can give their own trees. Fails only if what was asked for can never
  /// be met: a pid that does not exist (code ESRCH), an ambiguous container prefix. A name or a cgroup that
  /// is not there yet is waited for; a zombie is a target that has ended.
  static Result<Target> make(TargetSpec spec, const std::string& proc = "/proc",
                             const std::string& cgroup_root = "/sys/fs/cgroup");

  Target(Target&&) noexcept;
  Target& operator=(Target&&) noexcept;
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target();

  /// Who follows the target's processes from now on, so that refresh() need not look for new ones.
  void use(std::shared_ptr<const Handover> handover);

  /// Looks for new, ended and restarted processes. Cheap while nothing changes: where the kernel follows the
  /// target (use()), and in a cgroup, the host's other processes cost nothing; else one directory listing. A descendant stays a member
  /// when its parent ends; one whose parents all came and went between two refreshes is not known for one.
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
  /// How often the main process was replaced by a new one since the start. In a cgroup it is no restart if
  /// another process that was in it before becomes the oldest.
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
