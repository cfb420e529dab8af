// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/packet_group.h"

#include <bpf/bpf.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "bpf/watched.h"
#include "collectors/kernel/privileges.h"

namespace boxo::kernel {

namespace {

constexpr auto kLookAgain = std::chrono::seconds(10);
/// Some 0.2 ms for 1,000 descriptors each.
constexpr std::size_t kLookedAtInOneTick = 16;

Error no_such_group() {
  return {"the target's processes, or sockets that it has open, are in cgroups of version 2 of which the agent sees none that is "
          "above all of them",
          "mount the host's cgroup file system where the agent runs, or start them in one cgroup"};
}

}  // namespace

/// The group of the target, whatever hierarchy that was named by.
Result<CgroupView> PacketGroup::start() {
  auto group = target_->cgroup("");
  // Who leaves a cgroup that is watched leaves the target.
  moves_matter_ = !group || !target_->is_cgroup();
  if (group) return group;
  auto all = Cgroups::find(cgroup_root_);
  if (!all && (all.error().code == EMFILE || all.error().code == ENFILE)) return all.error();
  if (!all || all->hierarchy("") == nullptr)
    return Error{"none is mounted below " + cgroup_root_, "mount one: mount -t cgroup2 none DIRECTORY"};
  return all->view_of("", target_->main()->shared());
}

/// Tells the kernel the groups' ids. What it meets meanwhile may be taken for too high or too low: that is wiped out at the
/// end, and then it is met again.
Result<> PacketGroup::write_row(const Probe& probe) {
  const int row = probe.map_fd("row"), met = probe.map_fd("met");
  for (const std::uint64_t id : std::exchange(ids_, {})) ::bpf_map_delete_elem(row, &id);
  // Of more the deepest are left out: the programs may be higher than they need.
  const std::size_t size = std::min<std::size_t>(row_->levels.size(), GROUP_LEVELS);
  for (std::uint32_t level = 0; level < size; ++level) {
    struct stat info {};
    if (::fstat(row_->levels[row_->levels.size() - 1 - level].fd(), &info) != 0) return errno_error(row_->path);
    // A group's inode number is its id on 64-bit machines.
    const std::uint64_t id = info.st_ino;
    if (::bpf_map_update_elem(row, &id, &level, BPF_ANY) != 0) return errno_error("map row");
    ids_.push_back(id);
  }
  const groups_met nothing{{}, moves_matter_ ? 0U : 1U};
  const std::uint32_t zero = 0;
  if (::bpf_map_update_elem(met, &zero, &nothing, BPF_ANY) != 0) return errno_error("map met");
  return {};
}

Result<> PacketGroup::enter(Probe& probe, std::size_t level) {
  if (auto entered = probe.enter(row_->levels[row_->levels.size() - 1 - level]); !entered) return entered;
  level_ = level;
  entered_ = ids_[level];
  return {};
}

void PacketGroup::leave() {
  main_.reset();
  entered_ = 0;
}

std::string PacketGroup::path() const {
  std::string path = row_->path;
  for (std::size_t above = row_->levels.size() - 1 - level_; above != 0; --above) path.erase(std::min(path.rfind('/'), path.size()));
  return path.empty() ? "/" : path;
}

Result<bool> PacketGroup::follow(Probe& probe) {
  if (target_->main() == nullptr) return false;
  const ProcessId main = target_->main()->id;
  if (main_ == main) return false;
  main_.reset();
  auto group = start();
  if (!group) return group.error();
  row_.emplace(std::move(*group));
  if (auto written = write_row(probe); !written) return written.error();
  // Where they are above the new one they stay until it is known who else is there: those would be missed meanwhile.
  const auto here = std::find(ids_.begin(), ids_.end(), entered_);
  may_sink_ = here != ids_.end();
  if (may_sink_)
    level_ = static_cast<std::size_t>(here - ids_.begin());
  else if (auto entered = enter(probe, ids_.size() - 1); !entered)
    return entered.error();
  main_ = main;
  // What there is now is looked at anyway.
  looked_ = Clock::now();
  next_ = target_->processes().size();
  return true;
}

/// For what nobody tells: sockets that a process was handed or took, and whoever was moved without a program being run. That
/// they are missing lasts no longer than a round.
Result<> PacketGroup::look_again(const Probe& probe) {
  const std::vector<Process>& all = target_->processes();
  const auto now = Clock::now();
  if (next_ >= all.size()) {
    if (now - looked_ < kLookAgain) return {};
    looked_ = now;
    next_ = 0;
  }
  for (std::size_t n = 0; one_by_one_ && n < kLookedAtInOneTick && next_ < all.size(); ++n, ++next_) {
    const Process& process = all[next_];
    // All its threads have the same descriptors.
    const pid_t one = process.survivor.pid != 0 ? process.survivor.pid : process.id.pid;
    auto looked = probe.iterate("remember_groups", {.process = process.id.pid});
    if (looked) looked = probe.iterate("remember", {.thread = one});
    one_by_one_ = looked || (looked.error().code != E2BIG && looked.error().code != EINVAL);
    if (!looked && one_by_one_) return looked;
  }
  if (one_by_one_ || next_ == all.size()) return {};
  // Before Linux 6.1: the tasks of everybody, and not their descriptors, which are many more.
  next_ = all.size();
  return probe.iterate("remember_groups");
}

Result<bool> PacketGroup::settle(Probe& probe) {
  if (!main_ || target_->main() == nullptr) return false;
  if (auto looked = look_again(probe); !looked) return Error{looked.error().text()};
  groups_met met{};
  const std::uint32_t zero = 0;
  if (::bpf_map_lookup_elem(probe.map_fd("met"), &zero, &met) != 0) return errno_error("map met");
  const bool anywhere = met.at[GROUP_ANYWHERE] != 0;
  if (anywhere && !row_->to_root) return no_such_group();
  const auto* const first = std::find_if(std::begin(met.at), std::end(met.at), [](std::uint32_t at) { return at != 0; });
  const std::size_t wanted = anywhere ? 0 : std::min(static_cast<std::size_t>(first - std::begin(met.at)), ids_.size() - 1);
  if (wanted == level_ || (wanted > level_ && !may_sink_)) return false;
  may_sink_ = false;
  auto entered = enter(probe, wanted);
  if (!entered && entered.error().code == EPERM && !missing_for_cgroup().empty())
    return Error{"processes or sockets of the target are in another cgroup than the main process, and the agent has given up "
                 "CAP_NET_ADMIN, which counting there needs",
                 "start the agent anew", EPERM};
  if (!entered) return entered.error();
  return true;
}

}  // namespace boxo::kernel
