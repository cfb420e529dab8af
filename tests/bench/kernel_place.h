// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "collectors/fd.h"

namespace boxo::kernel {

/// Where the work is done: an ext4 file system on a block device whose blocks lie in memory, so that no disk is waited for,
/// and cgroups of its own. What it mounts nobody else sees, and nothing of it is left behind.
class Place {
 public:
  Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  Place(Place&&) = delete;
  Place& operator=(Place&&) = delete;
  ~Place();

  /// A file for the work.
  std::string file() const { return "/mnt/work"; }
  /// Lets no more than a few megabytes of the file system be dirty, or as many as they like. False: not on this kernel.
  bool hold_back(bool on) const;
  /// A memory cgroup with a limit of 16 MiB.
  const std::string& memory_group() const { return memory_; }
  /// An empty cgroup of version 2 beside the one of this process.
  const std::string& other_group() const { return other_; }

 private:
  void make_disk();
  void make_groups();
  std::string bdi_;
  Fd disk_;
  std::string memory_, other_;
};

[[noreturn]] void die(const std::string& what);

}  // namespace boxo::kernel
