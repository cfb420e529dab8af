// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/target.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>
#include <string_view>
#include <utility>

#include "collectors/discover.h"
#include "collectors/group.h"
#include "collectors/log.h"
#include "collectors/members.h"
#include "collectors/process_table.h"

namespace boxo {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLookAnyway{60};
// A process is given its start time a moment before it is listed.
constexpr std::chrono::milliseconds kUnlisted{100};
// The kernel keeps this much of a process's name.
constexpr std::size_t kCommLength = 15;

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

pid_t own_pid(const Dir& proc) {
  pid_t pid = 0;
  if (auto self = proc.link("self")) std::from_chars(self->data(), self->data() + self->size(), pid);
  return pid;
}

/// The process as a name that can be looked for, which the kernel may have cut.
bool has_name(const Dir& proc, pid_t pid, const std::string& name) {
  const std::string at = std::to_string(pid);
  auto comm = proc.read(at + "/comm", 256);
  if (!comm) return false;
  if (comm->ends_with('\n')) comm->pop_back();
  if (*comm != name.substr(0, kCommLength)) return false;
  if (name.size() <= kCommLength) return true;
  // What was cut off stands in the path of the program or, for a script, in its arguments.
  auto exe = proc.link(at + "/exe");
  if (exe && base_name(*exe) == name) return true;
  auto arguments = proc.read(at + "/cmdline", 4096);
  if (!arguments || arguments->empty()) return !exe;
  std::string_view rest = *arguments;
  for (int i = 0; i < 2 && !rest.empty(); ++i) {
    const std::size_t end = std::min(rest.find('\0'), rest.size());
    if (base_name(rest.substr(0, end)) == name) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

std::uint64_t ticks_in(std::chrono::nanoseconds time) {
  return static_cast<std::uint64_t>(time / (std::chrono::nanoseconds(std::chrono::seconds(1)) / ::sysconf(_SC_CLK_TCK)));
}

}  // namespace

std::uint64_t ticks_since_boot() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return ticks_in(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

struct Target::Impl {
  Impl(TargetSpec given, Dir proc_dir, Cgroups groups, std::function<std::uint64_t()> now)
      : spec(std::move(given)),
        clock(std::move(now)),
        proc(std::move(proc_dir)),
        cgroups(std::move(groups)),
        table(proc),
        members(proc),
        discovery(proc, own_pid(proc)) {}

  bool of_group() const {
    return spec.kind == TargetSpec::Kind::kCgroup || spec.kind == TargetSpec::Kind::kContainer;
  }

  void refresh_tree();
  void refresh_group();
  std::optional<pid_t> find_main();
  std::optional<pid_t> eldest(const std::vector<pid_t>& matches);
  const ProcessTable::Row* top_of(const ProcessTable::Row& row, const std::vector<pid_t>& matches);
  void attach(pid_t pid, std::optional<std::uint64_t> start_ticks);
  void detach();
  bool lost_name() const;
  void adopt(const std::vector<std::size_t>& rows);
  bool nothing_born();
  void keep_living();
  void adopt_born();
  void follow(bool told);
  void took_over();
  /// Whether a process is older than this moment, by more than it may take to be listed.
  static bool started_before(const ProcessId& id, std::uint64_t moment) { return id.start_ticks + ticks_in(kUnlisted) < moment; }
  /// Whether this one could have been the target while another one was, and did not come after it. The shell that starts a
  /// node runs before the calls of the program that it makes, and becomes the node by exec: it could not.
  bool ran_beside(const ProcessId& id) const {
    return started_before(id, looked_at) &&
           (!started_before(id, attached_at) || std::find(fitted.begin(), fitted.end(), id) != fitted.end());
  }

  TargetSpec spec;
  std::function<std::uint64_t()> clock;
  Dir proc;
  Cgroups cgroups;
  ProcessTable table;
  Members members;
  Members::RanBefore ran_before;  // while a new main process is taken with its descendants; those of members never did
  Discovery discovery;
  std::optional<Group> group;
  std::uint64_t restarts = 0;
  bool attached_before = false;
  std::uint64_t looked_at = 0;    // when the last refresh began; of a tree: the last that found it there
  std::uint64_t there_at = 0;     // when the last refresh began that found it there
  std::uint64_t attached_at = 0;  // when the main process was taken
  std::vector<ProcessId> fits;    // what could be taken, now or soon, when the main process was looked for
  std::vector<ProcessId> fitted;  // the same, when the present or last one was
  std::size_t others_fit = 0;     // how many more could have been taken when the main process was looked for
  std::shared_ptr<const Handover> handover;
  std::uint64_t quiet_forks = 0;      // the count at the last look that found nothing new
  bool unadopted = false;             // a look found a member that could not be taken in
  bool quiet = false;                 // there was such a look, and the kernel followed all before it
  Clock::time_point next_look;        // all the same: for what nobody foresaw
  bool search_all = true;  // nothing was searched since the target was lost
  std::string name_exe;    // kComm: what ran when the name was found
  std::vector<pid_t> pids;
  std::optional<std::string> cgroup_text;  // of the main process, of this refresh
};

Target::Target(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Target::Target(Target&&) noexcept = default;
Target& Target::operator=(Target&&) noexcept = default;
Target::~Target() = default;

Result<Target> Target::make(TargetSpec spec, const std::string& proc, const std::string& cgroup_root,
                            std::function<std::uint64_t()> clock) {
  auto root = Dir::open(proc);
  if (!root) return root.error();
  auto mountinfo = root->read("self/mountinfo", std::size_t{4} << 20);
  auto cgroups = Cgroups::find(cgroup_root, mountinfo ? std::string_view(*mountinfo) : std::string_view());
  auto impl =
      std::make_unique<Impl>(std::move(spec), std::move(*root), cgroups ? std::move(*cgroups) : Cgroups(), std::move(clock));
  Impl& self = *impl;
  if (self.of_group()) {
    auto group = Group::make(self.spec, self.cgroups, self.proc, self.table);
    if (!group) return group.error();
    self.group.emplace(std::move(*group));
  }
  if (self.spec.kind == TargetSpec::Kind::kPid) {
    const std::string pid = std::to_string(self.spec.pid);
    auto process = self.proc.dir(pid);
    if (!process)
      return Error{"no process has pid " + pid, "give the pid that the agent's own /proc shows", ESRCH};
    // Threads have a directory too, only unlisted.
    const std::string number = "Tgid:\t";
    if (auto status = process->read("status");
        status && status->find(number) != std::string::npos &&
        status->find("\n" + number + pid + "\n") == std::string::npos) {
      const std::size_t at = status->find(number) + number.size();
      return Error{"pid " + pid + " is a thread",
                   "give the pid of its process, " + status->substr(at, status->find('\n', at) - at), ESRCH};
    }
    if (auto looked = self.table.look([](const auto&) { return false; }); !looked) return looked.error();
    self.attach(self.spec.pid, {});
    self.search_all = false;
    return Target(std::move(impl));
  }
  Target out(std::move(impl));
  out.refresh();
  return out;
}

void Target::refresh() {
  const std::uint64_t now = impl_->clock();
  impl_->cgroup_text.reset();
  if (impl_->of_group())
    impl_->refresh_group();
  else
    impl_->refresh_tree();
  if (impl_->of_group() || up()) impl_->looked_at = now;
  if (up()) impl_->there_at = now;
  impl_->members.find_survivors();
}

void Target::Impl::refresh_tree() {
  if (spec.kind == TargetSpec::Kind::kPid && members.list().empty()) return;  // it never comes back
  const auto alive = [&](const ProcessTable::Row& row) {
    const Process* const process = members.find(row.pid);
    return process != nullptr && process->id.start_ticks == row.start_ticks && is_there(*process);
  };
  const bool runs = !members.list().empty() && members.main_runs() && !lost_name();
  if (runs && nothing_born()) return keep_living();
  const std::uint64_t before = members.generation();
  const auto forks = handover && handover->forks ? handover->forks() : std::nullopt;
  const bool told = forks && forks->generation == before;  // the kernel follows just these members
  const auto scope = runs && !unadopted ? ProcessTable::Scope::kMembersNew : ProcessTable::Scope::kAll;
  if (auto looked = table.look(alive, scope); !looked) return;
  if (!members.list().empty() && (!members.main_runs() || lost_name())) detach();
  if (!members.list().empty()) {
    follow(told);
    quiet = told && members.generation() == before && !unadopted;
    quiet_forks = forks ? forks->count : 0;
    next_look = Clock::now() + kLookAnyway;
  } else if (spec.kind != TargetSpec::Kind::kPid) {
    if (const auto pid = find_main()) attach(*pid, table.find(*pid)->start_ticks);
  }
}

/// Whether the kernel has followed all members since before a look at all processes that found nothing new, and has
/// seen none of them fork since.
bool Target::Impl::nothing_born() {
  if (!quiet || !handover || !handover->forks || Clock::now() >= next_look) return false;
  const auto forks = handover->forks();
  return forks && forks->count == quiet_forks && forks->generation == members.generation();
}

/// Lets go what has ended.
void Target::Impl::keep_living() {
  const ProcessId main = members.list().front().id;  // known to run
  members.keep_if([&](const Process& process) { return process.id == main || is_there(process); });
  members.arrange(main);
}

/// Takes over what is new among the children of members, and lets go what has ended. `told`: the kernel follows just
/// these members.
void Target::Impl::follow(bool told) {
  const ProcessId main = members.list().front().id;  // known to run
  members.keep_if([&](const Process& process) {
    if (process.id == main) return true;
    const ProcessTable::Row* const row = table.find(process.id.pid);
    return row != nullptr && row->member && row->start_ticks == process.id.start_ticks;
  });
  adopt(table.fresh());
  if (told && handover->born) adopt_born();
  members.arrange(main);
}

/// Makes members of those whose parents came and went since the last look: the kernel has seen them come. It is asked
/// after the table was filled: who is a member now, and was started when the row says, was one then.
void Target::Impl::adopt_born() {
  for (const pid_t pid : handover->born()) {
    ProcessTable::Row* const row = table.find(pid);
    if (row == nullptr || row->member) continue;
    row->member = members.add(pid, row->start_ticks, true);
    unadopted |= !row->member;
  }
}

/// Makes members of those rows that descend from members.
void Target::Impl::adopt(const std::vector<std::size_t>& rows) {
  std::vector<ProcessTable::Row>& all = table.rows();
  // Mostly parents have the smaller pid, so that one pass finds all and a second one nothing.
  unadopted = false;
  for (bool again = true; again;) {
    again = false;
    for (const std::size_t index : rows) {
      ProcessTable::Row& row = all[index];
      if (row.member || row.parent == 0) continue;
      const ProcessTable::Row* const parent = table.find(row.parent);
      if (parent == nullptr || !parent->member || parent->start_ticks > row.start_ticks) continue;
      if (!members.add(row.pid, row.start_ticks, true, ran_before)) {
        unadopted = true;
        row.inode =
            0;  // it ended, or there is no descriptor left: to be looked at again if it is still there
        continue;
      }
      row.member = again = true;
    }
  }
}

void Target::Impl::attach(pid_t pid, std::optional<std::uint64_t> start_ticks) {
  if (attached_before) ran_before = [this](const ProcessId& id) { return ran_beside(id); };
  if (!members.add(pid, start_ticks, false, ran_before)) return;
  quiet = false;
  const ProcessId main = members.list().front().id;
  if (attached_before && members.list().front().ran_before)
    ran_before = [this](const ProcessId& id) { return started_before(id, looked_at); };
  else
    ran_before = {};
  for (ProcessTable::Row& row : table.rows())
    row.member = row.pid == main.pid && row.start_ticks == main.start_ticks;
  members.watch_main();
  name_exe = members.main_exe();
  table.read_all();  // parents may have changed since the others were read
  std::vector<std::size_t> everybody(table.rows().size());
  for (std::size_t i = 0; i < everybody.size(); ++i) everybody[i] = i;
  adopt(everybody);
  ran_before = {};
  members.arrange(main);
  took_over();
  attached_at = clock();
  fitted = std::move(fits);
  if (others_fit > 0)
    log_info(std::to_string(others_fit + 1) + (spec.kind == TargetSpec::Kind::kComm ? " processes are named " + spec.name : " boxo-based nodes run here") +
             ": watching the oldest, pid " + std::to_string(main.pid) + "; --pid, --cgroup or --container name another");
}

void Target::Impl::took_over() {
  const Process& main = members.list().front();
  // What comes to a group that has been empty since before it began is the target started again, by something that took its
  // time to move it there.
  const bool ran_beside = main.ran_before && (!of_group() || started_before(main.id, there_at));
  if (attached_before && ran_beside)
    log_info("pid " + std::to_string(main.id.pid) + " (" + main.comm + ") ran before it became the target: no restart, and it counts from now on");
  else if (attached_before)
    ++restarts;
  attached_before = true;
}

void Target::Impl::detach() {
  for (ProcessTable::Row& row : table.rows()) row.member = false;
  members.clear();
  search_all = true;
}

/// A name is lost by becoming another program, not by a program that gives itself a new name.
bool Target::Impl::lost_name() const {
  if (spec.kind != TargetSpec::Kind::kComm) return false;
  if (members.list().front().comm == spec.name.substr(0, kCommLength)) return false;
  return name_exe.empty() || members.main_exe() != name_exe;
}

std::optional<pid_t> Target::Impl::find_main() {
  std::vector<pid_t> matches;
  fits.clear();
  for (const std::size_t index : table.candidates(search_all)) {
    const ProcessTable::Row& row = table.rows()[index];
    const auto match = [&] {
      if (spec.kind != TargetSpec::Kind::kComm) return discovery.is_node(row);
      // The scripts around kubo call `ipfs version` and the like before the daemon, under the same name.
      const bool fit = has_name(proc, row.pid, spec.name) && !discovery.is_kubo_call(row);
      return fit ? Discovery::Node::kYes : Discovery::Node::kNo;
    }();
    // It may have been a living one when its row was read, and have ended since.
    if (match == Discovery::Node::kNo) continue;
    auto process = proc.dir(std::to_string(row.pid));
    if (!process) continue;
    const auto stat = read_proc_stat(*process);
    if (!stat || stat->ended() || stat->start_ticks != row.start_ticks) continue;
    if (match == Discovery::Node::kYes) matches.push_back(row.pid);
    fits.push_back({row.pid, row.start_ticks});
  }
  search_all = false;
  discovery.forget_ended(table);
  const auto found = eldest(matches);
  const auto alone = [&](pid_t pid) { return top_of(*table.find(pid), matches)->pid == pid; };
  others_fit = static_cast<std::size_t>(std::count_if(matches.begin(), matches.end(), alone));
  others_fit -= std::min<std::size_t>(1, others_fit);
  return found;
}

/// The oldest of them that does not descend from another one of them.
std::optional<pid_t> Target::Impl::eldest(const std::vector<pid_t>& matches) {
  const ProcessTable::Row* best = nullptr;
  for (const pid_t pid : matches) {
    const ProcessTable::Row* const row = table.find(pid);
    if (best == nullptr || row->start_ticks < best->start_ticks) best = row;
  }
  if (best == nullptr) return {};
  // Ancestors are older, but start times are coarse: a child may seem to be as old as its parent.
  return top_of(*best, matches)->pid;
}

/// The farthest ancestor of the row that is one of them, or the row itself.
const ProcessTable::Row* Target::Impl::top_of(const ProcessTable::Row& row, const std::vector<pid_t>& matches) {
  const ProcessTable::Row* top = &row;
  const ProcessTable::Row* up = top;
  for (std::size_t steps = 0; steps < table.rows().size() && up->parent != 0; ++steps) {
    up = table.find(up->parent);
    if (up == nullptr) break;
    if (std::binary_search(matches.begin(), matches.end(), up->pid)) top = up;
  }
  return top;
}

void Target::Impl::refresh_group() {
  const std::vector<pid_t> listed = std::move(pids);
  pids.clear();
  group->list(pids);
  const bool had_main = !members.list().empty();
  const ProcessId old_main = had_main ? members.list().front().id : ProcessId{};
  const bool main_runs = had_main && members.main_runs();
  std::vector<pid_t> known;
  members.keep_if([&](const Process& process) {
    const bool listed = std::binary_search(pids.begin(), pids.end(), process.id.pid);
    const bool keep = listed && is_there(process) && (process.id != old_main || main_runs);
    if (keep) known.push_back(process.id.pid);
    return keep;
  });
  std::sort(known.begin(), known.end());
  // Moved in: it was not in the list though it lived, nor did one that was in it fork it.
  std::optional<std::vector<pid_t>> born;
  const auto moved_in = [&](const ProcessId& id) {
    if (!attached_before || !started_before(id, looked_at) || std::binary_search(listed.begin(), listed.end(), id.pid))
      return false;
    if (!born) born = handover && handover->born ? handover->born() : std::vector<pid_t>();
    return std::find(born->begin(), born->end(), id.pid) == born->end();
  };
  for (const pid_t pid : pids)
    if (!std::binary_search(known.begin(), known.end(), pid)) members.add(pid, {}, false, moved_in);
  if (members.list().empty()) {
    if (had_main) members.clear();
    return;
  }
  const auto older = [](const Process& a, const Process& b) {
    return a.id.start_ticks != b.id.start_ticks ? a.id.start_ticks < b.id.start_ticks : a.id.pid < b.id.pid;
  };
  const bool stays = std::any_of(members.list().begin(), members.list().end(),
                                 [&](const Process& process) { return had_main && process.id == old_main; });
  const ProcessId main =
      stays ? old_main : std::min_element(members.list().begin(), members.list().end(), older)->id;
  members.arrange(main);
  if (stays) return;
  members.watch_main();
  // One that was there all the time and is now the oldest is no restart.
  if (!std::binary_search(known.begin(), known.end(), main.pid)) took_over();
}

void Target::use(std::shared_ptr<const Handover> handover) { impl_->handover = std::move(handover); }
const std::vector<Process>& Target::processes() const { return impl_->members.list(); }
const Process* Target::main() const { return processes().empty() ? nullptr : processes().data(); }
std::uint64_t Target::generation() const { return impl_->members.generation(); }
std::uint64_t Target::restarts() const { return impl_->restarts; }
int Target::ended_fd() const { return impl_->members.ended_fd(); }
bool Target::is_cgroup() const { return impl_->of_group(); }
const TargetSpec& Target::spec() const { return impl_->spec; }
const Dir& Target::proc_root() const { return impl_->proc; }

std::string Target::cgroup_path(const std::string& controller) const {
  if (!impl_->cgroup_text) {
    auto text = main() == nullptr ? Result<std::string>(std::string()) : main()->shared().read("cgroup");
    impl_->cgroup_text = text ? std::move(*text) : std::string();
  }
  if (impl_->group) return impl_->group->path(controller, *impl_->cgroup_text);
  return impl_->cgroups.path(controller, *impl_->cgroup_text);
}

Result<CgroupView> Target::cgroup(const std::string& controller) const {
  const std::string path = cgroup_path(controller);
  if (path.empty())
    return Error{"the target has no cgroup " + (controller.empty() ? "of version 2" : "with the controller " + controller),
                 "mount that hierarchy where the agent runs", ENOENT};
  if (main() == nullptr) return impl_->cgroups.view(controller, path);
  auto own = impl_->cgroups.view_of(controller, main()->shared());
  if (!impl_->group) return own;
  if (!own) return impl_->cgroups.view(controller, path);
  // The main process may be in a group below the one that is watched.
  return own->climb_to(path) ? std::move(own) : impl_->cgroups.view(controller, path);
}

std::string Target::shortage() const { return impl_->members.shortage(); }

std::string Target::describe() const {
  const TargetSpec& spec = impl_->spec;
  if (up()) {
    std::string text = "pid " + std::to_string(main()->id.pid) + " (" + main()->comm + ")";
    if (const std::size_t others = processes().size() - 1; others > 0)
      text += " and " + std::to_string(others) + (others == 1 ? " other" : " others");
    return impl_->group ? impl_->group->describe(true) + ": " + text : text;
  }
  const bool before = impl_->attached_before;
  switch (spec.kind) {
    case TargetSpec::Kind::kPid:
      return "pid " + std::to_string(spec.pid) + " has ended";
    case TargetSpec::Kind::kComm:
      return "no process named " + spec.name + (before ? " any more" : " yet");
    case TargetSpec::Kind::kCgroup:
    case TargetSpec::Kind::kContainer:
      return impl_->group->describe(false);
    case TargetSpec::Kind::kDiscover:
      break;
  }
  const std::string refused = impl_->discovery.refused();
  return std::string("no boxo-based process") + (before ? " any more" : " yet") +
         (refused.empty() ? "" : "; " + refused);
}

}  // namespace boxo
