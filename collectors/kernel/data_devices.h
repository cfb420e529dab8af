// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "collectors/kernel_reader.h"
#include "collectors/result.h"

namespace boxo::kernel {

/// The map by which the probes know the file system of the data directory (bpf/datadir.h), kept in step with where that is.
class DataDevices {
 public:
  /// `map` is the map data_devices. Writes into it only what has changed. What is not known leaves it as it is: a file system
  /// that does not answer for a while is the same one afterwards.
  void update(int map, const std::optional<Result<DataPlace>>& place);

  /// Why the probes do not know it; empty if they do.
  const std::string& trouble() const { return trouble_; }
  /// "ext4" or "xfs"; "" for any other.
  const std::string& filesystem() const { return told_.filesystem; }

 private:
  DataPlace told_;
  std::string trouble_ = "where the data directory lies is not known: the collector disk, which tells, is switched off";
};

}  // namespace boxo::kernel
