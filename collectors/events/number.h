// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <system_error>

namespace boxo::events {

/// A decimal number at the start of a text.
struct Number {
  double value = 0;           ///< finite, correctly rounded, sign included
  bool is_signed = false;     ///< written with '+' or '-'
  const char* end = nullptr;  ///< the first byte after it; nullptr if there is no number
};

/// Parses `[+-]digits[.digits][e[+-]digits]` at the start of [p, end). Reads nothing beyond `end`; words such
/// as "inf" and "nan" are no numbers, neither is what a double cannot hold.
inline Number parse_number(const char* p, const char* const end) {
  static constexpr std::array<double, 20> kPowers = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,
                                                     1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13,
                                                     1e14, 1e15, 1e16, 1e17, 1e18, 1e19};
  Number out;
  bool negative = false;
  if (p < end && (*p == '-' || *p == '+')) {
    out.is_signed = true;
    negative = *p == '-';
    ++p;
  }
  // Up to 19 digits fit into 64 bits; a quotient of two integers that doubles hold exactly is correctly
  // rounded, so that short numbers (nearly all) need no general conversion.
  const char* q = p;
  std::uint64_t mantissa = 0;
  while (q < end && static_cast<unsigned char>(*q - '0') < 10)
    mantissa = mantissa * 10 + static_cast<unsigned char>(*q++ - '0');
  std::int64_t digits = q - p;
  std::int64_t fraction = 0;
  if (q < end && *q == '.') {
    const char* const dot = ++q;
    while (q < end && static_cast<unsigned char>(*q - '0') < 10)
      mantissa = mantissa * 10 + static_cast<unsigned char>(*q++ - '0');
    fraction = q - dot;
    digits += fraction;
  }
  if (digits == 0) return out;
  if (digits <= 19 && mantissa <= (std::uint64_t{1} << 53) && (q == end || (*q | 0x20) != 'e')) {
    const double value = static_cast<double>(mantissa) / kPowers[static_cast<std::size_t>(fraction)];
    out.value = negative ? -value : value;
    out.end = q;
    return out;
  }
  double value = 0;
  const auto [rest, error] = std::from_chars(p, end, value);
  if (error != std::errc{}) return out;
  out.value = negative ? -value : value;
  out.end = rest;
  return out;
}

}  // namespace boxo::events
