// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

#include "collectors/target.h"

namespace boxo {

/// Sums counters over processes (or threads) that come and go, so that the sum never goes back: what a process had
/// counted when it was last seen stays in the sum after it has ended.
/// Use: update() for each living one, then finish(), then total().
template <std::size_t N, class Key = ProcessId>
class Accumulator {
 public:
  using Values = std::array<std::uint64_t, N>;

  void update(const Key& key, const Values& now) {
    Entry& entry = living_[key];
    for (std::size_t i = 0; i < N; ++i)
      if (now[i] > entry.last[i]) entry.last[i] = now[i];
    entry.seen = round_;
  }
  /// A living process whose counters could not be read this time: keep what it had.
  void keep(const Key& key) {
    if (auto it = living_.find(key); it != living_.end()) it->second.seen = round_;
  }
  /// Ends the round: those not seen in it have ended.
  void finish() {
    for (auto it = living_.begin(); it != living_.end();) {
      if (it->second.seen == round_) {
        ++it;
        continue;
      }
      for (std::size_t i = 0; i < N; ++i) ended_[i] += it->second.last[i];
      it = living_.erase(it);
    }
    ++round_;
  }
  Values total() const {
    Values sum = ended_;
    for (const auto& [key, entry] : living_)
      for (std::size_t i = 0; i < N; ++i) sum[i] += entry.last[i];
    return sum;
  }

 private:
  struct Entry {
    Values last{};
    std::uint64_t seen = 0;
  };
  std::map<Key, Entry> living_;
  Values ended_{};
  std::uint64_t round_ = 1;
};

}  // namespace boxo
