// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "collectors/cgroup.h"
#include "collectors/result.h"

namespace boxo::host {

/// Leaves out of the view of the memory controller the groups above whose limits do not hold for the group: of version 1 before
/// Linux 5.11 those from the first on that has memory.use_hierarchy 0. An error where that cannot be read: nothing is left out.
Result<> keep_binding(CgroupView& view);

/// How much memory one cgroup uses, of either version.
struct MemoryUse {
  std::uint64_t usage = 0;
  std::uint64_t working_set = 0;  ///< usage without the page cache that can be dropped at once
  std::optional<std::uint64_t> peak;
  std::string stat;  ///< the text of memory.stat
};

/// Nothing if the group does not tell (the root of version 2, or the controller is off there).
std::optional<MemoryUse> memory_use(int version, const Dir& group);
/// The limit of this one group; nothing if there is none.
std::optional<std::uint64_t> memory_limit(int version, const Dir& group);
/// The amount of memory above which this one group is slowed down (version 2); nothing if there is none.
std::optional<std::uint64_t> memory_high(int version, const Dir& group);
/// The CPU limit of this one group in CPUs; nothing if there is none.
std::optional<double> cpu_limit(int version, const Dir& group);
/// The number a file holds; nothing for "max", -1, and what cannot be read.
std::optional<std::uint64_t> number_in(const Dir& group, const char* file);

/// The least of limit(version, level) along the levels of `view`.
template <class Limit>
auto least(const CgroupView& view, Limit limit) {
  decltype(limit(view.version, view.levels.front())) least;
  for (const Dir& level : view.levels)
    if (const auto here = limit(view.version, level); here && (!least || *here < *least)) least = here;
  return least;
}

/// The group whose limit holds, where what happens at it is counted: that of the least limit(version, level) along the levels
/// of `view`, else the first.
template <class Limit>
const Dir& limit_holder(const CgroupView& view, Limit limit) {
  const Dir* holder = &view.group();
  decltype(limit(view.version, view.levels.front())) least;
  for (const Dir& level : view.levels) {
    const auto here = limit(view.version, level);
    if (!here || (least && *here >= *least)) continue;
    holder = &level;
    least = here;
  }
  return *holder;
}

}  // namespace boxo::host
