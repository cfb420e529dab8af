// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/thread_table.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "collectors/host/listing.h"
#include "collectors/host/reading.h"
#include "collectors/host/text.h"
#include "collectors/members.h"

namespace boxo::host {

namespace {

constexpr std::size_t kLargestStatus = 16384;

/// How many descriptors may be kept: a quarter of what the agent may have.
std::size_t descriptor_budget() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  return static_cast<std::size_t>(std::min<rlim_t>(limit.rlim_cur, 1 << 16)) / 4;
}

/// How many threads the process has by its task directory, without listing it: one link for each, beside the
/// two that every directory has.
std::size_t thread_count(const Dir& tasks) {
  struct stat info {};
  if (::fstat(tasks.fd(), &info) != 0 || info.st_nlink < 2) return 0;
  return static_cast<std::size_t>(info.st_nlink) - 2;
}

}  // namespace

std::size_t thread_state(char letter) {
  switch (letter) {
    case 'S':
      return 1;
    case 'D':
    case 'K':
      return 2;
    case 'T':
    case 't':
      return 3;
    case 'Z':
    case 'X':
    case 'x':
      return 4;
    case 'I':
    case 'P':
      return 5;
    default:  // R, and W of old kernels (waking)
      return 0;
  }
}

std::size_t ThreadTable::size() const {
  std::size_t count = 0;
  for (const auto n : by_state_) count += n;
  return count;
}

void ThreadTable::update(const std::vector<Process>& processes, KernelReader* reader) {
  ++round_;
  budget_ = descriptor_budget();
  trouble_.clear();
  by_state_ = {};
  by_reader_ = reader != nullptr;
  for (const Process& process : processes) {
    Member& member = members_[process.id];
    member.seen = round_;
    if (reader == nullptr || !update_by(*reader, process, member)) {
      by_reader_ = false;
      update(process, member);
    }
    for (const Thread& thread : member.threads)
      if (thread.state != 0) ++by_state_[thread_state(thread.state)];
  }
  std::erase_if(members_, [this](const auto& entry) {
    if (entry.second.seen == round_) return false;
    for (const Thread& thread : entry.second.threads) kept_ -= thread.schedstat ? 1 : 0;
    return true;
  });
}

/// False if that did not tell.
bool ThreadTable::update_by(KernelReader& reader, const Process& process, Member& member) {
  // The pid may have gone to another process meanwhile, but not while this one is there.
  if (!reader.threads(process.id.pid, readings_) || readings_.empty() || !is_there(process)) return false;
  next_.clear();
  next_.reserve(readings_.size());
  auto known = member.threads.begin();
  for (const ThreadReading& reading : readings_) {
    while (known != member.threads.end() && known->tid < reading.tid) ++known;
    Thread& thread = next_.emplace_back();
    const bool same = known != member.threads.end() && known->tid == reading.tid &&
                      (known->started_at == 0 || known->started_at == reading.started_at);
    if (same) thread = std::move(*known);
    take(reading, thread);
  }
  // What is left there has ended; descriptors are of no use here.
  for (std::vector<Thread>* const list : {&member.threads, &next_})
    for (Thread& thread : *list) {
      kept_ -= thread.schedstat ? 1 : 0;
      thread.schedstat.reset();
    }
  member.threads.swap(next_);
  return true;
}

void ThreadTable::take(const ThreadReading& reading, Thread& thread) {
  const auto advance = [](std::uint64_t& last, std::uint64_t now, std::uint64_t& total) {
    if (now <= last) return;
    total += now - last;
    last = now;
  };
  thread.tid = reading.tid;
  thread.started_at = reading.started_at;
  thread.state = reading.state;
  thread.run_ns = reading.run_ns;
  thread.turns = reading.turns;
  advance(thread.voluntary, reading.voluntary, totals_.voluntary);
  advance(thread.involuntary, reading.involuntary, totals_.involuntary);
  if (has_schedstat_) advance(thread.wait_ns, reading.wait_ns, totals_.wait_ns);
}

