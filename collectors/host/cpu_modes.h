// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>

namespace boxo::host {

/// CPU time by mode, whose sum is exact although the kernel may only have sampled the modes: cgroup v1 counts
/// `cpuacct.usage` to the nanosecond, and the two modes by what a timer tick met, which misses tasks that never live
/// through a tick (a third of the time of a hundred children of 2 ms). What was used between two readings is divided as
/// the sample says. Neither mode ever goes back.
class CpuModes {
 public:
  /// Nanoseconds since the beginning: in all, and what the kernel says of the two modes.
  void update(std::uint64_t total, std::uint64_t user, std::uint64_t system) {
    const std::uint64_t used = total - total_;
    const std::uint64_t in_user = user - sampled_user_;
    const std::uint64_t sampled = in_user + (system - sampled_system_);
    if (sampled > 0) {
      share_ = static_cast<double>(in_user) / static_cast<double>(sampled);
      sampled_user_ = user;
      sampled_system_ = system;
    }
    if (sampled == used) {
      user_ += in_user;
    } else {
      user_ += static_cast<std::uint64_t>(share_ * static_cast<double>(used));
    }
    total_ = total;
  }

  std::uint64_t user() const { return user_; }
  std::uint64_t system() const { return total_ - user_; }

 private:
  std::uint64_t total_ = 0;
  std::uint64_t user_ = 0;
  std::uint64_t sampled_user_ = 0;
  std::uint64_t sampled_system_ = 0;
  double share_ = 1;  ///< of user mode; what is too short for a sample counts as the last one did
};

}  // namespace boxo::host
