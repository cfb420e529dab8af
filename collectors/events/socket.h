// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <optional>
#include <string>

#include "collectors/fd.h"
#include "collectors/result.h"

namespace boxo::events {

/// A bound Unix socket, and its path in the file system for as long as that is ours.
class UnixSocket {
 public:
  struct Place {
    std::string option;  ///< for errors: "--events"
    std::string path;
    mode_t mode = 0666;
    std::optional<gid_t> group;
  };

  UnixSocket() = default;
  ~UnixSocket() { close(); }
  UnixSocket(UnixSocket&& other) noexcept;
  UnixSocket& operator=(UnixSocket&& other) noexcept;
  UnixSocket(const UnixSocket&) = delete;
  UnixSocket& operator=(const UnixSocket&) = delete;

  /// Binds (and for SOCK_STREAM listens). What a dead process left at the path is replaced; a socket on which
  /// somebody receives, or anything that is no socket, is an error.
  static Result<UnixSocket> bind(int type, const Place& place);
  /// The socket of this type that systemd opened for this process (LISTEN_FDS); none if it did not.
  static std::optional<UnixSocket> inherited(int type);

  int fd() const { return fd_.get(); }
  explicit operator bool() const { return static_cast<bool>(fd_); }
  const std::string& path() const { return path_; }
  /// Whether the mode of the socket lets only its owner and its group send, and the group is this one.
  bool only_for(gid_t group) const;
  /// Closes, and removes the path if it is still this socket's.
  void close();

 private:
  Fd fd_;
  std::string path_;
  bool owns_path_ = false;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace boxo::events
