// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <algorithm>
#include <span>

#include "collectors/snapshot.h"

namespace boxo {

/// A histogram that is added to sample by sample.
class RunningHistogram {
 public:
  explicit RunningHistogram(std::span<const double> bounds) {
    state_.bounds.assign(bounds.begin(), bounds.end());
    state_.counts.assign(bounds.size() + 1, 0);
  }
  void observe(double value) {
    // Edges are inclusive: the first bound that is not less than the value.
    const auto at = std::lower_bound(state_.bounds.begin(), state_.bounds.end(), value);
    ++state_.counts[static_cast<std::size_t>(at - state_.bounds.begin())];
    state_.sum += value;
  }
  const Histogram& state() const { return state_; }

 private:
  Histogram state_;
};

}  // namespace boxo
