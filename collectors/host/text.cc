// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/text.h"

#include <charconv>

namespace boxo::host {

namespace {

constexpr std::string_view kBlanks = " \t\r\n";

}  // namespace

std::optional<std::uint64_t> to_number(std::string_view text, int base) {
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return std::nullopt;
  text = text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::string_view next_line(std::string_view& rest) {
  const std::size_t end = rest.find('\n');
  const std::string_view line = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return line;
}

std::string_view next_word(std::string_view& rest) {
  const std::size_t first = rest.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) {
    rest = {};
    return {};
  }
  rest.remove_prefix(first);
  const std::size_t end = rest.find_first_of(kBlanks);
  const std::string_view word = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end);
  return word;
}

std::optional<std::string_view> value_of(std::string_view text, std::string_view key) {
  for (std::size_t at = 0; (at = text.find(key, at)) != std::string_view::npos; at += key.size()) {
    if (at != 0 && text[at - 1] != '\n') continue;
    text.remove_prefix(at + key.size());
    return next_line(text);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> number_of(std::string_view text, std::string_view key) {
  auto value = value_of(text, key);
  if (!value) return std::nullopt;
  return to_number(next_word(*value));
}

std::string printable(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  return out;
}

}  // namespace boxo::host
