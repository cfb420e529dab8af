// SPDX-License-Identifier: MIT OR Apache-2.0
#include "bpf/slot.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>

/// As bpf/metric.h defines it, edge by edge.
static std::uint32_t defined(std::uint64_t value, std::uint32_t base) {
  for (std::uint32_t i = 0; i < HIST_EDGES; ++i)
    if (value <= std::uint64_t{base} << i) return i;
  return HIST_EDGES;
}

TEST_CASE("a value falls into the first slot whose upper edge it does not exceed") {
  for (const std::uint32_t base : {1U, 512U, 999U, 1000U, 1024U, 1'000'000U, 0xffffffffU}) {
    CAPTURE(base);
    for (const std::uint64_t value : {std::uint64_t{0}, UINT64_MAX, UINT64_MAX >> 1}) CHECK(hist_slot(value, base) == defined(value, base));
    for (int i = 0; i < 32; ++i)
      for (int off = -2; off <= 2; ++off)
        for (const std::uint64_t edge : {std::uint64_t{base} << i, std::uint64_t{1} << i, std::uint64_t{1} << (i + 31)}) {
          const std::uint64_t value = edge + static_cast<std::uint64_t>(off);
          CAPTURE(value);
          CHECK(hist_slot(value, base) == defined(value, base));
        }
  }
}
