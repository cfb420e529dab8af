// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "collectors/events/cells.h"

namespace boxo::events {

/// A client that numbers its datagrams.
struct Client {
  std::string id;
  std::uint32_t generation = 0;  ///< changes when the place goes to another client
  double last = 0;               ///< the number of its last datagram
  std::uint64_t used = 0;        ///< when it was last heard of
};

/// What was lost before it reached the socket: `reason` is a value of that label of
/// boxo_agent_events_dropped_total.
struct Loss {
  std::string reason;
  Cell cell;
};

/// What clients say of themselves: the numbers of their datagrams, whose gaps are losses, and what they
/// themselves dropped, by their reasons. Both are bounded in number.
class Clients {
 public:
  Clients() { losses_.push_back({"sequence", {}}); }

  /// The client with this id; the one that was silent longest makes room for a new one.
  Client& find(std::string_view id, std::uint64_t now);
  /// Counts the datagrams missing between the client's last number and this one. A number that is not above
  /// the last one begins a new count: the client has restarted.
  void sequence(Client& client, double number, std::uint64_t now);
  /// What is counted under this reason; under "other" if it is no plain word or there are too many of them.
  Cell& dropped(std::string_view reason);

  const std::deque<Loss>& losses() const { return losses_; }

 private:
  static constexpr std::size_t kClients = 64;
  static constexpr std::size_t kLosses = 16;

  std::array<Client, kClients> clients_;
  std::deque<Loss> losses_;  ///< the first one is for the gaps
};

}  // namespace boxo::events
