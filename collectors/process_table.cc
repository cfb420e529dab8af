// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/process_table.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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

Result<ProcStat> read_proc_stat(const Dir& process) { return read_stat(process, "stat"); }

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
  if (!stat) return false;
  row.start_ticks = stat->start_ticks;
  row.parent = stat->parent;
  row.kernel_thread = stat->kernel_thread;
  row.ended = stat->ended();
  row.read_at = looks_;
  return true;
}

Result<> ProcessTable::look(const std::function<bool(const Row&)>& alive) {
  next_.clear();
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
  fresh_.clear();
  for (std::size_t i = 0; i < rows_.size(); ++i)
    if (rows_[i].read_at == looks_) fresh_.push_back(i);
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
