// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "collectors/host/socket.h"
#include "collectors/result.h"
#include "collectors/target.h"

namespace boxo::host {

/// The kernel's own description of all sockets of one network namespace (NETLINK_SOCK_DIAG, by libmnl, whose
/// only door this is). Promises: never waits for longer than a second; sockets that belong to no process
/// (closed ones that still say goodbye, half-open ones) are left out.
class SockDiag {
 public:
  /// In the network namespace of `process`. Needs CAP_SYS_ADMIN if that is another one than the agent's.
  static Result<SockDiag> open(const Process& process);
  SockDiag(SockDiag&&) noexcept;
  SockDiag& operator=(SockDiag&&) noexcept;
  SockDiag(const SockDiag&) = delete;
  SockDiag& operator=(const SockDiag&) = delete;
  ~SockDiag();

  /// Adds the sockets of one protocol to `out`, TCP with tcp_info. Code ENOENT if this kernel does not
  /// describe them.
  Result<> read(Protocol protocol, std::vector<Socket>& out);

 private:
  struct Impl;
  explicit SockDiag(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// The network namespace of a process: two processes are in the same one if these numbers are equal.
Result<std::uint64_t> network_namespace(const Dir& process);

}  // namespace boxo::host
