// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/process_table.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <string_view>
#include <system_error>

namespace boxo {

namespace {

constexpr std::size_t kBuffer = std::size_t{64} << 10;
constexpr std::uint64_t kYoungSeconds = 10;
constexpr std::size_t kOldAtOnce = 256;
constexpr std::chrono::minutes kListAgain{1};
// A stat line is a few hundred bytes; the name in it at most 64.
constexpr std::size_t kStatLine = 4096;

bool by_pid(const ProcessTable::Row& a, const ProcessTable::Row& b) { return a.pid < b.pid; }

Result<ProcStat> read_stat(const Dir& dir, const char* name) {
  auto file = dir.file(name);
  if (!file) return file.error();
  std::array<char, kStatLine> text;
  const ssize_t size = ::pread(file->get(), text.data(), text.size(), 0);
  if (size < 0) return errno_error(name);
  auto stat = parse_proc_stat({text.data(), static_cast<std::size_t>(size)});
  if (!stat) return Error{std::string(name) + " is not as expected", {}, EBADMSG};
  return *std::move(stat);
}

}  // namespace

Result<ProcStat> read_proc_stat(const Dir& process, const char* name) { return read_stat(process, name); }

std::uint64_t ticks_per_second() { return static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK)); }

std::uint64_t now_ticks() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  const std::uint64_t rate = ticks_per_second();
  return static_cast<std::uint64_t>(now.tv_sec) * rate +
         static_cast<std::uint64_t>(now.tv_nsec) * rate / 1'000'000'000;
}

bool ProcessTable::read(Row& row) {
  std::array<char, 32> name{};
  char* const end = std::to_chars(name.data(), name.data() + 16, row.pid).ptr;
  std::memcpy(end, "/stat", 6);
  auto stat = read_stat(*proc_, name.data());
  if (!stat) {
    missed_ = missed_ || (stat.error().code != ENOENT && stat.error().code != ESRCH);
    return false;
  }
  row.start_ticks = stat->start_ticks;
  row.parent = stat->parent;
  row.kernel_thread = stat->kernel_thread;
  row.ended = stat->ended();
  row.read_at = looks_;
  return true;
}

ProcessTable::ProcessTable(const Dir& proc) : proc_(&proc) {
  const auto self = proc.link("self");
  own_pids_ = self && *self == std::to_string(::getpid());
}

/// Of the agent's pid namespace, in which the processes of all below it have a pid too. Nothing where the kernel does
/// not tell (it needs CONFIG_CHECKPOINT_RESTORE), or /proc is of another namespace.
std::optional<pid_t> ProcessTable::newest_pid() const {
  if (!own_pids_) return {};
  const auto text = proc_->read("sys/kernel/ns_last_pid", 32);
  pid_t pid = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), pid).ec != std::errc()) return {};
  return pid;
}

Result<> ProcessTable::look(const std::function<bool(const Row&)>& alive, Scope scope) {
  // Before anything is looked at: who comes meanwhile is new the next time.
  const auto newest = newest_pid();
  if (scope == Scope::kAll || !newest || Clock::now() >= list_again_ || !look_at_new(*newest, alive))
    if (auto listed = list(alive); !listed) return listed;
  newest_ = {newest_[1], newest};
  fresh_.clear();
  for (std::size_t i = 0; i < rows_.size(); ++i)
    if (rows_[i].read_at == looks_) fresh_.push_back(i);
  return {};
}

/// Looks at the pids given since the look before the last one: a pid is given a moment before its process can be seen,
/// so each is looked at twice. False if all have to be listed.
bool ProcessTable::look_at_new(pid_t newest, const std::function<bool(const Row&)>& alive) {
  // A smaller one: the numbers have begun anew.
  if (!newest_[0] || newest < *newest_[0] || static_cast<std::size_t>(newest - *newest_[0]) > listed_) return false;
  ++looks_;
  missed_ = false;
  next_.clear();
  for (pid_t pid = *newest_[0] + 1; pid <= newest; ++pid) {
    const Row* const known = find(pid);
    if (known != nullptr && known->read_at + 2 >= looks_) continue;
    // Threads have pids too. They are told from processes here at a hundredth of what reading `stat` may cost.
    const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!process && (errno == ESRCH || errno == EINVAL || errno == ENOENT)) continue;
    missed_ = !process;
    Row row;
    row.pid = pid;
    struct stat info {};
    if (!missed_ && ::fstatat(proc_->fd(), std::to_string(pid).c_str(), &info, 0) == 0 && read(row)) {
      row.inode = info.st_ino;
      next_.push_back(row);
    }
    if (missed_) {
      --looks_;
      return false;
    }
  }
  std::erase_if(rows_, [&](const Row& row) {
    return (row.member && !alive(row)) || std::binary_search(next_.begin(), next_.end(), row, by_pid);
  });
  rows_.insert(rows_.end(), next_.begin(), next_.end());
  if (!std::is_sorted(rows_.begin(), rows_.end(), by_pid)) std::sort(rows_.begin(), rows_.end(), by_pid);
  return true;
}

