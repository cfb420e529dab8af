// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>

namespace boxo {

/// The clock of what is dear. Promises: of the time from one reading to the next at most one part in `share` is the CPU
/// time that the reading took, the readings are at least `shortest` apart, and none waits longer than `longest`, however
/// dear it is. One that failed is tried again at once, and as long as they go on failing each time twice as late, until that
/// is as seldom as a good one.
class TimeBudget {
 public:
  using Clock = std::chrono::steady_clock;

  explicit TimeBudget(int share, Clock::duration shortest = {}, Clock::duration longest = Clock::duration::max())
      : share_(share), shortest_(shortest), longest_(longest) {}

  bool allows(Clock::time_point now) const { return now >= next_; }
  /// A reading ended that took `cost`.
  void spent(Clock::time_point now, Clock::duration cost) {
    // One good reading among bad ones does not make these cheap.
    if (good_) failures_ = 0;
    good_ = true;
    last_ = now;
    next_ = now + ordinary(cost);
  }
  /// The same, and it failed. `seldom`: the time between good ones, where that is longer than this clock makes it.
  void failed(Clock::time_point now, Clock::duration cost, Clock::duration seldom = {}) {
    Clock::duration wait{};
    if (failures_ > 0 && !good_) wait = 2 * (now - last_);
    good_ = false;
    failures_ = std::min(failures_ + 1, kMostFailures);
    wait = std::max(wait, cost * std::min(share_, 1 << failures_));
    last_ = now;
    next_ = now + std::min(wait, std::max(seldom, ordinary(cost)));
  }
  /// When the last reading ended; Clock::time_point() before the first.
  Clock::time_point last() const { return last_; }

  /// CPU time of the calling thread: what others do meanwhile is not its cost.
  static Clock::duration cpu_time() {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  }

 private:
  static constexpr int kMostFailures = 20;

  Clock::duration ordinary(Clock::duration cost) const { return std::max(shortest_, std::min(longest_, cost * share_)); }

  int share_;
  Clock::duration shortest_;
  Clock::duration longest_;
  Clock::time_point last_;
  Clock::time_point next_;
  int failures_ = 0;   ///< since two good readings in a row
  bool good_ = true;  ///< the last reading, or there was none
};

}  // namespace boxo
