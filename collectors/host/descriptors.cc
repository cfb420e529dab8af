// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/descriptors.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

namespace boxo::host {

std::optional<std::uint64_t> quick_fd_count(const Process& process) {
  struct statfs filesystem {};
  struct stat info {};
  // Older kernels say 0, which is true for hardly a process and for none for long: those are counted by
  // listing.
  if (::fstatfs(process.shared().fd(), &filesystem) != 0 || filesystem.f_type != PROC_SUPER_MAGIC ||
      ::fstatat(process.shared().fd(), "fd", &info, 0) != 0 || info.st_size <= 0)
    return std::nullopt;
  return static_cast<std::uint64_t>(info.st_size);
}

}  // namespace boxo::host
