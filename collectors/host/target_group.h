// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "collectors/cgroup.h"
#include "collectors/target.h"

namespace boxo::host {

/// The cgroups whose limits and counts are about the target: the watched one, else the one of its main
/// process. Promises: descriptors stay open from tick to tick; a group that was left, removed or made again
/// is looked up anew.
class TargetGroup {
 public:
  TargetGroup(const Target& target, std::string cgroup_root)
      : target_(target), root_(std::move(cgroup_root)) {}

  /// Call once a tick, before view().
  void refresh();
  /// The group in the hierarchy of `controller` ("" for v2 itself) with its ancestors (of memory, those
  /// whose limits hold for it); nullptr if there is none, see trouble(). Also nullptr where the target is in no group but the hierarchy's root: its numbers
  /// are the host's.
  const CgroupView* view(const std::string& controller);
  /// A number that no other group has had or will have, for Continued.
  static std::uint64_t place(const Dir& group);
  /// Why the last view() was nullptr.
  const std::string& trouble() const { return trouble_; }

 private:
  struct Found {
    std::optional<CgroupView> view;
    std::string trouble;
  };
  Found find(const std::string& controller) const;

  const Target& target_;
  const std::string root_;
  std::optional<Cgroups> cgroups_;
  std::string cgroups_trouble_;
  std::string where_;   ///< what the views were looked up for: the text of /proc/PID/cgroup, or the paths
  ProcessId where_of_;  ///< whose text it is
  std::map<std::string, Found, std::less<>> found_;
  std::string trouble_;
};

}  // namespace boxo::host
