// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/listing.h"

#include <dirent.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>

#include "collectors/host/text.h"

namespace boxo::host {

Result<> list_numbers(const Dir& dir, const std::function<void(std::uint32_t)>& each) {
  if (::lseek(dir.fd(), 0, SEEK_SET) < 0) return errno_error("lseek");
  alignas(dirent64) std::array<char, 32768> buffer{};
  for (;;) {
    const ssize_t n = ::getdents64(dir.fd(), buffer.data(), buffer.size());
    if (n < 0) return errno_error("getdents64");
    if (n == 0) return {};
    for (ssize_t at = 0; at < n;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
      at += entry->d_reclen;
      const auto number = to_number(entry->d_name);
      if (number && *number <= UINT32_MAX) each(static_cast<std::uint32_t>(*number));
    }
  }
}

}  // namespace boxo::host
