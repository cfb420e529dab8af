// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/group_memory.h"

#include <cerrno>
#include <string_view>
#include <utility>

#include "collectors/host/text.h"
#include "collectors/reading.h"

namespace boxo::host {

namespace {

constexpr Metric kMemoryLimit{
    "boxo_resource_memory_limit_bytes",
    MetricType::kGauge,
    "bytes",
    "",
    Source::kCgroup,
    "Memory limit of the target's cgroup: the least one along the groups above it, as far as theirs hold for it."};
constexpr Metric kMemoryUsage{
    "boxo_resource_memory_usage_bytes",
    MetricType::kGauge,
    "bytes",
    "",
    Source::kCgroup,
    "Memory in use: of the cgroup (page cache included) if the target is a cgroup, else the "
    "resident memory of its processes."};
constexpr Metric kGroupMemory{
    "boxo_resource_cgroup_memory_bytes",
    MetricType::kGauge,
    "bytes",
    "type",
    Source::kCgroup,
    "Memory that the target's cgroup is charged for: usage, working_set (usage without page cache that can be dropped at "
    "once) and peak (the highest usage so far); of the usage anon, file (page cache, shmem included), shmem, kernel, sock "
    "(buffers of sockets), of the file part mapped (into address spaces), dirty and writeback; and swap. Kernels differ in which of them they tell."};
constexpr Metric kOomKills{"boxo_resource_oom_kills_total",
                           MetricType::kCounter,
                           "",
                           "",
                           Source::kCgroup,
                           "Processes of the target, or of its cgroup, that the out-of-memory killer ended."};
constexpr Metric kHits{
    "boxo_resource_memory_limit_hits_total",
    MetricType::kCounter,
    "",
    "limit",
    Source::kCgroup,
    "How often a memory limit of the target's cgroup was about to be passed, so that memory had to be freed first: max is the "
    "limit that cannot be passed (boxo_resource_memory_limit_bytes), high the one that slows down (version 2). Counted at the "
    "group that holds the least such limit, with what others in that group did; not at limits of groups below."};
constexpr Metric kRefaults{
    "boxo_resource_memory_refaults_total",
    MetricType::kCounter,
    "",
    "type",
    Source::kCgroup,
    "Pages of the target's cgroup that were dropped from the page cache (file) or swapped out (anon) and soon needed again: "
    "the memory is too small for what is in use."};
constexpr Metric kAll[] = {kMemoryLimit, kMemoryUsage, kGroupMemory, kOomKills, kHits, kRefaults};

/// A line of memory.stat: as version 2 writes it, and version 1, where the sums over the groups below begin with total_.
struct Kind {
  const char* type;
  std::string_view v2;
  std::string_view v1;
};
constexpr Kind kKinds[] = {{"anon", "anon ", "total_rss "},
                           {"file", "file ", "total_cache "},
                           {"shmem", "shmem ", "total_shmem "},
                           {"kernel", "kernel ", ""},
                           {"sock", "sock ", ""},
                           {"mapped", "file_mapped ", "total_mapped_file "},
                           {"dirty", "file_dirty ", "total_dirty "},
                           {"writeback", "file_writeback ", "total_writeback "},
                           {"swap", "", "total_swap "}};

/// Where a group of one version tells a number: behind `key` in `file`, or it is all that stands there. "" for nowhere.
struct Told {
  std::string_view file;
  std::string_view key;
};
/// What is counted of what happened: a metric, or its row with this label. Of the target's own group, or of the one that
/// holds the limit at which it happened.
struct Event {
  const Metric* metric;
  const char* label;
  std::optional<std::uint64_t> (*limit)(int version, const Dir& group);
  Told v2;
  Told v1;
};
constexpr std::string_view kStat = "memory.stat";
constexpr const char* kNotCounted = "this kernel does not count them by cgroup";
constexpr const char* kOff = "the memory controller is off in this cgroup";
constexpr Event kEvents[] = {
    {&kOomKills, "", nullptr, {"memory.events", "oom_kill "}, {"memory.oom_control", "oom_kill "}},
    // The other file has what happened at the limits of all groups below as well.
    {&kHits, "max", memory_limit, {"memory.events.local", "max "}, {"memory.failcnt", ""}},
    {&kHits, "high", memory_high, {"memory.events.local", "high "}, {}},
    {&kRefaults, "anon", nullptr, {kStat, "workingset_refault_anon "}, {kStat, "total_workingset_refault_anon "}},
    {&kRefaults, "file", nullptr, {kStat, "workingset_refault_file "}, {kStat, "total_workingset_refault_file "}}};

Labels labels_of(const Event& event) {
  return event.metric->labels.empty() ? Labels() : Labels{{std::string(event.metric->labels), event.label}};
}

void add_bytes(Snapshot& out, const char* type, std::uint64_t bytes) {
  out.add(kGroupMemory, static_cast<double>(bytes), {{"type", type}});
}

}  // namespace

std::span<const Metric> GroupMemory::metrics() { return kAll; }

void GroupMemory::add(Snapshot& out, TargetGroup& group, const Target& target) {
  const CgroupView* view = group.view("memory");
  const std::string no_group = group.trouble();
  const auto use = view == nullptr ? std::nullopt : memory_use(view->version, view->group());
  const bool here = target.up() || target.is_cgroup();
  if (view != nullptr && here) {
    add_use(out, *view, use, target.is_cgroup());
  } else {
    for (const Metric& metric : {kMemoryLimit, kGroupMemory}) out.absent(metric.name, here ? no_group : kNoTarget);
  }
  Troubles troubles;
  if (view != nullptr)
    troubles = count_events(*view, use);
  else if (target.up())
    troubles.fill(no_group);
  add_events(out, troubles, no_group);
}

void GroupMemory::add_use(Snapshot& out, const CgroupView& view, const std::optional<MemoryUse>& memory, bool target_is_group) {
  if (const auto limit = least(view, memory_limit))
    out.add(kMemoryLimit, static_cast<double>(*limit));
  else
    out.absent(kMemoryLimit.name, "the cgroup has no memory limit");
  if (!memory) return out.absent(kGroupMemory.name, kOff);
  add_bytes(out, "usage", memory->usage);
  add_bytes(out, "working_set", memory->working_set);
  if (memory->peak) add_bytes(out, "peak", *memory->peak);
  for (const Kind& kind : kKinds) {
    const std::string_view key = view.version == 2 ? kind.v2 : kind.v1;
    if (const auto bytes = key.empty() ? std::nullopt : number_of(memory->stat, key)) add_bytes(out, kind.type, *bytes);
  }
  if (const auto swap = view.version == 2 ? number_in(view.group(), "memory.swap.current") : std::nullopt)
    add_bytes(out, "swap", *swap);
  if (target_is_group) out.add(kMemoryUsage, static_cast<double>(memory->usage));
}

GroupMemory::Troubles GroupMemory::count_events(const CgroupView& view, const std::optional<MemoryUse>& memory) {
  static_assert(std::size(kEvents) == kEventCount);
  Troubles troubles;
  for (std::size_t i = 0; i < kEventCount; ++i) {
    const Event& event = kEvents[i];
    const Told& told = view.version == 2 ? event.v2 : event.v1;
    troubles[i] = kNotCounted;
    if (told.file.empty()) continue;
    const Dir& group = event.limit == nullptr ? view.group() : limit_holder(view, event.limit);
    std::string read;
    std::string_view text;
    if (told.file == kStat) {
      if (memory)
        text = memory->stat;
      else
        troubles[i] = kOff;
    } else if (auto file = group.read(std::string(told.file), 4096)) {
      read = std::move(*file);
      text = read;
    } else {
      troubles[i] = file.error().code == ENOENT && !memory ? kOff : reason(file.error());
    }
    const auto now = told.key.empty() ? to_number(text) : number_of(text, told.key);
    if (!now) continue;
    troubles[i].clear();
    events_[i].update(TargetGroup::place(group), {*now});
  }
  return troubles;
}

void GroupMemory::add_events(Snapshot& out, const Troubles& troubles, const std::string& no_group) const {
  const auto shown = [&](std::size_t i) { return troubles[i].empty() && events_[i].ever(); };
  for (std::size_t i = 0; i < kEventCount; ++i)
    if (shown(i)) out.add(*kEvents[i].metric, static_cast<double>(events_[i].total()[0]), labels_of(kEvents[i]));
  const Metric* whole = nullptr;  // the last one that was told to be absent with all its rows
  for (std::size_t i = 0; i < kEventCount; ++i) {
    const Metric* const metric = kEvents[i].metric;
    if (shown(i) || whole == metric) continue;
    if (out.find(metric->name) == nullptr) {
      whole = metric;
      out.absent(metric->name, troubles[i].empty() ? no_group : troubles[i]);
    } else if (!troubles[i].empty() && troubles[i] != kNotCounted) {  // a row that a kernel never has is no loss
      out.absent(with_labels(metric->name, labels_of(kEvents[i])), troubles[i]);
    }
  }
}

}  // namespace boxo::host
