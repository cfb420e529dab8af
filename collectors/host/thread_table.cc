// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/thread_table.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "collectors/host/listing.h"
#include "collectors/host/text.h"
#include "collectors/members.h"
#include "collectors/process_table.h"
#include "collectors/reading.h"

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

/// Where the program's stack began, another address for each exec: field 28 of a thread's stat. 0: not told, as of another
/// user's process without CAP_SYS_PTRACE.
std::uint64_t stack_of(const Dir& tasks, pid_t tid) {
  const auto text = tasks.read(std::to_string(tid) + "/stat", kLargestStatus);
  const std::size_t name_end = text ? text->rfind(')') : std::string::npos;
  if (name_end == std::string::npos) return 0;
  std::string_view rest = std::string_view(*text).substr(name_end + 1);
  for (int field = 3; field < 28; ++field) next_word(rest);
  return to_number(next_word(rest)).value_or(0);
}

/// Whether the main thread is that of the process: what was read before it ended.
bool is_of(const Process& process, const std::vector<ThreadReading>& readings) {
  const std::uint64_t tick = 1'000'000'000 / ticks_per_second();
  return std::any_of(readings.begin(), readings.end(), [&](const ThreadReading& one) {
    return one.tid == process.id.pid && one.started_at / tick == process.id.start_ticks;
  });
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
  waiting_ = {};
  by_reader_ = reader != nullptr;
  for (const Process& process : processes) {
    const auto [entry, is_new] = members_.try_emplace(process.id);
    Member& member = entry->second;
    if (is_new) member.ran_before = process.ran_before;
    member.seen = round_;
    const Totals before = totals_;
    const std::string trouble = std::exchange(trouble_, {});
    if (reader == nullptr || !update_by(*reader, process, member)) {
      by_reader_ = false;
      update(process, member);
    }
    if (member.ran_before) totals_ = before;
    if (trouble_.empty()) {
      member.ran_before = false;
      trouble_ = trouble;
    }
    for (const Thread& thread : member.threads)
      if (thread.state != 0) ++by_state_[thread_state(thread.state)];
  }
  for (auto& [id, member] : members_)
    if (member.seen != round_) let_go(member.threads);
  std::erase_if(members_, [this](const auto& entry) { return entry.second.seen != round_; });
  if (by_reader_)
    take_ended(reader->ended_threads());
  else
    ended_.reset();
}

/// What /proc told of a thread the reader does not know: it takes that for the rest as well. So this counts from the
/// first update on by which it has told of all.
void ThreadTable::take_ended(const ThreadCounts& ended) {
  if (ended_) {
    totals_.voluntary += ended.voluntary - ended_->voluntary;
    totals_.involuntary += ended.involuntary - ended_->involuntary;
    if (has_schedstat_) totals_.wait_ns += ended.wait_ns - ended_->wait_ns;
  }
  ended_ = ended;
}

/// Closes the descriptors.
void ThreadTable::let_go(std::vector<Thread>& threads) {
  for (Thread& thread : threads) {
    kept_ -= thread.schedstat ? 1 : 0;
    thread.schedstat.reset();
  }
}

