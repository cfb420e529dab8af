// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "collectors/events/builtin.h"
#include "collectors/events/cells.h"
#include "collectors/events/clients.h"
#include "collectors/events/custom.h"
#include "collectors/events/reason.h"

namespace boxo::events {

struct TimingReading {
  Tally tally;
  bool seen = false;
  std::uint64_t last = 0;       ///< when the last sample came
  std::vector<double> values;   ///< the window, in no order
  std::vector<double> weights;  ///< empty, or of each value
};

struct PeerReading {
  std::string name;
  Cell sent, received, errors;
  std::optional<double> latency_ms, bandwidth;  ///< means of the windows
};

struct CustomReading {
  const CustomFamily* family;  ///< metric and type may be read
  const CustomSeries* series;  ///< labels may be read
  Cell cell;
  std::size_t tally;  ///< of samples: the index in Reading::tallies
};

/// Everything the Ledger counted up to one moment: a copy, handed to the thread that publishes it and filled
/// again in place at the next tick.
struct Reading {
  std::uint64_t at = 0;         ///< nanoseconds since boot
  std::uint64_t forgotten = 0;  ///< gauges, means, shares and rates of before are void
  std::uint64_t received = 0;
  std::array<std::uint64_t, kReasons> rejected{};
  std::vector<Loss> losses;
  std::array<Cell, kCounts> counts;
  std::array<Cell, kLevels> levels;
  std::array<TimingReading, kTimings> timings;
  std::vector<PeerReading> peers;
  std::vector<CustomReading> custom;
  std::vector<Tally> tallies;
  struct Dropped {
    const Metric* family;  ///< nullptr: names that were new
    std::uint64_t lines;
  };
  std::vector<Dropped> dropped;
  /// Whether something whose last sample came then is still to be shown, if it is no counter.
  bool is_fresh(std::uint64_t last) const { return last >= forgotten && last + kSampleSilence >= at; }

  std::string last_refused;  ///< the last bad line since the reading before, printable; "" if there was none
  // Of the server.
  std::uint64_t queued_bytes = 0;
  std::uint64_t queue_peak = 0;
  std::uint64_t accept_failures = 0;
  double cpu_seconds = 0;
};

}  // namespace boxo::events
