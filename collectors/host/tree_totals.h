// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

#include "collectors/target.h"

namespace boxo::host {

/// Sums counters over a tree of processes where a parent's counters take over those of a child that it waited
/// for, as the kernel does with CPU time, faults and I/O. Promises: what a child used is counted once,
/// whether it was seen or not, whether its parent waits for it or not; the sum never goes back.
///
/// Whether a parent has taken over an ended child is told by a witness, which every process has more than
/// none of: minor page faults. The parent's count of reaped faults then rises by at least the child's. Use:
/// update() for each living process, or keep() if it lives but could not be read, then finish(), then
/// total().
template <std::size_t N>
class TreeTotals {
 public:
  using Values = std::array<std::uint64_t, N>;
  struct Reading {
    std::uint64_t faults = 0;         ///< own minor faults and those of reaped children
    std::uint64_t reaped_faults = 0;  ///< those of reaped children
    Values values{};                  ///< reaped children included
  };

  void update(const ProcessId& id, const ProcessId& parent, const Reading& now) {
    Entry& entry = entries_[id];
    const bool first = entry.seen == 0;
    entry.parent = parent;
    entry.seen = entry.read = round_;
    entry.rise = first ? 0 : now.reaped_faults - std::min(now.reaped_faults, entry.last.reaped_faults);
    entry.last.faults = now.faults;
    entry.last.reaped_faults = now.reaped_faults;
    for (std::size_t i = 0; i < N; ++i) entry.last.values[i] = std::max(entry.last.values[i], now.values[i]);
  }
  /// The process lives, but what it counts could not be read. What its children hand on to it is settled at
  /// its next update. Nothing for one that was never read: it begins with its first update.
  void keep(const ProcessId& id) {
    if (const auto it = entries_.find(id); it != entries_.end()) it->second.seen = round_;
  }
  /// The values of a living process at its last update, or zeros.
  Values last(const ProcessId& id) const {
    const auto it = entries_.find(id);
    return it == entries_.end() ? Values{} : it->second.last.values;
  }
  /// Ends the round: processes that were not updated in it have ended.
  void finish() {
    for (auto& [id, entry] : entries_) {
      if (entry.seen == round_) continue;
      Entry* heir = heir_of(entry);
      if (heir == nullptr) {
        add(ended_, entry.last.values, 1);
        add(ended_, entry.claims, 1);
        continue;
      }
      heir->claimed += entry.last.faults + entry.claimed;
      add(heir->claims, entry.last.values, 1);
      add(heir->claims, entry.claims, 1);
    }
    for (auto it = entries_.begin(); it != entries_.end();) {
      Entry& entry = it->second;
      if (entry.seen != round_) {
        it = entries_.erase(it);
        continue;
      }
      if (entry.read != round_) {
        ++it;
        continue;
      }
      // In part when some of several ended children were waited for and some not.
      if (entry.claimed > entry.rise)
        add(ended_, entry.claims, 1 - static_cast<double>(entry.rise) / static_cast<double>(entry.claimed));
      entry.claimed = 0;
      entry.claims = {};
      ++it;
    }
    Values sum = ended_;
    for (const auto& [id, entry] : entries_) {
      add(sum, entry.last.values, 1);
      add(sum, entry.claims, 1);
    }
    for (std::size_t i = 0; i < N; ++i) total_[i] = std::max(total_[i], sum[i]);
    ++round_;
  }
  const Values& total() const { return total_; }

 private:
  struct Entry {
    ProcessId parent;
    std::uint64_t seen = 0;
    std::uint64_t read = 0;  ///< the last round in which it could be read
    std::uint64_t rise = 0;  ///< of reaped faults, from the reading before to the last
    Reading last;
    std::uint64_t claimed = 0;  ///< faults of those who ended since it was read before and may be in `rise`
    Values claims{};
  };

  /// The nearest living ancestor: whoever ended between has handed on what it had taken over.
  Entry* heir_of(const Entry& ended) {
    const Entry* at = &ended;
    // A row of parents is shorter than the table; the bound guards against a reused pid that closes a ring.
    for (std::size_t steps = 0; steps <= entries_.size(); ++steps) {
      const auto it = entries_.find(at->parent);
      if (it == entries_.end()) return nullptr;
      if (it->second.seen == round_) return &it->second;
      at = &it->second;
    }
    return nullptr;
  }
  static void add(Values& sum, const Values& values, double share) {
    for (std::size_t i = 0; i < N; ++i)
      sum[i] += share >= 1 ? values[i] : static_cast<std::uint64_t>(static_cast<double>(values[i]) * share);
  }

  std::map<ProcessId, Entry> entries_;
  Values ended_{};
  Values total_{};
  std::uint64_t round_ = 1;
};

}  // namespace boxo::host
