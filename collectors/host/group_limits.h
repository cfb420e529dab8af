// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "collectors/cgroup.h"

namespace boxo::host {

/// Memory of one cgroup, of either version.
struct GroupMemory {
  std::uint64_t usage = 0;
  std::uint64_t working_set = 0;  ///< usage without the page cache that can be dropped at once
  std::optional<std::uint64_t> peak;
};

/// Nothing if the group does not tell (the root of version 2, or the controller is off there).
std::optional<GroupMemory> group_memory(int version, const Dir& group);
/// The limit of this one group; nothing if there is none.
std::optional<std::uint64_t> memory_limit(int version, const Dir& group);
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

}  // namespace boxo::host
