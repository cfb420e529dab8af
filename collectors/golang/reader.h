// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "collectors/golang/gc_totals.h"
#include "collectors/golang/runtime.h"

namespace boxo::golang {

/// Follows the Go programs among the target's processes and adds up what their runtimes count.
/// Promises: a program counts once, also while it forks; the others of the target's processes cost a stat each.
class Reader {
 public:
  /// `target` outlives it.
  explicit Reader(const Target& target) : target_(target) {}

  /// One that could be read, until the target is refreshed.
  struct Running {
    const Process* process;
    const Runtime* runtime;
    Numbers numbers;
  };

  void read();
  const std::vector<Running>& running() const { return running_; }
  /// Why running() are not all, or why the levels of one of them do not hold; "" otherwise.
  const std::string& trouble() const { return trouble_; }
  /// Why collections() may lack some; "" if they are all. One that has just begun has counted nothing yet.
  const std::string& uncounted() const { return uncounted_; }
  const GcTotals& collections() const { return gc_; }
  /// How it was read: "go1.26.8, process_vm_readv".
  const std::string& how() const { return how_; }
  Memory memory_of(const Process& process);

 private:
  struct Attached {
    std::shared_ptr<const Program> program;
    std::optional<Runtime> runtime;  ///< nothing while it cannot be read
    std::uint64_t round = 0;
  };
  struct Trouble {
    std::string why;
    bool counted = false;  ///< what it counts was taken in all the same
  };
  Trouble read_one(const Process& process);
  Result<Numbers> read_numbers(const Process& process, Attached& attached, Memory& memory);

  const Target& target_;
  Programs programs_;
  std::map<ProcessId, Attached> attached_;
  std::uint64_t round_ = 0;
  std::optional<bool> by_pid_;
  GcTotals gc_;
  std::vector<Running> running_;
  std::string trouble_;
  std::string uncounted_;
  std::string begins_;  ///< that one of them does, and cannot be read yet
  std::string how_;
};

}  // namespace boxo::golang
