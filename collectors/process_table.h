// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "collectors/fd.h"
#include "collectors/proc_stat.h"
#include "collectors/result.h"

namespace boxo {

/// All processes of a /proc by pid, kept from one look to the next, so that only new ones are read.
/// A pid that came to another process meanwhile is noticed without reading it: the kernel gives every
/// process's directory another inode, and the listing shows it.
class ProcessTable {
 public:
  struct Row {
    pid_t pid = 0;
    ino_t inode = 0;
    std::uint64_t start_ticks = 0;
    pid_t parent = 0;  ///< when it was read: a process whose parent ended gets another one
    bool kernel_thread = false;
    bool ended = false;         ///< when it was read
    bool member = false;        ///< the owner's mark
    std::uint64_t read_at = 0;  ///< the look at which it was read
  };

  /// `proc` outlives the table.
  explicit ProcessTable(const Dir& proc);

  /// Which rows a look has to bring up to date.
  enum class Scope {
    kAll,         ///< all
    kMembersNew,  ///< members, and what is new; of the others some that have ended may stay
  };

  /// Reads what is new. `alive` decides of a member that is not listed as itself any more whether it is still
  /// there. On an error all stays as it was. Lists /proc, but for kMembersNew only once a minute, or where
  /// more new pids were given than there are processes: else these pids are looked at one by one, so that the
  /// processes that are there already cost nothing.
  Result<> look(const std::function<bool(const Row&)>& alive, Scope scope = Scope::kAll);
  /// Reads the rows again that this look has not read: their parents may have changed.
  void read_all();

  std::vector<Row>& rows() { return rows_; }
  /// The rows that the last look read because they are new, as indices of rows().
  const std::vector<std::size_t>& fresh() const { return fresh_; }
  /// The row of a pid, or nullptr.
  Row* find(pid_t pid);
  /// What of the last look a search that has found nothing so far should see (again), as indices of rows():
  /// all that are younger than a few seconds, since a process is forked first and becomes the program only
  /// later, and a bounded number of the older ones in turn. `everything` starts over with all of them.
  std::vector<std::size_t> candidates(bool everything);

 private:
  using Clock = std::chrono::steady_clock;

  bool read(Row& row);
  Result<> list(const std::function<bool(const Row&)>& alive);
  bool look_at_new(pid_t newest, const std::function<bool(const Row&)>& alive);
  std::optional<pid_t> newest_pid() const;

  const Dir* proc_;
  bool own_pids_ = false;  ///< whether this /proc counts as the agent's system calls do
  /// The pid that was given last, at the last look and at the one before.
  std::array<std::optional<pid_t>, 2> newest_;
  std::size_t listed_ = 0;  ///< processes at the last listing
  Clock::time_point list_again_;
  bool missed_ = false;  ///< whether this look could not read a process that is there
  std::vector<Row> rows_;
  std::vector<Row> next_;
  std::vector<std::size_t> fresh_;
  std::vector<char> buffer_;
  std::uint64_t looks_ = 0;
  pid_t turn_ = 0;
};

/// Time since boot in the unit of Row::start_ticks.
std::uint64_t now_ticks();
std::uint64_t ticks_per_second();

/// Reads /proc/PID/stat, or another file of this form, through the process's directory.
Result<ProcStat> read_proc_stat(const Dir& process, const char* name = "stat");

}  // namespace boxo
