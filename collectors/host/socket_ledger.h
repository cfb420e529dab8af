// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "collectors/host/socket.h"
#include "collectors/host/socket_owner.h"

namespace boxo::host {

/// What the target's sockets are at a tick and what they have counted, those that are closed included (as
/// they were last seen). Promises: totals never go back; a socket that is listed twice is counted once.
class SocketLedger {
 public:
  enum Total { kSent, kReceived, kSegmentsOut, kSegmentsIn, kRetransmits, kDrops, kTotals };

  /// `sockets` is every socket of the namespaces that the target is in.
  void update(const std::vector<Process>& processes, const std::vector<Socket>& sockets);

  /// The target's own among the sockets of the last update.
  const std::vector<Socket>& own() const { return own_; }
  std::uint64_t total(Total which) const { return totals_[which]; }
  const SocketOwner& owner() const { return owner_; }

 private:
  struct Entry {
    std::uint64_t seen = 0;
    std::array<std::uint64_t, kTotals> last{};
  };

  void count(const Socket& socket, Entry& entry);

  SocketOwner owner_;
  std::unordered_map<std::uint64_t, Entry> entries_;  ///< also those of other processes
  std::unordered_set<std::uint32_t> inodes_;
  std::vector<Entry*> found_;  ///< for each of the sockets of an update
  std::vector<Socket> own_;
  std::array<std::uint64_t, kTotals> totals_{};
  std::uint64_t round_ = 0;
};

}  // namespace boxo::host
