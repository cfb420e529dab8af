// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/peers.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace boxo::events {

namespace {

// A peer takes over a series only if it is clearly busier than who has it; else two equals would take turns.
constexpr double kClearly = 1.1;
constexpr double kHalfLife = 300;  // seconds

/// Adds to one cell what another has beyond what was shown of it; a 0 that was never shown is told too.
void fold(Cell& into, const Cell& from, const Cell& shown) {
  if (!from.seen || (shown.seen && from.value <= shown.value)) return;
  into.value += from.value - shown.value;
  into.seen = true;
}

}  // namespace

Peers::Peers(std::size_t own_limit, std::size_t latency_window, std::size_t bandwidth_window)
    : own_limit_(own_limit),
      // Room to notice that a peer without a series has become busier than one that has.
      capacity_(own_limit + std::max<std::size_t>(own_limit, 1024)),
      latency_window_(latency_window),
      bandwidth_window_(bandwidth_window) {}

Peer& Peers::find(std::string_view name, std::uint64_t now) {
  if (const auto it = index_.find(name); it != index_.end()) return slots_[it->second];
  if (slots_.capacity() == 0) slots_.reserve(capacity_);
  const std::uint32_t slot = free_slot();
  Peer& peer = slots_[slot];
  peer.name = name;
  peer.last = now;
  index_.emplace(peer.name, slot);
  if (owners_ < own_limit_ && peer.name != kOtherPeers) give_series(peer);
  return peer;
}

std::uint32_t Peers::free_slot() {
  if (!free_.empty()) {
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  if (slots_.size() < capacity_) {
    slots_.emplace_back();
    return static_cast<std::uint32_t>(slots_.size() - 1);
  }
  // Full: of a few without series the one with the least score goes. The newcomer takes its score over, as in
  // the space-saving algorithm: else many small peers would drive out a busy one whenever it is quiet. What
  // is inherited counts for staying, never for a series.
  std::uint32_t victim = 0;
  bool found = false;
  for (int tries = 0; tries < 8 || !found; ++tries) {
    random_ = random_ * 1664525 + 1013904223;
    const auto slot = static_cast<std::uint32_t>((std::uint64_t{random_} * slots_.size()) >> 32);
    if (slots_[slot].own || (found && slots_[slot].score >= slots_[victim].score)) continue;
    victim = slot;
    found = true;
  }
  const double score = slots_[victim].score;
  drop(victim);
  free_.pop_back();
  slots_[victim].score = slots_[victim].inherited = score;
  return victim;
}

void Peers::add(Peer& peer, PeerField field, double value, double weight, std::uint64_t now) {
  peer.last = now;
  PeerRecord& record = peer.own ? peer.record : other_;
  const auto sample = [&](std::unique_ptr<Window>& window, std::size_t size) {
    if (!window) window = std::make_unique<Window>(size);
    window->add(value, weight, now);
  };
  const auto count = [&](Cell& cell) {
    cell.value += value * weight;
    cell.seen = true;
  };
  switch (field) {
    case PeerField::kSent:
    case PeerField::kReceived:
      count(field == PeerField::kSent ? record.sent : record.received);
      peer.score += value * weight;
      break;
    case PeerField::kErrors:
      count(record.errors);
      break;
    case PeerField::kLatency:
      sample(record.latency, latency_window_);
      break;
    case PeerField::kBandwidth:
      sample(record.bandwidth, bandwidth_window_);
      break;
    case PeerField::kNone:
      break;
  }
}

template <class F>
void Peers::for_each_window(F f) {
  const auto of = [&](const PeerRecord& record) {
    if (record.latency) f(*record.latency);
    if (record.bandwidth) f(*record.bandwidth);
  };
  for (const Peer& peer : slots_) of(peer.record);
  of(other_);
}

void Peers::maintain(std::uint64_t now) {
  const double seconds = maintained_at_ == 0 ? 0 : static_cast<double>(now - maintained_at_) / 1e9;
  maintained_at_ = now;
  for_each_window([](Window& window) { window.mark(); });
  const double fade = std::exp2(-seconds / kHalfLife);
  std::vector<Peer*> owners;
  std::vector<Peer*> others;
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    Peer& peer = slots_[slot];
    if (peer.name.empty()) continue;
    peer.score *= fade;
    peer.inherited *= fade;
    if (now > peer.last && now - peer.last > kPeerSilence)
      drop(slot);
    else if (peer.name != kOtherPeers)
      (peer.own ? owners : others).push_back(&peer);
  }
  const auto busier = [](const Peer* a, const Peer* b) { return a->bytes() > b->bytes(); };
  std::sort(others.begin(), others.end(), busier);
  std::sort(owners.begin(), owners.end(), busier);
  for (Peer* peer : others) {
    if (owners_ == own_limit_) {
      if (owners.empty() || peer->bytes() <= owners.back()->bytes() * kClearly) break;
      take_series(*owners.back());
      owners.pop_back();
    }
    give_series(*peer);
  }
  for (Peer& peer : slots_)
    if (peer.own) peer.shown = {peer.record.sent, peer.record.received, peer.record.errors};
}

void Peers::forget(std::uint64_t before) {
  for_each_window([before](Window& window) { window.forget(before); });
}

void Peers::give_series(Peer& peer) {
  peer.own = true;
  peer.shown = {};
  ++owners_;
}

void Peers::take_series(Peer& peer) {
  fold(other_.sent, peer.record.sent, peer.shown.sent);
  fold(other_.received, peer.record.received, peer.shown.received);
  fold(other_.errors, peer.record.errors, peer.shown.errors);
  peer.record = PeerRecord{};
  peer.own = false;
  --owners_;
}

void Peers::drop(std::uint32_t slot) {
  Peer& peer = slots_[slot];
  if (peer.own) take_series(peer);
  index_.erase(std::string_view(peer.name));
  peer.name.clear();
  peer.score = peer.inherited = 0;
  ++peer.generation;
  free_.push_back(slot);
}

}  // namespace boxo::events
