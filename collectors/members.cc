// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/members.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
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

}  // namespace

// Needs no descriptor, so that an agent that has none left does not take everybody for ended.
bool is_there(const Process& process) {
  return ::faccessat(process.proc.fd(), "stat", F_OK, 0) == 0 ||
         (errno != ENOENT && errno != ENOTDIR && errno != ESRCH);
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

// What the agent holds whatever it watches, nearly all of it the probes' maps, programs and links.
constexpr std::size_t kOwnDescriptors = 224;

/// Each process costs a descriptor here and up to two in collectors, threads up to a quarter of all: a sixth leaves some
/// for connections and files.
bool Members::room_for_another() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return true;
  const std::size_t rest = limit.rlim_cur > kOwnDescriptors ? limit.rlim_cur - kOwnDescriptors : 0;
  if (list_.size() <= rest / 6) return true;
  if (!told_full_)
    log_warn("watching only " + std::to_string(list_.size()) + " processes of the target: of " +
             std::to_string(limit.rlim_cur) + " descriptors no more can be kept for them; raise the limit (ulimit -Hn)");
  told_full_ = true;
  return false;
}

bool Members::add(pid_t pid, std::optional<std::uint64_t> start_ticks, bool ended_too) {
  if (!room_for_another()) return false;
  auto dir = proc_->dir(std::to_string(pid));
  if (!dir) return false;
  auto stat = read_proc_stat(*dir);
  if (!stat || (stat->ended() && !ended_too) || (start_ticks && *start_ticks != stat->start_ticks))
    return false;
  parents_.push_back({pid, stat->parent});
  list_.push_back({{pid, stat->start_ticks}, {}, std::move(stat->comm), std::move(*dir)});
  return true;
}

void Members::keep_if(const std::function<bool(const Process&)>& keep) {
  if (std::erase_if(list_, [&](const Process& process) { return !keep(process); }) > 0) removed_ = true;
}

void Members::clear() {
  if (!list_.empty()) ++generation_;
  list_.clear();
  parents_.clear();
  removed_ = false;
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
  main_exe_ = exe_of(main.proc);
}

bool Members::main_runs() {
  if (list_.empty()) return false;
  Process& main = list_.front();
  const auto stat = read_proc_stat(main.proc);
  // Without a descriptor to spare it cannot be read: that is no proof of an end.
  if (!stat) return is_there(main);
  if (stat->start_ticks != main.id.start_ticks || stat->ended()) return false;
  std::string exe = exe_of(main.proc);
  if (exe != main_exe_ || stat->comm != main.comm) {
    main_exe_ = std::move(exe);
    main.comm = stat->comm;
    ++generation_;
  }
  return true;
}

}  // namespace boxo
