// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/group.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "collectors/log.h"

namespace boxo {

namespace {

constexpr std::size_t kShownIds = 5;

Error ambiguous(const std::string& prefix, const FoundContainers& found) {
  std::string list;
  std::size_t shown = 0;
  for (const auto& [id, where] : found) {
    if (shown++ == kShownIds) {
      list += " …";
      break;
    }
    list += (list.empty() ? "" : ", ") + id;
  }
  return Error{"container " + prefix + " is ambiguous: " + list, "give more of the id", EINVAL};
}

}  // namespace

Group::Group(const TargetSpec& spec, const Cgroups& cgroups, const Dir& proc, ProcessTable& table)
    : spec_(&spec), cgroups_(&cgroups), proc_(&proc), table_(&table), name_(spec.name), given_(spec.name) {}

Result<Group> Group::make(const TargetSpec& spec, const Cgroups& cgroups, const Dir& proc,
                          ProcessTable& table) {
  Group out(spec, cgroups, proc, table);
  if (out.is_container()) {
    const std::string& id = out.name_.text;
    if (id.size() < ContainerName::kShortest || id.find_first_not_of("0123456789abcdef") != std::string::npos)
      return Error{"\"" + spec.name + "\" is no container id",
                   "give at least 4 of its hexadecimal digits, as the runtime's ps shows them", EINVAL};
  } else {
    if (spec.name.empty())
      return Error{"the cgroup's path is empty", "give it as /proc/PID/cgroup shows it", EINVAL};
    out.wanted_ = spec.name.front() == '/' ? spec.name : "/" + spec.name;
    while (out.wanted_.size() > 1 && out.wanted_.ends_with('/')) out.wanted_.pop_back();
  }
  if (auto found = out.find(); !found) return found.error();
  if (!out.dir_ && out.hidden_) {
    std::vector<pid_t> pids;
    out.list_by_text(pids);
    if (out.problem_) return *out.problem_;
  }
  return out;
}

void Group::list(std::vector<pid_t>& pids, Clock::time_point now) {
  look_around(now);
  if (dir_ && Cgroups::pids(dir_, pids)) return;
  pids.clear();  // it was removed; it may have been made again under the same name
  if (dir_) search_all_ = true;
  dir_ = {};
  path_.clear();
  if (auto found = find(); !found) problem_ = found.error();
  if (dir_) {
    if (!Cgroups::pids(dir_, pids)) pids.clear();
  } else if (hidden_) {
    list_by_text(pids);
    if (!pids.empty()) open_through(pids.front());
  }
}

/// Of the hierarchy alone in which the watched one is: so each group is read once.
void Group::look_around(Clock::time_point now) {
  if (!is_container() || told_ambiguous_ || name_.text == given_.text || path_.empty()) return;
  if (!looked_) looked_ = now;
  if (now - *looked_ < kLookAround) return;
  looked_ = now;
  const Cgroups::Hierarchy* const where = cgroups_->hierarchy(controller_);
  if (where == nullptr) return;
  FoundContainers found;
  Cgroups::walk(*where, [&](const std::string& path) { add_containers(given_, controller_, path, found); });
  found.erase(name_.text);
  if (found.empty()) return;
  told_ambiguous_ = true;
  log_warn("container " + given_.text + " is ambiguous by now: " + name_.text + " is watched, " + found.begin()->first +
           " fits too: give more of the id, or the next start fails");
}

Result<> Group::find() {
  problem_.reset();
  if (is_container()) return find_container();
  find_cgroup();
  return {};
}

void Group::find_cgroup() {
  hidden_ = cgroups_->hierarchies().empty();
  bool done = false;
  // systemd mounts v1 controllers together and leaves a link for each: cpuacct -> cpu,cpuacct.
  std::error_code ignored;
  const std::string real = std::filesystem::weakly_canonical(wanted_, ignored);
  for (const int version : {2, 1}) {
    for (const Cgroups::Hierarchy& one : cgroups_->hierarchies()) {
      if (one.version != version || done) continue;
      // The directory's own path names one hierarchy, a path out of /proc/PID/cgroup may be in any.
      auto rest = path_below(wanted_, one.where);
      if (!rest) rest = path_below(real, one.where);
      if (!rest)
        done = take(one.key(), wanted_);
      else if (one.mounted == "/")
        done = take(one.key(), std::string(*rest)) || dir_;
      else
        done = take(one.key(), one.mounted + (*rest == "/" ? "" : std::string(*rest))) || dir_;
    }
  }
  if (wanted_ == "/") hidden_ = false;  // of everybody's paths this would take all
}

Result<> Group::find_container() {
  hidden_ = true;  // runtimes hide containers from each other
  const FoundContainers found = find_containers(*cgroups_, name_);
  if (found.size() > 1) return ambiguous(name_.text, found);
  if (found.empty()) return {};
  const auto& [id, groups] = *found.begin();
  name_.text = id;  // a prefix that has been resolved stays with its container
  for (const ContainerGroup& group : groups)
    if (take(group.controller, group.path)) break;
  return {};
}

/// Takes the group if it is there, and is better than what was found before. True if no other can be better:
/// made in one hierarchy it may exist in another, where nothing was moved into it.
bool Group::take(const std::string& controller, const std::string& path) {
  auto dir = cgroups_->open(controller, path);
  if (!dir) {
    if (dir.error().code == EXDEV) hidden_ = true;
    return false;
  }
  std::vector<pid_t> pids;
  const bool filled = Cgroups::pids(*dir, pids) && !pids.empty();
  if (dir_ && !filled) return false;
  dir_ = std::move(*dir);
  path_ = path;
  controller_ = controller;
  return filled;
}

std::string Group::watched_part(std::string_view path) const {
  if (is_container()) return path_to_container(path, name_.text);
  const std::string& group = path_.empty() ? wanted_ : path_;
  const auto rest = path_below(path, group);
  return rest && !rest->starts_with("/..") ? group : std::string();
}

/// Whether a process is in it, as far as is known: a prefix may still fit several containers.
bool Group::fits(std::string_view cgroup_text, FoundContainers& found) const {
  bool fit = false;
  for (const CgroupLine& line : parse_cgroup_lines(cgroup_text)) {
    if (!is_container()) {
      fit = fit || !watched_part(line.path).empty();
      continue;
    }
    FoundContainers here;
    add_containers(name_, {}, line.path, here);
    fit = fit || !here.empty();
    found.merge(here);
  }
  return fit;
}

void Group::list_by_text(std::vector<pid_t>& pids) {
  if (auto looked = table_->look([](const auto&) { return false; }); !looked) return;
  std::vector<ProcessTable::Row>& rows = table_->rows();
  std::vector<std::size_t> fitting;
  FoundContainers found;
  for (const std::size_t index : table_->candidates(search_all_)) {
    auto text = proc_->read(std::to_string(rows[index].pid) + "/cgroup", 64 << 10);
    if (text && fits(*text, found)) fitting.push_back(index);
  }
  search_all_ = false;
  if (found.size() > 1) {
    problem_ = ambiguous(name_.text, found);
    search_all_ = true;
    return;
  }
  if (found.size() == 1) name_.text = found.begin()->first;
  for (const std::size_t index : fitting) rows[index].member = true;
  for (const std::size_t index : table_->fresh()) {
    const ProcessTable::Row* const parent = table_->find(rows[index].parent);
    if (parent != nullptr && parent->member) rows[index].member = true;
  }
  for (const ProcessTable::Row& row : rows)
    if (row.member) pids.push_back(row.pid);
}

/// Finds the group's directory by way of one of its processes, which sees it where the agent does not.
void Group::open_through(pid_t pid) {
  auto process = proc_->dir(std::to_string(pid));
  if (!process) return;
  auto text = process->read("cgroup", 64 << 10);
  if (!text) return;
  for (const int version : {2, 1}) {
    for (const Cgroups::Hierarchy& one : cgroups_->hierarchies()) {
      if (one.version != version) continue;
      const std::string part = watched_part(cgroups_->path(one.key(), *text));
      if (part.empty()) continue;
      auto view = cgroups_->view_of(one.key(), *process);
      if (!view || !view->climb_to(part)) continue;
      dir_ = std::move(view->levels.front());
      controller_ = one.key();
      path_ = part;
      return;
    }
  }
}

std::string Group::path(const std::string& controller, std::string_view main_text) const {
  const Cgroups::Hierarchy* const where = cgroups_->hierarchy(controller);
  if (where == nullptr) return {};
  if (!path_.empty() && where == cgroups_->hierarchy(controller_)) return path_;
  const std::string own = cgroups_->path(controller, main_text);
  if (!own.empty()) return watched_part(own);
  return !path_.empty() && cgroups_->view(controller, path_) ? path_ : std::string();
}

std::string Group::describe(bool up) const {
  std::string what = is_container() ? "container " + name_.text.substr(0, 12) : "cgroup " + wanted_;
  if (up) return what;
  if (problem_) return problem_->text();
  return dir_ ? what + " has no process" : "no " + what + " yet";
}

}  // namespace boxo
