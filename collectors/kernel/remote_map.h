// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "collectors/kernel/description.h"
#include "collectors/kernel/remotes.h"
#include "collectors/result.h"
#include "collectors/snapshot.h"

namespace boxo::kernel {

/// The kernel's map of remote addresses (METRIC_REMOTES in bpf/metric.h) and what was learnt from it so far.
class RemoteMap {
 public:
  /// Descriptors of the maps `remotes` and `unlisted`, which stay the caller's.
  RemoteMap(int remotes, int unlisted, std::size_t own_limit);

  /// Reads the map, once a tick.
  Result<> read();
  /// Adds the series of one of its metrics. Of a remote only what has ever happened.
  void add(const ProbeMetric& metric, Snapshot& out) const;

 private:
  void remove(const RemoteAddress& address, double now);

  int remotes_fd_, unlisted_fd_;
  Remotes remotes_;
  std::vector<remote_address> keys_;
  std::vector<remote> values_;
  std::vector<std::uint64_t> per_cpu_;
};

}  // namespace boxo::kernel
