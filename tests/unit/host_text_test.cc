// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include "collectors/host/text.h"

using namespace boxo::host;

TEST_CASE("host text: only a whole number that fits is a number") {
  CHECK(to_number("0") == 0);
  CHECK(to_number(" 18446744073709551615\n") == UINT64_MAX);
  CHECK(to_number("0100007F", 16) == 0x0100007F);
  for (const char* bad : {"", " ", "-1", "+1", "1.5", "12x", "18446744073709551616", "1 2", "max"})
    CHECK_FALSE(to_number(bad).has_value());
}

TEST_CASE("host text: lines and words are taken off the front") {
  std::string_view text = "a  b\t7\n\nlast";
  std::string_view line = next_line(text);
  CHECK(next_word(line) == "a");
  CHECK(next_word(line) == "b");
  CHECK(next_word(line) == "7");
  CHECK(next_word(line).empty());
  CHECK(next_line(text).empty());
  CHECK(next_line(text) == "last");
  CHECK(text.empty());
  CHECK(next_line(text).empty());
}

TEST_CASE("host text: a key counts at the start of a line only") {
  // A process may be called "x\nVmRSS: 1"; the kernel escapes the newline, so it never starts a line.
  constexpr std::string_view kStatus =
      "Name:\tx\\nVmRSS: 1\nVmRSS:\t  2048 kB\nnonvoluntary_ctxt_switches:\t3\nbad:\tx\n";
  CHECK(number_of(kStatus, "VmRSS:") == 2048);
  CHECK_FALSE(number_of(kStatus, "voluntary_ctxt_switches:").has_value());
  CHECK(number_of(kStatus, "nonvoluntary_ctxt_switches:") == 3);
  CHECK_FALSE(number_of(kStatus, "bad:").has_value());
  CHECK_FALSE(number_of(kStatus, "none:").has_value());
  CHECK(number_of("end: 5", "end:") == 5);
}
