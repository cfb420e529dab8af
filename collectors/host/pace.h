// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "collectors/snapshot.h"
#include "collectors/target.h"
#include "collectors/time_budget.h"

namespace boxo::host {

/// Whether a collector that reads many things of one kind reads them now or shows again what it read last. Promises: up to
/// kFew are read at every tick; more, for at most 2 % of the time, and at least once a minute. Another main process,
/// another way to read, and a target that becomes whole or ceases to be, begin anew, with two readings that may cost what
/// they will: rates need two. A reading that failed is none: it is tried again at once, and as long as it goes on failing
/// each time twice as late, until that is as seldom as a good one.
class Pace {
 public:
  using Clock = TimeBudget::Clock;
  static constexpr std::size_t kFew = 1000;

  /// Whom it is about and who tells of it.
  struct Subject {
    ProcessId main;
    const void* source = nullptr;
    bool whole = true;  ///< whether all of the target's processes are looked at
    bool operator==(const Subject&) const = default;
  };

  bool rests(const Subject& subject, Clock::time_point now) const {
    return count_ > kFew && subject == subject_ && readings_ != 1 && !budget_.allows(now);
  }
  /// Of `count` things `out` was read at the cost of that much CPU time.
  void took(const Subject& subject, std::size_t count, Clock::time_point now, Clock::duration cost,
            const Snapshot& out) {
    begin(subject);
    ++readings_;
    count_ = count;
    budget_.spent(now, cost);
    keep(out);
  }
  /// The same where `out` says why it lacks something.
  void failed(const Subject& subject, std::size_t count, Clock::time_point now, Clock::duration cost,
              const Snapshot& out) {
    begin(subject);
    readings_ = 0;
    count_ = std::max(count_, count);  // it may not have come to see them all
    budget_.failed(now, cost);
    keep(out);
  }

  const Snapshot& last() const { return last_; }
  Clock::time_point read_at() const { return budget_.last(); }

 private:
  static TimeBudget fresh() { return TimeBudget(50, {}, std::chrono::minutes(1)); }
  void begin(const Subject& subject) {
    if (subject == subject_) return;
    subject_ = subject;
    count_ = readings_ = 0;
    budget_ = fresh();
  }
  void keep(const Snapshot& out) { last_ = count_ > kFew ? out : Snapshot(); }

  TimeBudget budget_ = fresh();
  Subject subject_;
  std::size_t count_ = 0;
  std::size_t readings_ = 0;  ///< good ones since the last that failed
  Snapshot last_;
};

/// The subject of a collector's readings of all processes of the target.
inline Pace::Subject subject_of(const Target& target, const void* source) {
  return {target.up() ? target.main()->id : ProcessId{}, source, target.shortage().empty()};
}

}  // namespace boxo::host
