// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "collectors/host/continued.h"
#include "collectors/host/target_group.h"
#include "collectors/metric.h"
#include "collectors/snapshot.h"

namespace boxo::host {

/// What the target's cgroup read from and wrote to each block device, as the block layer counts it.
class GroupIo {
 public:
  enum Value { kReadBytes, kWrittenBytes, kDiscardedBytes, kReads, kWrites, kDiscards };
  using Devices = ContinuedByName<kDiscards + 1>::Reading;

  /// `names` is the directory where a device's number is a link to the device.
  explicit GroupIo(const std::string& names = "/sys/dev/block");

  static std::span<const Metric> metrics();
  /// Takes in what the group counts now, and shows all that was counted.
  void add(Snapshot& out, TargetGroup& group);

  /// By "major:minor", out of io.stat of version 2, or of the two files of version 1.
  static Devices parse_v2(std::string_view io_stat);
  static Devices parse_v1(std::string_view bytes, std::string_view requests);

 private:
  static std::optional<Devices> read(const CgroupView& view);
  void count(std::uint64_t place, const Devices& devices);
  void show(Snapshot& out) const;

  std::string name_of(const std::string& number) const;

  Dir links_;
  std::map<std::string, std::string, std::less<>> names_;  ///< by number, of those that were there at the last reading
  std::optional<Devices> last_;  ///< what the group told when there was one; nothing if it did not
  ContinuedByName<kDiscards + 1> devices_;  ///< by name: another device may be given the number later
};

}  // namespace boxo::host
