// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/members.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <memory>
#include <string_view>
#include <utility>

#include "collectors/log.h"
#include "collectors/process_table.h"

namespace boxo {

namespace {

bool by_pid(const Process& a, const Process& b) { return a.id.pid < b.id.pid; }

std::string exe_of(const Dir& process) {
  std::array<char, PATH_MAX> text;
  const ssize_t size = ::readlinkat(process.fd(), "exe", text.data(), text.size());
  return size < 0 ? std::string() : std::string(text.data(), static_cast<std::size_t>(size));
}

/// A pidfd of the process that `proc` calls `pid`. This /proc may count in another pid namespace than the
/// agent's system calls, or be made up by a test; it says itself which process a pidfd belongs to.
Fd open_pidfd(const Dir& proc, pid_t pid) {
  Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return {};
  const auto info = proc.read("self/fdinfo/" + std::to_string(fd.get()), 4096);
  const bool same = info && info->find("\nPid:\t" + std::to_string(pid) + "\n") != std::string::npos;
  return same ? std::move(fd) : Fd();
}

/// How many descriptors the agent has open; 0 if that is not told.
std::size_t open_descriptors(const Dir& proc) {
  struct stat info {};
  // Since Linux 6.2 the size tells.
  if (::fstatat(proc.fd(), "self/fd", &info, 0) == 0 && info.st_size > 0)
    return static_cast<std::size_t>(info.st_size);
  auto own = proc.dir("self/fd");
  if (!own) return 0;
  std::size_t count = 0;
  alignas(dirent64) std::array<char, 4096> buffer;
  for (ssize_t size = 0; (size = ::getdents64(own->fd(), buffer.data(), buffer.size())) > 0;)
    for (ssize_t at = 0; at < size; ++count)
      at += reinterpret_cast<const dirent64*>(buffer.data() + at)->d_reclen;
  return count;
}

/// The main thread's, where /proc has it, which has all of the process but its times.
Result<ProcStat> read_main_thread_stat(const Process& process) {
  const std::string pid = std::to_string(process.id.pid);
  auto stat = read_proc_stat(process.proc, ("task/" + pid + "/stat").c_str());
  return stat || stat.error().code != ENOENT ? std::move(stat) : read_proc_stat(process.proc);
}

}  // namespace

// Needs no descriptor, so that an agent that has none left does not take everybody for ended.
bool is_there(const Process& process) {
  return ::faccessat(process.proc.fd(), "stat", F_OK, 0) == 0 ||
         (errno != ENOENT && errno != ENOTDIR && errno != ESRCH);
}

bool runs_headless(const Process& process) {
  const auto stat = read_proc_stat(process.proc);
  return stat && stat->zombie() && !stat->ended();
}

/// Whether anything changed.
bool Members::find_survivor(Process& process, const ProcStat& stat) {
  const ProcessId before = process.survivor;
  if (!stat.zombie() || stat.ended()) {
    process.survivor = {};
    process.survivor_proc = {};
    return before.pid != 0;
  }
  const auto lives = [](const Result<ProcStat>& thread) { return thread && !thread->zombie(); };
  if (process.survivor_proc && lives(read_proc_stat(process.survivor_proc))) return false;
  process.survivor = {};
  process.survivor_proc = {};
  const auto tasks = process.proc.dir("task");
  auto listing = tasks ? tasks->file(".", O_DIRECTORY) : Result<Fd>(tasks.error());
  if (!listing) return before.pid != 0;
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(listing->release()), ::closedir);
  while (const dirent* const entry = entries ? ::readdir(entries.get()) : nullptr) {
    auto dir = tasks->dir(entry->d_name);
    const auto thread = dir ? read_proc_stat(*dir) : Result<ProcStat>(dir.error());
    if (!lives(thread)) continue;
    process.survivor = {thread->pid, thread->start_ticks};
    process.survivor_proc = std::move(*dir);
    break;
  }
  return process.survivor != before;
}

void Members::find_survivors() {
  for (std::size_t i = 1; i < list_.size(); ++i)
    if (const auto stat = read_main_thread_stat(list_[i]); stat && find_survivor(list_[i], *stat)) ++generation_;
}

std::size_t Members::index_of(pid_t pid) const {
  if (list_.empty() || list_.front().id.pid == pid) return 0;
  const auto at =
      std::lower_bound(list_.begin() + 1, list_.end(), pid,
                       [](const Process& process, pid_t wanted) { return process.id.pid < wanted; });
  return at != list_.end() && at->id.pid == pid ? static_cast<std::size_t>(at - list_.begin()) : list_.size();
}

const Process* Members::find(pid_t pid) const {
  const std::size_t index = index_of(pid);
  return index < list_.size() ? &list_[index] : nullptr;
}

