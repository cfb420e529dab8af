// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/group_limits.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "collectors/host/text.h"

namespace boxo::host {

namespace {

// Version 1 writes "no limit" as the highest multiple of the page size below 2^63.
constexpr std::uint64_t kUnlimited = std::uint64_t{1} << 62;

}  // namespace

Result<> keep_binding(CgroupView& view) {
  if (view.version != 1) return {};
  for (auto level = view.levels.begin() + 1; level < view.levels.end(); ++level) {
    const auto counts_below = level->read("memory.use_hierarchy", 4096);
    if (!counts_below && counts_below.error().code != ENOENT) return counts_below.error();
    if (!counts_below || to_number(*counts_below) != 0) continue;
    view.levels.erase(level, view.levels.end());
    view.to_root = false;
    break;
  }
  return {};
}

std::optional<std::uint64_t> number_in(const Dir& group, const char* file) {
  auto text = group.read(file, 4096);
  return text ? to_number(*text) : std::nullopt;
}

std::optional<MemoryUse> memory_use(int version, const Dir& group) {
  const auto usage = number_in(group, version == 2 ? "memory.current" : "memory.usage_in_bytes");
  auto stat = group.read("memory.stat", 65536);
  if (!usage || !stat) return std::nullopt;
  const auto droppable = number_of(*stat, version == 2 ? "inactive_file " : "total_inactive_file ");
  if (!droppable) return std::nullopt;
  return MemoryUse{*usage, *usage - std::min(*usage, *droppable),
                     number_in(group, version == 2 ? "memory.peak" : "memory.max_usage_in_bytes"), std::move(*stat)};
}

std::optional<std::uint64_t> memory_limit(int version, const Dir& group) {
  const auto limit = number_in(group, version == 2 ? "memory.max" : "memory.limit_in_bytes");
  return limit && *limit < kUnlimited ? limit : std::nullopt;
}

std::optional<std::uint64_t> memory_high(int version, const Dir& group) {
  return version == 2 ? number_in(group, "memory.high") : std::nullopt;
}

std::optional<double> cpu_limit(int version, const Dir& group) {
  std::optional<std::uint64_t> quota;
  std::optional<std::uint64_t> period;
  if (version == 2) {
    auto text = group.read("cpu.max", 4096);
    if (!text) return std::nullopt;
    std::string_view rest = *text;
    quota = to_number(next_word(rest));
    period = to_number(next_word(rest));
  } else {
    quota = number_in(group, "cpu.cfs_quota_us");
    period = number_in(group, "cpu.cfs_period_us");
  }
  if (!quota || !period || *period == 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

}  // namespace boxo::host
