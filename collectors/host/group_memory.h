// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "collectors/host/continued.h"
#include "collectors/host/group_limits.h"
#include "collectors/host/target_group.h"
#include "collectors/metric.h"
#include "collectors/snapshot.h"

namespace boxo::host {

/// What the target's cgroup tells of memory: its limit, what it is charged for, and what happened at the limit.
class GroupMemory {
 public:
  static std::span<const Metric> metrics();
  /// What happened in the group of a target that has ended still counts, and stays when the group is gone too.
  void add(Snapshot& out, TargetGroup& group, const Target& target);

 private:
  static void add_use(Snapshot& out, const CgroupView& view, const std::optional<MemoryUse>& memory, bool target_is_group);
  static constexpr std::size_t kEventCount = 5;
  /// Of each event why it is not told; "" where it is, or where there is nobody to tell it any more.
  using Troubles = std::array<std::string, kEventCount>;

  Troubles count_events(const CgroupView& view, const std::optional<MemoryUse>& memory);
  void add_events(Snapshot& out, const Troubles& troubles, const std::string& no_group) const;

  std::array<Continued<1>, kEventCount> events_;  ///< as listed in group_memory.cc
};

}  // namespace boxo::host