/// False if that did not tell.
bool ThreadTable::update_by(KernelReader& reader, const Process& process, Member& member) {
  if (!reader.threads(process.id.pid, readings_)) return false;
  // The pid may have gone to another process meanwhile, but not while this one is there.
  if (!is_there(process) && !is_of(process, readings_)) readings_.clear();
  if (readings_.empty() && is_there(process)) return false;
  const auto same_thread = [](const Thread& one, const ThreadReading& reading) {
    return one.tid == reading.tid && one.started_at == reading.started_at && one.task == reading.task;
  };
  if (kept_ == 0 && std::ranges::equal(member.threads, readings_, same_thread)) {
    for (std::size_t i = 0; i < readings_.size(); ++i) take(readings_[i], member.threads[i]);
    return true;
  }
  next_.clear();
  next_.reserve(readings_.size());
  auto known = member.threads.begin();
  for (const ThreadReading& reading : readings_) {
    while (known != member.threads.end() && known->tid < reading.tid) ++known;
    Thread& thread = next_.emplace_back();
    const bool same = known != member.threads.end() && known->tid == reading.tid &&
                      (known->started_at == 0 || known->started_at == reading.started_at);
    auto former = same ? known : member.threads.end();
    // A thread that calls exec takes over the number and the start time of the main one.
    if (same && known->task != 0 && known->task != reading.task)
      former = std::find_if(member.threads.begin(), member.threads.end(), [&reading](const Thread& one) {
        return one.task == reading.task && one.run_ns <= reading.run_ns;
      });
    if (former != member.threads.end()) thread = std::move(*former);
    take(reading, thread);
  }
  // What is left there has ended; descriptors are of no use here.
  let_go(member.threads);
  let_go(next_);
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
  thread.task = reading.task;
  thread.state = reading.state;
  if (reading.waits_for < waiting_.size()) {
    Waiting& waiting = waiting_[reading.waits_for];
    ++waiting.threads;
    waiting.longest_ns = std::max(waiting.longest_ns, reading.blocked_ns);
  }
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
    thread.schedstat.reset();
    gone_.push_back(thread);
    return true;
  };
  gone_.clear();
  const bool several = member.threads.size() > 1;
  std::erase_if(member.threads,
                [&](Thread& thread) { return !(several && thread.tid == process.id.pid) && forget(thread); });
  if (several) update_main(process, member, forget);
  if (thread_count(member.tasks) == member.threads.size()) return;

  if (!several) member.stack = stack_of(member.tasks, process.id.pid);
  const auto known = static_cast<std::ptrdiff_t>(member.threads.size());
  list(process, member);
  member.threads.erase(std::remove_if(member.threads.begin() + known, member.threads.end(), forget),
                       member.threads.end());
  std::sort(member.threads.begin(), member.threads.end(),
            [](const Thread& a, const Thread& b) { return a.tid < b.tid; });
}

/// The main thread, after all others: one of these that calls exec has this one's number and start time then, and has
/// ended under its own. The new program's stack begins elsewhere; whose counts go on, the counts themselves tell.
void ThreadTable::update_main(const Process& process, Member& member,
                              const std::function<bool(Thread&)>& forget) {
  const auto is_main = [&](const Thread& thread) { return thread.tid == process.id.pid; };
  auto main = std::find_if(member.threads.begin(), member.threads.end(), is_main);
  if (main == member.threads.end()) return;
  const Totals totals = totals_;
  const Counts before = *main;
  if (forget(*main)) {
    member.threads.erase(main);
    return;
  }
  const std::uint64_t stack = stack_of(member.tasks, process.id.pid);
  const bool exec = member.stack != 0 && stack != 0 && member.stack != stack;
  if (stack != 0) member.stack = stack;
  if (!exec) return;
  // Those that were looked at before it have ended since.
  std::erase_if(member.threads, [&](Thread& thread) { return !is_main(thread) && forget(thread); });
  gone_.push_back(before);

  main = std::find_if(member.threads.begin(), member.threads.end(), is_main);
  totals_ = totals;
  static_cast<Counts&>(*main) = {};
  main->task = 0;
  look_at_schedstat(member, *main);
  look_at_status(process, member, *main);
  const auto switches = [](const Counts& one) { return one.voluntary + one.involuntary; };
  Counts former;
  for (const Counts& one : gone_)
    if (one.run_ns <= main->run_ns && one.wait_ns <= main->wait_ns && one.voluntary <= main->voluntary &&
        one.involuntary <= main->involuntary && switches(one) >= switches(former))
      former = one;
  totals_.voluntary -= former.voluntary;
  totals_.involuntary -= former.involuntary;
  if (has_schedstat_) totals_.wait_ns -= former.wait_ns;
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
