// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "collectors/cgroup.h"
#include "collectors/kernel/probe.h"
#include "collectors/target.h"

namespace boxo::kernel {

/// The cgroup (version 2) in which the programs of a probe see the target's packets. Promises: it is the nearest one above
/// the main process and every process and socket of the target that was met while that was the main process; where there
/// is none that the programs can be attached to, it says so and why.
class PacketGroup {
 public:
  /// `cgroup_root` is where the hierarchies are mounted (/sys/fs/cgroup).
  PacketGroup(const Target& target, std::string cgroup_root) : target_(&target), cgroup_root_(std::move(cgroup_root)) {}

  /// Goes with the main process; call before the set of processes is brought up to date. True if that is another one: where
  /// the target's processes and sockets are is not known then, and the probe has to remember() them.
  Result<bool> follow(Probe& probe);
  /// Puts the programs above all that was met meanwhile; call once a tick, when the probe has remembered who is new. True if
  /// they moved: sockets made beside them meanwhile are not known yet, and the probe has to remember() them. In one group above
  /// all, and not in each by itself: what is sent from a third one by somebody who comes there for a moment is then seen, too.
  Result<bool> settle(Probe& probe);
  /// The programs were taken off.
  void leave();
  bool inside() const { return main_.has_value(); }
  /// Where they are, as /proc/PID/cgroup writes it, while inside().
  std::string path() const;

 private:
  using Clock = std::chrono::steady_clock;
  Result<CgroupView> start();
  Result<> write_row(const Probe& probe);
  Result<> enter(Probe& probe, std::size_t level);
  Result<> look_again(const Probe& probe);

  const Target* target_;
  std::string cgroup_root_;
  std::optional<ProcessId> main_;  ///< whose group the row ends with
  std::optional<CgroupView> row_;
  std::vector<std::uint64_t> ids_;  ///< of the row, the topmost first, as told to the kernel
  std::size_t level_ = 0;           ///< where in it the programs are
  std::uint64_t entered_ = 0;       ///< the id of that group
  bool may_sink_ = false;           ///< they may be higher than they need, since the row is new
  bool moves_matter_ = true;        ///< a process that is moved is still the target's
  Clock::time_point looked_{};      ///< when the last round of looking again began
  std::size_t next_ = 0;            ///< whose turn it is in that
  bool one_by_one_ = true;          ///< the kernel can look at one process alone
};

}  // namespace boxo::kernel
