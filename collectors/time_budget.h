// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>

namespace boxo {

/// The clock of what is dear. Promises: of the time from one reading to the next at most one part in `share` is the CPU
/// time that the reading took, the readings are at least `shortest` apart, and none waits longer than `longest`, however
/// dear it is.
class TimeBudget {
 public:
  using Clock = std::chrono::steady_clock;

  explicit TimeBudget(int share, Clock::duration shortest = {}, Clock::duration longest = Clock::duration::max())
      : share_(share), shortest_(shortest), longest_(longest) {}

  bool allows(Clock::time_point now) const { return now >= next_; }
  /// A reading ended that took `cost`.
  void spent(Clock::time_point now, Clock::duration cost) { spent(now, cost, share_); }
  /// The same where the next one may come sooner: one part in `share` this time.
  void spent(Clock::time_point now, Clock::duration cost, int share) {
    last_ = now;
    next_ = now + std::max(shortest_, std::min(longest_, cost * std::min(share, share_)));
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
  int share_;
  Clock::duration shortest_;
  Clock::duration longest_;
  Clock::time_point last_;
  Clock::time_point next_;
};

}  // namespace boxo
