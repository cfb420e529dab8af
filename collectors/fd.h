// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "collectors/result.h"

namespace boxo {

/// Owns one file descriptor. Always O_CLOEXEC, closed exactly once.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();
  /// Gives the descriptor away: somebody else closes it.
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

/// A directory by descriptor: what is read below it stays in that directory, even if the path is reused by another
/// process or cgroup. Reads are bounded: `max` bytes at most, longer files are cut there.
class Dir {
 public:
  Dir() = default;
  /// Opens `path` (absolute or relative to the working directory).
  static Result<Dir> open(const std::string& path);

  /// Opens the directory `name` below this one.
  Result<Dir> dir(const std::string& name) const;
  /// Opens the file `name` below this one for reading (`flags` as in open(2)).
  Result<Fd> file(const std::string& name, int flags = 0) const;
  /// The whole file as text, at most `max` bytes.
  Result<std::string> read(const std::string& name, std::size_t max = 1 << 20) const;
  /// The target of the symbolic link `name`.
  Result<std::string> link(const std::string& name) const;

  int fd() const { return fd_.get(); }
  explicit operator bool() const { return static_cast<bool>(fd_); }

 private:
  explicit Dir(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

/// Reads a whole descriptor from offset 0 with pread (for /proc files kept open), at most `max` bytes, into `out`.
Result<> read_again(const Fd& fd, std::string& out, std::size_t max = 1 << 20);

}  // namespace boxo
