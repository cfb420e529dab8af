// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/windows.h"

#include <charconv>

namespace boxo::kernel {

std::optional<double> share_of(std::string_view option) {
  const std::size_t colon = option.find(':');
  if (colon == std::string_view::npos) return 1;
  option.remove_prefix(colon + 1);
  if (!option.ends_with('%')) return std::nullopt;
  option.remove_suffix(1);
  double percent = 0;
  const auto [end, error] = std::from_chars(option.data(), option.data() + option.size(), percent);
  if (error != std::errc{} || end != option.data() + option.size()) return std::nullopt;
  if (!(percent > 0 && percent <= 100)) return std::nullopt;
  return percent / 100;
}

}  // namespace boxo::kernel
