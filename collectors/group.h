// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "collectors/cgroup.h"
#include "collectors/container.h"
#include "collectors/process_table.h"
#include "collectors/target.h"

namespace boxo {

/// Which processes are in the cgroup or container that the user named, found again when the group is made
/// anew. Where the group's directory can be seen it is asked; else (in a container whose mounts show only its
/// own group) the processes themselves are, by /proc/PID/cgroup.
class Group {
 public:
  using Clock = std::chrono::steady_clock;
  /// How often the other groups are looked at for a second one that the given beginning of an id fits.
  static constexpr std::chrono::minutes kLookAround{1};

  /// All of them outlive it. Fails if the name can never be met: too short, ambiguous, not a cgroup path.
  static Result<Group> make(const TargetSpec& spec, const Cgroups& cgroups, const Dir& proc,
                            ProcessTable& table);

  /// The processes in it now, ascending; none while it is not there. Once a second container fits the id that was given,
  /// a warning says that this one is meant.
  void list(std::vector<pid_t>& pids, Clock::time_point now = Clock::now());
  /// Its path in the hierarchy of `controller`, "" if it has none there; `main_text` is /proc/PID/cgroup of
  /// the main process.
  std::string path(const std::string& controller, std::string_view main_text) const;
  /// "container 0123456789ab", "cgroup /a/b", "no cgroup /a/b yet".
  std::string describe(bool up) const;

 private:
  Group(const TargetSpec& spec, const Cgroups& cgroups, const Dir& proc, ProcessTable& table);

  Result<> find();
  void find_cgroup();
  Result<> find_container();
  void look_around(Clock::time_point now);
  bool take(const std::string& controller, const std::string& path);
  void list_by_text(std::vector<pid_t>& pids);
  bool fits(std::string_view cgroup_text, FoundContainers& found) const;
  void open_through(pid_t pid);
  /// The watched group's path for a process in `path`; "" if that is not in it.
  std::string watched_part(std::string_view path) const;
  bool is_container() const { return spec_->kind == TargetSpec::Kind::kContainer; }

  const TargetSpec* spec_;
  const Cgroups* cgroups_;
  const Dir* proc_;
  ProcessTable* table_;
  ContainerName name_;      // kContainer: the full id once it is known
  ContainerName given_;     // kContainer: what it was found by
  std::optional<Clock::time_point> looked_;  // around, or since when the id is known
  bool told_ambiguous_ = false;
  std::string wanted_;      // kCgroup: the path as /proc/PID/cgroup writes it
  std::optional<Error> problem_;  // why it cannot be told while it is not there
  std::string controller_;  // of the hierarchy in which it was found
  std::string path_;        // "" while it is not there
  Dir dir_;                 // none while it is not there, or if nothing shows it: then list_by_text
  bool hidden_ = false;     // no mount here shows it, so it may be there all the same
  bool search_all_ = true;
};

}  // namespace boxo
