// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace boxo::bench {

/// What a receiver did.
struct Received {
  std::uint64_t lines = 0;  ///< 0 for one that does not look
  std::uint64_t bytes = 0;
  double cpu_seconds = 0;  ///< of the receiving thread
};

/// Receives with recvmmsg until a datagram "end" and throws everything away: the floor.
Received drain(int socket);

/// The bare reference: recvmmsg, memchr, from_chars, a hash table; counters, gauges and histograms of powers
/// of two. No limits, no checks, no percentiles, no accounting, no export.
Received reference(int socket);

}  // namespace boxo::bench
