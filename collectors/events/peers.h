// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "collectors/events/builtin.h"
#include "collectors/events/cells.h"

namespace boxo::events {

inline constexpr std::uint64_t kPeerSilence = 600 * kSecond;
inline constexpr std::string_view kOtherPeers = "other";

/// What is exported of one peer, or of all those that have no series of their own.
struct PeerRecord {
  Cell sent;
  Cell received;
  Cell errors;
  std::unique_ptr<Window> latency;
  std::unique_ptr<Window> bandwidth;
};

/// The counters of a PeerRecord.
struct PeerCounts {
  Cell sent, received, errors;
};

struct Peer {
  std::string name;
  std::uint32_t generation = 0;  ///< changes when the slot goes to another peer
  std::uint64_t last = 0;        ///< when it was last heard of
  double score = 0;              ///< its bytes, halved every five minutes, and `inherited`
  double inherited = 0;          ///< part of the score that came with the slot
  bool own = false;              ///< has series of its own
  PeerRecord record;             ///< used only if it has
  PeerCounts shown;              ///< of it, the last time

  double bytes() const { return score - inherited; }
};

/// The peers of the node: the busiest by bytes have series of their own, all others are summed up as "other".
/// Holds a bounded number of them whatever arrives. "other" counts what no series of a peer's own has shown: a peer that
/// loses its series leaves there only what was not shown yet, one that gains a series starts at zero. So the growth of all
/// series together is what was counted, each thing once.
class Peers {
 public:
  Peers(std::size_t own_limit, std::size_t latency_window, std::size_t bandwidth_window);

  /// The peer with this name, new if need be. The slot may go to another peer later: compare its generation.
  Peer& find(std::string_view name, std::uint64_t now);
  void add(Peer& peer, PeerField field, double value, double weight, std::uint64_t now);
  /// Once a tick, just before all is shown: drops silent peers and gives the series to the busiest.
  void maintain(std::uint64_t now);
  /// Forgets latencies and bandwidths of before this moment, as Window::forget() does; the marks are set by
  /// maintain().
  void forget(std::uint64_t before);

  /// Slots; those with an empty name are free.
  const std::vector<Peer>& all() const { return slots_; }
  const PeerRecord& other() const { return other_; }

 private:
  template <class F>
  void for_each_window(F f);
  std::uint32_t free_slot();
  void give_series(Peer& peer);
  void take_series(Peer& peer);
  void drop(std::uint32_t slot);

  std::size_t own_limit_;
  std::size_t capacity_;
  std::size_t latency_window_;
  std::size_t bandwidth_window_;
  std::size_t owners_ = 0;
  std::uint64_t maintained_at_ = 0;
  std::uint32_t random_ = 1;
  std::vector<Peer> slots_;  ///< never longer than capacity_, which is reserved: addresses stay
  std::vector<std::uint32_t> free_;
  std::unordered_map<std::string_view, std::uint32_t> index_;  ///< keys are the names in slots_
  PeerRecord other_;
};

}  // namespace boxo::events
