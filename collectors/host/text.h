// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace boxo::host {

/// The number that `text` is, blanks at both ends aside; nothing if it is anything else or does not fit.
std::optional<std::uint64_t> to_number(std::string_view text, int base = 10);
/// The next line of `rest` without its end, taken off `rest`; empty once nothing is left.
std::string_view next_line(std::string_view& rest);
/// The next word of `rest` (blanks around it aside), taken off `rest`; empty once nothing is left.
std::string_view next_word(std::string_view& rest);
/// What follows `key` at the start of a line, up to the line's end: value_of(text, "State:").
std::optional<std::string_view> value_of(std::string_view text, std::string_view key);
/// The number that is the first word after `key`: number_of("VmRSS:    12 kB\n", "VmRSS:") is 12.
std::optional<std::uint64_t> number_of(std::string_view text, std::string_view key);
/// `text` for a person's terminal: what is not printable ASCII becomes '?'.
std::string printable(std::string_view text);

}  // namespace boxo::host
