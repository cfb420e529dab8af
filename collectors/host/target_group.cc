// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/target_group.h"

#include <sys/stat.h>

#include "collectors/host/group_limits.h"
#include "collectors/reading.h"

namespace boxo::host {

namespace {

constexpr const char* kNoGroup = "the target is in no cgroup of its own";

}  // namespace

std::uint64_t TargetGroup::place(const Dir& group) {
  struct stat info {};
  if (::fstat(group.fd(), &info) != 0) return 1;
  // Inode numbers of cgroups are counted up and not used again; the device tells the hierarchies apart.
  return (static_cast<std::uint64_t>(info.st_dev) << 48) ^ info.st_ino ^ (std::uint64_t{1} << 47);
}

void TargetGroup::refresh() {
  if (!cgroups_) {
    auto mountinfo = target_.proc_root().read("self/mountinfo");
    auto cgroups = Cgroups::find(root_, mountinfo ? *mountinfo : std::string());
    if (cgroups)
      cgroups_.emplace(std::move(*cgroups));
    else
      cgroups_trouble_ = reason(cgroups.error());
  }
  // An empty view is tried again each time: the group may not have been there yet, or was made again.
  std::erase_if(found_, [](const auto& entry) {
    if (!entry.second.view) return true;
    // The directory of a removed group still opens, but lists no file.
    return !entry.second.view->group().file("cgroup.procs");
  });
  std::string where;
  if (target_.is_cgroup()) {
    for (const char* controller : {"", "memory", "cpu", "cpuacct", "pids", "io"})
      where += target_.cgroup_path(controller) + "\n";
  } else {
    // A target that has ended leaves its group where it was, and in it what was counted last: the kill that
    // ended it.
    const Process* main = target_.main();
    if (main == nullptr) return;
    if (auto text = main->shared().read("cgroup"))
      where = std::move(*text);
    else if (where_of_ == main->id)
      return;
    where_of_ = main->id;
  }
  if (where == where_) return;
  found_.clear();
  where_ = std::move(where);
}

const CgroupView* TargetGroup::view(const std::string& controller) {
  auto it = found_.find(controller);
  if (it == found_.end()) it = found_.emplace(controller, find(controller)).first;
  trouble_ = it->second.trouble;
  return it->second.view ? &*it->second.view : nullptr;
}

TargetGroup::Found TargetGroup::find(const std::string& controller) const {
  if (!cgroups_) return {std::nullopt, cgroups_trouble_};
  if (cgroups_->hierarchy(controller) == nullptr)
    return {std::nullopt,
            "no cgroup hierarchy has the controller " + (controller.empty() ? "of version 2" : controller)};
  const Process* main = target_.main();
  if (!target_.is_cgroup() && main == nullptr) return {std::nullopt, kNoTarget};
  auto view = target_.is_cgroup() ? target_.cgroup(controller)
              : where_.empty()    ? cgroups_->view_of(controller, main->shared())
                                  : cgroups_->view_of(controller, main->shared(), where_);
  if (!view) return {std::nullopt, reason(view.error())};
  if (view->to_root && view->levels.size() == 1) return {std::nullopt, kNoGroup};
  if (controller == "memory")
    if (auto kept = keep_binding(*view); !kept) return {std::nullopt, reason(kept.error())};
  return {std::move(*view), ""};
}

}  // namespace boxo::host
