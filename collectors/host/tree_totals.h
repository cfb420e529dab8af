// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "collectors/target.h"

namespace boxo::host {

/// Sums counters over a tree of processes where a parent's counters take over those of a child that it waited
/// for, as the kernel does with CPU time, faults and I/O. Promises: what a child used is counted once; the sum
/// never goes back.
///
/// Whether a parent has taken over an ended child the kernel tells where it follows the processes (Ends): it adds
/// up those that nobody waited for, so that a process whose end it saw needs no place here any more. Between its
/// end and that the sum may lack it, and stands still.
///
/// Elsewhere a witness tells, which every process has more than none of: minor page faults. The parent's count of
/// reaped faults then rises by at least the child's. Lost is then what a child that nobody waits for used after
/// it was seen last.
///
/// What a process had used before it came to the target (Reading::ran_before) is in what is read of it, and wherever that
/// goes when it ends. So it is taken off the sum once, and for good.
///
/// Use: update() for each living process, keep() if it lives but could not be read, or hold() if
/// it ended meanwhile, then finish(), then total().
template <std::size_t N>
class TreeTotals {
 public:
  using Values = std::array<std::uint64_t, N>;
  struct Reading {
    std::uint64_t faults = 0;         ///< own minor faults and those of reaped children
    std::uint64_t reaped_faults = 0;  ///< those of reaped children
    Values values{};                  ///< reaped children included
    std::size_t told = N;             ///< how many of the values could be read; the rest are as they were last
    bool ran_before = false;          ///< what it has used when it is read first is not the target's
  };

  /// What the kernel tells since it follows the processes. To be asked for before they are read.
  struct Ends {
    Values unclaimed{};           ///< of all that have ended and that nobody waited for
    std::vector<ProcessId> seen;  ///< those gone since the round before whose end the kernel saw
  };

  void update(const ProcessId& id, const ProcessId& parent, const Reading& now) {
    Entry& entry = entries_[id];
    const bool first = entry.seen == 0;
    if (first && now.ran_before) entry.own_from = 0;
    for (; entry.own_from < now.told; ++entry.own_from) before_[entry.own_from] += now.values[entry.own_from];
    entry.parent = parent;
    entry.seen = entry.read = round_;
    entry.counted = true;
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
  /// The process ended while the others were read: it may be in what its parent told. The next round settles it.
  void hold(const ProcessId& id) {
    keep(id);
    if (const auto it = entries_.find(id); it != entries_.end()) it->second.counted = false;
  }
  /// The values of a living process at its last update, or zeros.
  Values last(const ProcessId& id) const {
    const auto it = entries_.find(id);
    return it == entries_.end() ? Values{} : it->second.last.values;
  }
  /// Ends the round: processes that were not updated in it have ended.
  void finish() {
    finish(nullptr, [](const ProcessId&) { return false; });
  }
  /// The same where the kernel may tell; `is_there` says whether a process still has its entry in /proc: a zombie
  /// that the target has let go.
  template <class IsThere>
  void finish(const Ends* ends, IsThere is_there) {
    if (ends != nullptr) take(*ends);
    for (auto& [id, entry] : entries_) {
      if (entry.seen == round_) continue;
      if (entry.end_seen) {
        if (is_there(id)) entry.seen = round_;
        continue;
      }
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
      if (entry.counted) add(sum, entry.last.values, 1);
      add(sum, entry.claims, 1);
    }
    for (std::size_t i = 0; i < N; ++i) total_[i] = std::max(total_[i], sum[i] - std::min(sum[i], before_[i]));
    ++round_;
  }
  const Values& total() const { return total_; }

 private:
  struct Entry {
    ProcessId parent;
    std::uint64_t seen = 0;
    std::uint64_t read = 0;  ///< the last round in which it could be read
    std::uint64_t rise = 0;  ///< of reaped faults, from the reading before to the last
    bool counted = true;    ///< in the sum
    bool end_seen = false;  ///< by the kernel, which will tell of it or has
    std::size_t own_from = N;  ///< of these and the following values what it had used before it came is not known yet
    Reading last;
    std::uint64_t claimed = 0;  ///< faults of those who ended since it was read before and may be in `rise`
    Values claims{};
  };

  void take(const Ends& ends) {
    for (std::size_t i = 0; i < N; ++i) ended_[i] += ends.unclaimed[i] - unclaimed_[i];
    unclaimed_ = ends.unclaimed;
    for (const ProcessId& id : ends.seen)
      if (const auto it = entries_.find(id); it != entries_.end()) it->second.end_seen = true;
  }
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
  Values unclaimed_{};  ///< what the kernel told last, part of `ended_`
  Values before_{};     ///< what processes had used before they came
  Values total_{};
  std::uint64_t round_ = 1;
};

}  // namespace boxo::host
