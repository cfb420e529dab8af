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
/// they were last seen, or as ended() tells). Promises: totals never go back; a socket that is listed twice is counted
/// once, and so is one that another source describes than the last time, or none for a while, or that has ended. What a
/// process that ran before it came to the target brought with it counts from then on.
class SocketLedger {
 public:
  enum Total { kSent, kReceived, kSegmentsOut, kSegmentsIn, kDataSegments, kRetransmits, kDrops, kTotals };
  /// Of which protocols all sockets are listed. Those of the others are not taken for closed.
  using Complete = std::array<bool, kProtocols.size()>;

  /// `sockets` is every socket of the namespaces that the target is in.
  void update(const std::vector<Process>& processes, const std::vector<Socket>& sockets,
              const Complete& complete = {true, true, true});

  /// `sockets` is every socket of the target and none of others; one that processes share is listed for each.
  /// What was in own() is given back in its place. `brought`: of these, the sockets at [first, last) that a process had
  /// when it came to the target (Process::ran_before).
  struct Range {
    std::size_t first = 0, last = 0;
  };
  void update_own(std::vector<Socket>& sockets, const std::vector<Range>& brought = {});

  /// TCP connections of the target that had ended before the sockets of the last update were read, as they were then. What
  /// of them has been counted already is not counted again.
  void ended(const std::vector<Socket>& connections);

  /// The target's own among the sockets of the last update.
  const std::vector<Socket>& own() const { return own_; }
  std::uint64_t total(Total which) const { return totals_[which]; }
  const SocketOwner& owner() const { return owner_; }

 private:
  using Counts = std::array<std::uint64_t, kTotals>;
  /// Behind one inode there is one socket, but with MPTCP several.
  struct Entry {
    std::uint64_t id = 0;
    std::uint64_t seen = 0;  ///< 0: nobody yet
    std::uint64_t cookie = 0;
    std::uint32_t inode = 0;
    SocketSource source = SocketSource::kTables;
    Protocol protocol = Protocol::kTcp;
    bool counted = false;  ///< it was the target's at some time
    Counts last{};
    std::unique_ptr<Entry> next;
  };
  /// A connection that no process has open any more. The kernel may still be about to send what was written to it.
  struct Left {
    Counts last{};
    std::uint64_t since = 0;  ///< round
  };

  void begin();
  Entry* known(const Socket& socket);
  Entry* find(const Socket& socket);
  Entry& make(const Socket& socket);
  void count(const Socket& socket, Entry& entry);
  void add(const Socket& socket, Entry& entry, bool brought);
  void grow(const Socket& socket, Counts& last, bool counts = true);
  void leave(const Entry& entry);
  void forget(const Complete& complete);
  void drop_closed(Entry& first, const Complete& complete);

  SocketOwner owner_;
  std::unordered_map<std::uint32_t, Entry> entries_;  ///< by inode; also those of other processes
  std::size_t size_ = 0;                              ///< entries, those behind others included
  std::unordered_set<std::uint32_t> inodes_;
  std::vector<Entry*> found_;   ///< for each of the sockets of an update
  std::vector<Entry*> before_;  ///< the same of the update before
  std::size_t place_ = 0;       ///< in before_: where the next one most likely stands
  std::vector<Socket> own_;
  std::array<std::uint64_t, kTotals> totals_{};
  std::uint64_t round_ = 0;
  std::unordered_map<std::uint64_t, Left> left_;  ///< by cookie
};

}  // namespace boxo::host