Result<> ProcessTable::list(const std::function<bool(const Row&)>& alive) {
  next_.clear();
  missed_ = false;
  buffer_.resize(kBuffer);
  if (::lseek(proc_->fd(), 0, SEEK_SET) < 0) return errno_error("/proc");
  for (;;) {
    const ssize_t size = ::getdents64(proc_->fd(), buffer_.data(), buffer_.size());
    if (size < 0) return errno_error("list /proc");
    if (size == 0) break;
    for (ssize_t at = 0; at < size;) {
      const auto* const entry = reinterpret_cast<const dirent64*>(buffer_.data() + at);
      at += entry->d_reclen;
      const char* const first = entry->d_name;
      if (*first < '1' || *first > '9') continue;
      const char* const last = first + std::strlen(first);
      Row row;
      const auto [end, error] = std::from_chars(first, last, row.pid);
      if (error != std::errc() || end != last) continue;
      row.inode = entry->d_ino;
      next_.push_back(row);
    }
  }
  // procfs lists by pid; other file systems (tests) need not.
  if (!std::is_sorted(next_.begin(), next_.end(), by_pid)) std::sort(next_.begin(), next_.end(), by_pid);

  ++looks_;
  bool kept = false;
  auto old = rows_.begin();
  const auto leave = [&](const Row& row) {
    if (!row.member || !alive(row)) return;
    next_.push_back(row);
    kept = true;
  };
  const std::size_t listed = next_.size();
  for (std::size_t i = 0; i < listed; ++i) {
    for (; old != rows_.end() && old->pid < next_[i].pid; ++old) leave(*old);
    if (old == rows_.end() || old->pid != next_[i].pid) continue;
    if (old->inode == next_[i].inode) {
      next_[i] = *old;
    } else if (old->member && alive(*old)) {
      next_[i].member = true;  // read again below, for another inode
    }
    ++old;
  }
  for (; old != rows_.end(); ++old) leave(*old);
  if (kept) std::sort(next_.begin(), next_.end(), by_pid);

  // What ended between listing and reading is forgotten.
  std::erase_if(next_, [&](Row& row) { return row.read_at == 0 && !read(row); });
  rows_.swap(next_);
  listed_ = listed;
  list_again_ = missed_ ? Clock::time_point() : Clock::now() + kListAgain;
  return {};
}

void ProcessTable::read_all() {
  for (Row& row : rows_)
    if (row.read_at != looks_) read(row);
}

ProcessTable::Row* ProcessTable::find(pid_t pid) {
  Row key;
  key.pid = pid;
  const auto at = std::lower_bound(rows_.begin(), rows_.end(), key, by_pid);
  return at != rows_.end() && at->pid == pid ? &*at : nullptr;
}

std::vector<std::size_t> ProcessTable::candidates(bool everything) {
  std::vector<std::size_t> out;
  const std::uint64_t now = now_ticks();
  const std::uint64_t young = kYoungSeconds * ticks_per_second();
  std::size_t old = 0;
  pid_t last = 0;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const Row& row = rows_[i];
    if (row.kernel_thread) continue;
    if (!everything && row.start_ticks + young < now && row.read_at != looks_) {
      if (row.pid <= turn_ || old == kOldAtOnce) continue;
      ++old;
      last = row.pid;
    }
    out.push_back(i);
  }
  turn_ = old == kOldAtOnce ? last : 0;
  return out;
}

}  // namespace boxo
