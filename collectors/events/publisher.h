// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>

#include "collectors/events/reading.h"
#include "collectors/metric.h"
#include "collectors/snapshot.h"

namespace boxo::events {

/// A share over at least the last N things, in whole ticks: of how many lookups were hits, for instance.
/// Unlike the share since the start it follows a change; unlike that of one tick it stays defined when
/// nothing happens.
class Share {
 public:
  explicit Share(std::size_t things) : things_(static_cast<double>(things)) {}
  /// What was counted since the start, at this tick, and the `last` time that something was. What came before
  /// `forgotten` does not belong to the share any more, to a tick exactly.
  void update(double part, double whole, std::uint64_t last, std::uint64_t forgotten);
  /// Not defined before the first thing.
  std::optional<double> value() const;

 private:
  struct Tick {
    double part;
    double whole;
  };
  double things_;
  std::uint64_t forgotten_ = 0;
  Tick last_{0, 0};
  Tick sum_{0, 0};
  std::deque<Tick> ticks_;
};

/// Makes metrics of Readings: rates, shares, means, percentiles and the exported names. Names without data are
/// absent.
class Publisher {
 public:
  /// `start`: since when events are counted, in nanoseconds since boot.
  Publisher(std::size_t history, std::uint64_t start)
      : hits_(history), errors_(history), losses_(history), last_at_(start) {}

  /// Reorders the windows in `reading`.
  void publish(Reading& reading, Snapshot& out);

  /// All built-in metrics.
  static std::span<const Metric> metrics();

 private:
  void add_shares(const Reading& reading, Snapshot& out);
  void add_rates(const Reading& reading, Snapshot& out);

  Share hits_;
  Share errors_;
  Share losses_;
  std::uint64_t last_at_;
  double last_requests_ = 0;
  double last_batches_ = 0;
};

}  // namespace boxo::events