/// For how many more processes there are descriptors. Each costs one here and up to two in collectors, threads a quarter
/// of all: a sixth of what is free leaves some for connections and files. Processes may come before the probes are
/// loaded, with some two hundred maps, programs and links: half of all is not for processes.
std::size_t Members::room() const {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
  const auto all = static_cast<std::size_t>(limit.rlim_cur);
  const std::size_t free = all - std::min(all, open_descriptors(*proc_));
  const std::size_t most = std::max<std::size_t>(1, all / 2 / 6);
  return std::min(most - std::min(most, list_.size()), free / 6);
}

bool Members::room_for_another() {
  if (!room_) room_ = room();
  // The main process is watched as long as there is a descriptor at all.
  if (*room_ == 0 && !list_.empty()) {
    shortage_ = "only " + std::to_string(list_.size()) +
                " processes of the target are watched: no more descriptors can be kept for them; raise the limit (ulimit -Hn)";
    if (!told_full_) log_warn(shortage_);
    told_full_ = true;
    return false;
  }
  *room_ -= std::min<std::size_t>(1, *room_);
  return true;
}

bool Members::add(pid_t pid, std::optional<std::uint64_t> start_ticks, bool ended_too, const RanBefore& ran_before) {
  if (!room_for_another()) return false;
  auto dir = proc_->dir(std::to_string(pid));
  if (!dir) return false;
  auto stat = read_proc_stat(*dir);
  if (!stat || (stat->ended() && !ended_too) || (start_ticks && *start_ticks != stat->start_ticks))
    return false;
  parents_.push_back({pid, stat->parent});
  list_.push_back({{pid, stat->start_ticks}, {}, std::move(stat->comm), std::move(*dir)});
  list_.back().ran_before = ran_before && ran_before(list_.back().id);
  find_survivor(list_.back(), *stat);
  return true;
}

void Members::keep_if(const std::function<bool(const Process&)>& keep) {
  shortage_.clear();
  if (std::erase_if(list_, [&](const Process& process) { return !keep(process); }) > 0) removed_ = true;
}

void Members::clear() {
  if (!list_.empty()) ++generation_;
  list_.clear();
  parents_.clear();
  shortage_.clear();
  removed_ = false;
  room_.reset();
  main_pidfd_.reset();
  main_exe_.clear();
}

void Members::link_parent(Process& process, pid_t parent) {
  const Process* const found = find(parent);
  // A parent cannot be younger than its child: then its pid is another process's.
  process.parent =
      found != nullptr && found->id.start_ticks <= process.id.start_ticks ? found->id : ProcessId{};
}

void Members::arrange(ProcessId main) {
  room_.reset();
  if (!removed_ && parents_.empty()) return;
  ++generation_;
  std::sort(list_.begin(), list_.end(), by_pid);
  const auto first =
      std::find_if(list_.begin(), list_.end(), [&](const Process& one) { return one.id == main; });
  if (first != list_.end()) std::rotate(list_.begin(), first, first + 1);
  for (const Parent& added : parents_) {
    const std::size_t index = index_of(added.pid);
    if (index < list_.size()) link_parent(list_[index], added.parent);
  }
  if (removed_) {
    for (Process& process : list_) {
      if (process.parent.pid == 0) continue;
      const Process* const parent = find(process.parent.pid);
      if (parent != nullptr && parent->id == process.parent) continue;
      const auto stat = read_proc_stat(process.proc);
      link_parent(process, stat ? stat->parent : 0);
    }
  }
  parents_.clear();
  removed_ = false;
}

void Members::watch_main() {
  const Process& main = list_.front();
  main_pidfd_ = open_pidfd(*proc_, main.id.pid);
  // The pid may have gone to another process before the pidfd was made.
  if (!is_there(main)) main_pidfd_.reset();
  main_exe_ = exe_of(main.shared());
}

bool Members::main_runs() {
  if (list_.empty()) return false;
  Process& main = list_.front();
  // In the process's own `stat` the kernel sums up all threads, 100 ns for each; in the main thread's it does not.
  auto stat = read_main_thread_stat(main);
  // Without a descriptor to spare it cannot be read: that is no proof of an end.
  if (!stat) return is_there(main);
  if (stat->start_ticks != main.id.start_ticks || stat->ended()) return false;
  if (find_survivor(main, *stat)) ++generation_;
  std::string exe = exe_of(main.shared());
  if (exe != main_exe_ || stat->comm != main.comm) {
    main_exe_ = std::move(exe);
    main.comm = std::move(stat->comm);
    ++generation_;
  }
  return true;
}

}  // namespace boxo
