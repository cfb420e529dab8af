// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

namespace boxo {

void Fd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

namespace {

Result<Fd> open_at(int dirfd, const std::string& name, int flags) {
  const int fd = ::openat(dirfd, name.c_str(), flags | O_CLOEXEC);
  if (fd < 0) return errno_error(name);
  return Fd(fd);
}

}  // namespace

Result<Dir> Dir::open(const std::string& path) {
  auto fd = open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
  if (!fd) return fd.error();
  return Dir(std::move(*fd));
}

Result<Dir> Dir::dir(const std::string& name) const {
  auto fd = open_at(fd_.get(), name, O_RDONLY | O_DIRECTORY);
  if (!fd) return fd.error();
  return Dir(std::move(*fd));
}

Result<Fd> Dir::file(const std::string& name, int flags) const { return open_at(fd_.get(), name, flags); }

Result<std::string> Dir::read(const std::string& name, std::size_t max) const {
  auto fd = file(name);
  if (!fd) return fd.error();
  std::string text;
  if (auto done = read_again(*fd, text, max); !done) {
    const int code = done.error().code;
    return errno_error(name, {}, code);
  }
  return text;
}

Result<std::string> Dir::link(const std::string& name) const {
  std::string target(PATH_MAX, '\0');
  const ssize_t n = ::readlinkat(fd_.get(), name.c_str(), target.data(), target.size());
  if (n < 0) return errno_error(name);
  target.resize(static_cast<std::size_t>(n));
  return target;
}

Result<> read_again(const Fd& fd, std::string& out, std::size_t max) {
  out.clear();
  std::size_t used = 0;
  while (used < max) {
    if (out.size() == used) out.resize(std::min(max, std::max<std::size_t>(4096, used * 2)));
    const ssize_t n = ::pread(fd.get(), out.data() + used, out.size() - used, static_cast<off_t>(used));
    if (n < 0) {
      if (errno == EINTR) continue;
      const int code = errno;
      out.clear();
      return errno_error("read", {}, code);
    }
    if (n == 0) break;
    used += static_cast<std::size_t>(n);
  }
  out.resize(used);
  return {};
}

}  // namespace boxo
