// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/own_cgroup.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

namespace boxo::kernel {

namespace {

/// A stranger may enter the group, or the group be made again, without a change of the target.
constexpr auto kLookAgain = std::chrono::seconds(10);

constexpr const char* kGiveOne = "start the node in a cgroup that nothing else is in, such as a service or a container";

/// With version 2 a group that has not been given a controller is part of the nearest one above it that has.
const char* proof(const std::string& controller, int version) {
  if (version != 2) return "cgroup.procs";
  return controller == "memory" ? "memory.current" : "io.stat";
}

}  // namespace

void OwnCgroup::update() {
  // What a target left in the page cache is written back after its end.
  if (target_->main() == nullptr && !target_->is_cgroup()) return;
  std::string paths = target_->cgroup_path("memory") + "\n" + target_->cgroup_path("io");
  const auto now = Clock::now();
  if (generation_ == target_->generation() && paths == paths_ && now - looked_ < kLookAgain) return;
  generation_ = target_->generation();
  paths_ = std::move(paths);
  looked_ = now;
  const auto memory = find("memory");
  const auto io = find("io");
  memory_ = memory ? *memory : 0;
  io_ = io ? *io : 0;
  trouble_ = memory ? std::string() : memory.error().text();
}

Result<std::uint64_t> OwnCgroup::find(const std::string& controller) const {
  auto view = target_->cgroup(controller);
  if (!view) return view.error();
  if (view->to_root && view->levels.size() == 1) return Error{"the target is in no " + controller + " cgroup of its own", kGiveOne};
  if (!view->group().file(proof(controller, view->version)))
    return Error{"the target's cgroup has no " + controller + " controller",
                 "switch it on in cgroup.subtree_control of the group above"};
  if (!target_->is_cgroup())
    if (auto ours = only_ours(view->group()); !ours) return ours.error();
  struct stat info {};
  if (::fstat(view->group().fd(), &info) != 0) return errno_error(view->path);
  // A group's inode number is its id on 64-bit machines.
  return std::uint64_t{info.st_ino};
}

Result<> OwnCgroup::only_ours(const Dir& group) const {
  std::vector<pid_t> pids;
  if (auto listed = Cgroups::pids(group, pids); !listed) return listed;
  std::set<pid_t> ours{::getpid()};
  for (const Process& process : target_->processes()) ours.insert(process.id.pid);
  if (!std::ranges::all_of(pids, [&](pid_t pid) { return ours.contains(pid); }))
    return Error{"other processes are in the target's cgroup", kGiveOne};
  return {};
}

}  // namespace boxo::kernel
