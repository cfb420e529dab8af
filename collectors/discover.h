// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "collectors/fd.h"
#include "collectors/process_table.h"

namespace boxo {

/// Tells whether a process is a boxo-based node: its executable is a Go program with github.com/ipfs/boxo in
/// it. For kubo one of the arguments is "daemon"; others have run for a few seconds, so that a call from a
/// shell is not taken for a node. Promises to read an executable once only, however many processes run it.
class Discovery {
 public:
  /// `self` is the agent's own pid, which is never a node.
  Discovery(const Dir& proc, pid_t self) : proc_(&proc), self_(self) {}

  /// kYoung: it runs such a program, and has not yet run long enough to be told from a call.
  enum class Node { kNo, kYoung, kYes };
  Node is_node(const ProcessTable::Row& row);
  /// Whether the process is kubo, but not its daemon: a call such as `ipfs id`, over in a moment. False where the
  /// executable cannot be read.
  bool is_kubo_call(const ProcessTable::Row& row);
  /// The executables that could not be read: "cannot read /proc/123/exe: Permission denied: run as root or
  /// with CAP_SYS_PTRACE"; "" if there are none.
  std::string refused() const;
  /// Forgets the refusals of processes that have ended.
  void forget_ended(ProcessTable& table);

 private:
  enum class Program { kOther, kBoxo, kKubo };
  using Key = std::tuple<dev_t, ino_t, std::int64_t, long>;

  Program program(pid_t pid);
  bool says_daemon(pid_t pid) const;
  void refuse(pid_t pid, int code);

  const Dir* proc_;
  pid_t self_;
  std::map<Key, Program> programs_;
  std::map<pid_t, int> refused_;
};

}  // namespace boxo
