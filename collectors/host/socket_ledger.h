// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "collectors/host/socket_owner.h"
#include "collectors/socket.h"

namespace boxo::host {

/// What the target's sockets are at a tick and what they have counted, those that are closed included (as
/// they were last seen). Promises: totals never go back; a socket that is listed twice is counted once, and
/// so is one that another source describes than the last time, or none for a while.
class SocketLedger {
 public:
  enum Total { kSent, kReceived, kSegmentsOut, kSegmentsIn, kRetransmits, kDrops, kTotals };
  /// Of which protocols all sockets are listed. Those of the others are not taken for closed.
  using Complete = std::array<bool, kProtocols.size()>;

  /// `sockets` is every socket of the namespaces that the target is in.
  void update(const std::vector<Process>& processes, const std::vector<Socket>& sockets,
              const Complete& complete = {true, true, true});

  /// `sockets` is every socket of the target and none of others; one that processes share is listed for each.
  /// What was in own() is given back in its place.
  void update_own(std::vector<Socket>& sockets);

  /// The target's own among the sockets of the last update.
  const std::vector<Socket>& own() const { return own_; }
  std::uint64_t total(Total which) const { return totals_[which]; }
  const SocketOwner& owner() const { return owner_; }

 private:
  /// Behind one inode there is one socket, but with MPTCP several.
  struct Entry {
    std::uint64_t id = 0;
    std::uint64_t seen = 0;  ///< 0: nobody yet
    SocketSource source = SocketSource::kTables;
    Protocol protocol = Protocol::kTcp;
    std::array<std::uint64_t, kTotals> last{};
    std::unique_ptr<Entry> next;
  };

  Entry* find(const Socket& socket);
  Entry& make(const Socket& socket);
  void count(const Socket& socket, Entry& entry);
  void add(const Socket& socket, Entry& entry);
  void forget(const Complete& complete);
  void drop_closed(Entry& first, const Complete& complete);

  SocketOwner owner_;
  std::unordered_map<std::uint32_t, Entry> entries_;  ///< by inode; also those of other processes
  std::size_t size_ = 0;                              ///< entries, those behind others included
  std::unordered_set<std::uint32_t> inodes_;
  std::vector<Entry*> found_;  ///< for each of the sockets of an update
  std::vector<Socket> own_;
  std::array<std::uint64_t, kTotals> totals_{};
  std::uint64_t round_ = 0;
};

}  // namespace boxo::host
