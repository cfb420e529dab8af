// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "collectors/target.h"

namespace boxo::kernel {

/// The cgroup of which everything is the target's: the watched one; else that of the main process, as long as none but
/// processes of the target (and the agent) are in it. What the kernel does for such a group is done for the target.
class OwnCgroup {
 public:
  explicit OwnCgroup(const Target& target) : target_(&target) {}

  /// Call once a tick. Cheap while nothing changes.
  void update();

  /// The kernel's ids of the group in the hierarchies of the memory and of the I/O controller; 0: none of its own there.
  std::uint64_t memory() const { return memory_; }
  std::uint64_t io() const { return io_; }
  /// Why memory() is 0; empty if it is not.
  const std::string& trouble() const { return trouble_; }

 private:
  using Clock = std::chrono::steady_clock;
  Result<std::uint64_t> find(const std::string& controller) const;
  Result<> only_ours(const Dir& group) const;

  const Target* target_;
  std::optional<std::uint64_t> generation_;
  std::string paths_;
  Clock::time_point looked_{};
  std::uint64_t memory_ = 0;
  std::uint64_t io_ = 0;
  std::string trouble_ = "the target is not running";
};

}  // namespace boxo::kernel
