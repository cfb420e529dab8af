// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "collectors/host/socket.h"
#include "collectors/target.h"

namespace boxo::host {

/// Every socket of the network namespaces that the target is in, each protocol by the best source that
/// answers for it: sock_diag, else the text tables. Promises: a protocol that cannot be had (a kernel without
/// its module) costs the others nothing.
class SocketSources {
 public:
  using Read = std::function<Result<>(Protocol, std::vector<Socket>&)>;
  struct Doors {
    std::function<Result<Read>(const Process&)> diag;
    std::function<Result<>(const Process&, Protocol, std::vector<Socket>&)> table;
  };
  static Doors kernel();  ///< those of the running kernel

  explicit SocketSources(Doors doors = kernel()) : doors_(std::move(doors)) {}

  void read(const std::vector<Process>& processes);

  const std::vector<Socket>& sockets() const { return sockets_; }
  /// Why the last read has not all sockets of the protocol; "" if it has.
  const std::string& trouble(Protocol protocol) const { return trouble_[index_of(protocol)]; }
  /// Why they are not sock_diag's, with all details; "" if they are.
  const std::string& details_trouble(Protocol protocol) const { return details_[index_of(protocol)]; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Refusal {
    std::string reason;
    Clock::time_point until;
  };
  struct Namespace {
    Read diag;
    std::array<Refusal, kProtocols.size()> refused;
  };

  void read(std::uint64_t id, const std::vector<const Process*>& inside);
  Result<> read_diag(Namespace& space, Protocol protocol);
  void read_table(const std::vector<const Process*>& inside, Protocol protocol);

  Doors doors_;
  std::map<std::uint64_t, Namespace> namespaces_;
  std::vector<Socket> sockets_;
  std::array<std::string, kProtocols.size()> trouble_;
  std::array<std::string, kProtocols.size()> details_;
};

}  // namespace boxo::host
