// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "collectors/fd.h"
#include "collectors/result.h"

namespace boxo {

/// A line of /proc/PID/cgroup: where a process is in one hierarchy. No controllers mean version 2.
struct CgroupLine {
  std::vector<std::string> controllers;  ///< "memory", "cpu", "cpuacct", "name=systemd" …
  std::string path;  ///< "/docker/abc"; "/.." at its start: outside the reader's cgroup namespace
};

/// What is left of `path` below `base`, "/" if they are the same; nothing if it is not below it.
std::optional<std::string_view> path_below(std::string_view path, std::string_view base);

/// Lines that are not of this form are left out.
std::vector<CgroupLine> parse_cgroup_lines(std::string_view text);

/// One group of one hierarchy with its ancestors, each pinned by descriptor: a group made again under the
/// same name is another one, and files of a removed group fail with ENODEV or ENOENT.
struct CgroupView {
  int version = 0;   ///< 1 or 2: which file names to expect
  std::string path;  ///< as /proc/PID/cgroup writes it
  /// The group itself, then its parent, up to the topmost one that can be seen from here. A limit is the
  /// least along this row; use and pressure are those of the first. In a container the last is the
  /// container's own group.
  std::vector<Dir> levels;
  /// Whether the last level is the hierarchy's real root, whose numbers are the whole host's. Then
  /// levels.size() == 1 means that the process is in no group of its own.
  bool to_root = true;

  const Dir& group() const { return levels.front(); }
  /// Leaves out the groups below `ancestor`; false (and nothing changed) if that is none of the levels.
  bool climb_to(const std::string& ancestor);
};

/// The cgroup hierarchies mounted below one directory: v2 alone, v1 alone, or v1 with v2 beside it (hybrid).
/// Promises: a path is found below the mount that shows it, also where only a part of the hierarchy is
/// mounted (a container) or paths are relative to a cgroup namespace; nothing outside the mounts is ever
/// opened.
class Cgroups {
 public:
  struct Hierarchy {
    int version = 0;
    std::vector<std::string>
        controllers;      ///< v1: as its directories are named; v2: what cgroup.controllers lists
    std::string mounted;  ///< the path of the group that is mounted here, "/" if it is the root
    std::string where;    ///< the mount point
    Dir dir;
    dev_t device = 0;
    ino_t inode = 0;

    /// A name of it for those functions that take a controller.
    std::string key() const { return version == 2 ? std::string() : controllers.front(); }
  };

  /// Looks at `root` (/sys/fs/cgroup): with a cgroup.controllers in it it is a v2 hierarchy; its
  /// subdirectories that have a cgroup.procs are v1 hierarchies named by their controllers, or v2 if they
  /// have a cgroup.controllers. `mountinfo` is the text of /proc/self/mountinfo; it only tells which group is
  /// mounted at a place, and what it does not mention is taken for mounted at its root.
  static Result<Cgroups> find(const std::string& root, std::string_view mountinfo = {});

  const std::vector<Hierarchy>& hierarchies() const { return hierarchies_; }
  /// The hierarchy that has `controller`, or nullptr: "" is v2 itself (PSI is there whatever its
  /// controllers). v1 goes first, since a controller is in one hierarchy only. Names of the two versions
  /// stand for each other: io and blkio, cpuacct and (on v2) cpu.
  const Hierarchy* hierarchy(std::string_view controller) const;

  /// The path in the hierarchy of `controller`, out of the text of /proc/PID/cgroup; "" if there is none.
  std::string path(std::string_view controller, std::string_view cgroup_text) const;

  /// The directory of the group `path` of the hierarchy of `controller`.
  Result<Dir> open(std::string_view controller, const std::string& path) const;
  /// The same with its ancestors.
  Result<CgroupView> view(std::string_view controller, const std::string& path) const;
  /// The group of a process (`process` is its /proc directory). If the agent's own mounts do not show it, as
  /// in a sidecar whose containers have a cgroup namespace each, it is looked for in the process's own
  /// mounts, which needs CAP_SYS_PTRACE or the same user.
  Result<CgroupView> view_of(std::string_view controller, const Dir& process) const;
  /// The same for whom its /proc/PID/cgroup has been read already.
  Result<CgroupView> view_of(std::string_view controller, const Dir& process, const std::string& text) const;

  /// Adds the processes of a group and of all groups below it to `pids`, ascending, each once. Those that the
  /// agent's pid namespace does not show are left out. A group that vanishes meanwhile is no error, except
  /// `group` itself.
  static Result<> pids(const Dir& group, std::vector<pid_t>& pids);
  /// Visits the paths of all groups of a hierarchy that can be seen here, each before those below it.
  static void walk(const Hierarchy& hierarchy, const std::function<void(const std::string& path)>& visit);

 private:
  static Cgroups scan(Dir top, const std::string& where, std::string_view mountinfo);

  std::string root_;
  std::vector<Hierarchy> hierarchies_;
  int cut_ = 0;  ///< EMFILE or ENFILE: for want of descriptors some may be missing
};

}  // namespace boxo
