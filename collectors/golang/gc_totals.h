// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "collectors/histogram.h"

namespace boxo::golang {

/// The edges of boxo_resource_gc_pause_seconds, as for the pauses that an application sends.
inline constexpr double kPauseSeconds[] = {.00001, .00005, .0001, .0005, .001, .005, .01, .05, .1};

/// Garbage collections of programs that come and go. Promises: no sum ever goes back, and each cycle and each pause counts
/// once. A program that is seen for the first time is taken with all that it has counted: of its cycles before that, the
/// pauses that it still remembers.
/// Use: update() or keep() for each living program, then finish().
class GcTotals {
 public:
  /// `begun` tells programs apart. `pauses` are those of the latest of its cycles, oldest first.
  void update(std::uint64_t begun, std::uint64_t cycles, const std::vector<std::uint64_t>& pauses) {
    Entry& entry = living_[begun];
    entry.seen = round_;
    if (cycles <= entry.cycles) return;
    const std::uint64_t fresh = cycles - entry.cycles;
    entry.cycles = cycles;
    cycles_ += fresh;
    for (std::size_t i = pauses.size() - std::min<std::uint64_t>(fresh, pauses.size()); i < pauses.size(); ++i)
      pauses_.observe(static_cast<double>(pauses[i]) / 1e9);  // not by 1e-9: edges are inclusive
    if (fresh > pauses.size()) missed_ += fresh - pauses.size();
  }
  /// A living one that could not be read this time.
  void keep(std::uint64_t begun) {
    if (auto it = living_.find(begun); it != living_.end()) it->second.seen = round_;
  }
  /// Those that were neither updated nor kept have ended.
  void finish() {
    std::erase_if(living_, [this](const auto& one) { return one.second.seen != round_; });
    ++round_;
  }

  std::uint64_t cycles() const { return cycles_; }
  const Histogram& pauses() const { return pauses_.state(); }
  /// Cycles whose pause nobody remembered when they were seen.
  std::uint64_t missed() const { return missed_; }

 private:
  struct Entry {
    std::uint64_t cycles = 0;
    std::uint64_t seen = 0;
  };
  std::map<std::uint64_t, Entry> living_;
  std::uint64_t cycles_ = 0;
  std::uint64_t missed_ = 0;
  RunningHistogram pauses_{kPauseSeconds};
  std::uint64_t round_ = 1;
};

}  // namespace boxo::golang