void ThreadTable::update(const Process& process, Member& member) {
  if (!member.tasks) {
    auto tasks = process.proc.dir("task");
    if (!tasks) {
      if (!ended(process, tasks.error())) trouble_ = reason(tasks.error());
      return;
    }
    member.tasks = std::move(*tasks);
  }
  const auto has_ended = [&](Thread& thread) {
    const Look look = look_at_schedstat(member, thread);
    const bool waits =
        thread.state != 0 && thread_state(thread.state) != 0 && thread_state(thread.state) != 2;
    if (look == Look::kUnchanged && waits && member.threads.size() > kLookAtEach) return false;
    return look == Look::kEnded || look_at_status(process, member, thread) == Look::kEnded;
  };
  // One that cannot be read stays: whatever it has counted would be counted again if it were forgotten.
  const auto forget = [&](Thread& thread) {
    if (!has_ended(thread)) return false;
    kept_ -= thread.schedstat ? 1 : 0;
    return true;
  };
  std::erase_if(member.threads, forget);
  if (thread_count(member.tasks) == member.threads.size()) return;

  const auto known = static_cast<std::ptrdiff_t>(member.threads.size());
  list(process, member);
  member.threads.erase(std::remove_if(member.threads.begin() + known, member.threads.end(), forget),
                       member.threads.end());
  std::sort(member.threads.begin(), member.threads.end(),
            [](const Thread& a, const Thread& b) { return a.tid < b.tid; });
}

/// Adds the threads that are not known yet behind those that are.
void ThreadTable::list(const Process& process, Member& member) {
  const auto known = static_cast<std::ptrdiff_t>(member.threads.size());
  auto done = list_numbers(member.tasks, [&member, known](std::uint32_t tid) {
    const auto end = member.threads.begin() + known;
    const auto at = std::lower_bound(member.threads.begin(), end, static_cast<pid_t>(tid),
                                     [](const Thread& thread, pid_t value) { return thread.tid < value; });
    if (at != end && at->tid == static_cast<pid_t>(tid)) return;
    member.threads.emplace_back();
    member.threads.back().tid = static_cast<pid_t>(tid);
  });
  if (!done && !ended(process, done.error())) trouble_ = reason(done.error());
}

ThreadTable::Look ThreadTable::look_at_schedstat(const Member& member, Thread& thread) {
  if (!has_schedstat_) return Look::kChanged;
  Fd opened;
  const Fd* fd = &thread.schedstat;
  if (!thread.schedstat) {
    auto file = member.tasks.file(std::to_string(thread.tid) + "/schedstat");
    if (!file) {
      // An ended thread or a kernel without the file; `status`, looked at next, tells which.
      thread.schedstat_missing = file.error().code == ENOENT;
      if (file.error().code == ENOENT || file.error().code == ESRCH) return Look::kChanged;
      trouble_ = reason(file.error());
      return Look::kUnread;
    }
    if (kept_ < budget_) {
      thread.schedstat = std::move(*file);
      ++kept_;
    } else {
      opened = std::move(*file);
      fd = &opened;
    }
  }
  // One call, not two: the file is one short line, which the kernel gives whole.
  std::array<char, 128> text{};
  const ssize_t n = ::pread(fd->get(), text.data(), text.size(), 0);
  if (n < 0 && errno != ESRCH) {
    trouble_ = reason(errno_error("schedstat"));
    return Look::kUnread;
  }
  if (n <= 0) return Look::kEnded;
  std::string_view rest(text.data(), static_cast<std::size_t>(n));
  const auto run = to_number(next_word(rest));
  const auto wait = to_number(next_word(rest));
  const auto turns = to_number(next_word(rest));
  if (!run || !wait || !turns) return Look::kChanged;
  const bool same = *run == thread.run_ns && *turns == thread.turns && *wait == thread.wait_ns;
  thread.run_ns = *run;
  thread.turns = *turns;
  if (*wait > thread.wait_ns) {
    totals_.wait_ns += *wait - thread.wait_ns;
    thread.wait_ns = *wait;
  }
  return same ? Look::kUnchanged : Look::kChanged;
}

ThreadTable::Look ThreadTable::look_at_status(const Process& process, const Member& member, Thread& thread) {
  auto text = member.tasks.read(std::to_string(thread.tid) + "/status", kLargestStatus);
  if (!text) {
    if (text.error().code == ESRCH || text.error().code == ENOENT || ended(process, text.error()))
      return Look::kEnded;
    trouble_ = reason(text.error());
    return Look::kUnread;
  }
  const auto state = value_of(*text, "State:");
  const auto voluntary = number_of(*text, "voluntary_ctxt_switches:");
  const auto involuntary = number_of(*text, "nonvoluntary_ctxt_switches:");
  std::string_view letter = state.value_or("");
  letter = next_word(letter);
  if (letter.empty() || !voluntary || !involuntary) {
    trouble_ = "task/TID/status: not of the known form";
    return Look::kUnread;
  }
  if (thread.schedstat_missing) has_schedstat_ = false;
  thread.state = letter.front();
  if (*voluntary > thread.voluntary) {
    totals_.voluntary += *voluntary - thread.voluntary;
    thread.voluntary = *voluntary;
  }
  if (*involuntary > thread.involuntary) {
    totals_.involuntary += *involuntary - thread.involuntary;
    thread.involuntary = *involuntary;
  }
  return Look::kChanged;
}

}  // namespace boxo::host
