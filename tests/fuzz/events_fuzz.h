// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "tests/fuzz/reference.h"

namespace boxo::fuzz {

inline constexpr std::size_t kHistory = 100;

/// Room for every series, so that the reference needs no limits.
inline EventOptions roomy() {
  EventOptions options;
  options.history = kHistory;
  options.peers = 3;
  options.series = 1'000'000;
  return options;
}

/// Hands `bytes` over in memory of exactly their size: a read beyond them is noticed.
inline void count(events::Ledger& ledger, std::string_view bytes, bool cut = false) {
  const auto exact = std::make_unique<char[]>(bytes.size());
  std::memcpy(exact.get(), bytes.data(), bytes.size());
  ledger.packet({exact.get(), bytes.size()}, 1'000'000'000, cut);
}

/// A ledger that lives as long as the program and counts everything: it must not grow without end.
inline void count_for_ever(std::string_view bytes) {
  static events::Ledger ledger{[] {
    EventOptions options;
    options.history = kHistory;
    options.series = 100;
    return options;
  }()};
  static std::uint64_t now = 1;
  now += 1'000'000'000;
  ledger.packet(bytes, now);
  if (now % 64'000'000'000 < 1'000'000'000) {
    events::Reading reading;
    ledger.read(reading, now);
  }
}

}  // namespace boxo::fuzz
