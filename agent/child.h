// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "collectors/fd.h"
#include "collectors/result.h"

namespace boxo {

/// The command after `--`. It exists as soon as it is made, but runs only after release(), so that everything that
/// watches it is attached before its first instruction.
class Child {
 public:
  /// `descriptors`: the limit on open descriptors that it runs with.
  static Result<Child> fork_held(const std::vector<std::string>& command, const rlimit& descriptors);
  ~Child() = default;
  Child(Child&&) noexcept = default;
  Child& operator=(Child&&) noexcept = default;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  /// The same process in /proc, which may be of another pid namespace than the agent.
  pid_t pid_in_proc() const;
  /// Lets it run; an Error if the command cannot be executed (code ENOENT, EACCES …).
  Result<> release();
  void signal(int number) const;
  /// Its exit status as a shell gives it (128 + signal number if one ended it); nothing while it runs.
  /// Takes note of the end of every child: the agent has no other of its own.
  std::optional<int> ended();
  /// Waits until it has ended.
  int wait();

 private:
  Child(pid_t pid, Fd go, Fd failure) : pid_(pid), go_(std::move(go)), failure_(std::move(failure)) {}
  pid_t pid_;
  Fd go_;       // closed or written to let it run
  Fd failure_;  // carries errno if exec fails, end of file if it works
  std::optional<int> status_;
};

}  // namespace boxo
