// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "collectors/target.h"

namespace boxo::test {

/// The process `pid` as the target would describe it.
inline Process process_of(pid_t pid, ProcessId parent = {}) {
  auto dir = Dir::open("/proc/" + std::to_string(pid));
  if (!dir) return {};
  const std::string stat = *dir->read("stat");
  std::string rest = stat.substr(stat.rfind(')') + 2);
  for (int field = 3; field < 22; ++field) rest = rest.substr(rest.find(' ') + 1);
  return {{pid, std::strtoull(rest.c_str(), nullptr, 10)}, parent, "", std::move(*dir)};
}

/// `pid` and nobody else.
inline std::vector<Process> only(pid_t pid) {
  std::vector<Process> list;
  list.push_back(process_of(pid));
  return list;
}

/// While it lives this process can open nothing.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit none{.rlim_cur = 3, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;
  NoDescriptors(NoDescriptors&&) = delete;
  NoDescriptors& operator=(NoDescriptors&&) = delete;

 private:
  rlimit before_{};
};

/// While it lives this process, which root started, is nobody's.
class SomebodyElse {
 public:
  SomebodyElse() {
    if (::seteuid(65534) != 0) std::abort();
  }
  ~SomebodyElse() {
    if (::seteuid(0) != 0) std::abort();
    ::prctl(PR_SET_DUMPABLE, 1);
  }
  SomebodyElse(const SomebodyElse&) = delete;
  SomebodyElse& operator=(const SomebodyElse&) = delete;
  SomebodyElse(SomebodyElse&&) = delete;
  SomebodyElse& operator=(SomebodyElse&&) = delete;
};

/// A child of the test that runs `work` and then waits to be killed; ready once `work` has returned.
class Child {
 public:
  template <class Work>
  explicit Child(Work work) {
    int ready[2];
    if (::pipe(ready) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      work();
      (void)!::write(ready[1], "r", 1);
      for (;;) ::pause();
    }
    char byte = 0;
    (void)!::read(ready[0], &byte, 1);
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~Child() { end(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  Child(Child&&) = delete;
  Child& operator=(Child&&) = delete;

  pid_t pid() const { return pid_; }
  /// Ends it without waiting for it: it is a zombie then.
  void kill() const {
    ::kill(pid_, SIGKILL);
    siginfo_t info;
    ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
  }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
};

/// Small stacks: a thousand threads in a test.
inline void start_threads(int count, void* (*work)(void*)) {
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 65536);
  for (int i = 0; i < count; ++i) {
    pthread_t thread{};
    ::pthread_create(&thread, &attributes, work, nullptr);
  }
  // All of them asleep: the numbers stand.
  ::usleep(150'000);
}

inline void* sleep_for_ever(void*) {
  for (;;) ::pause();
}
/// Runs a little ten times a second.
inline void* turn_over(void*) {
  for (;;) ::usleep(100'000);
}

}  // namespace boxo::test
