// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/proc_stat.h"

#include <array>
#include <charconv>
#include <system_error>

namespace boxo {

namespace {

constexpr std::uint64_t kPfKthread = 0x00200000;

template <class Number>
bool number(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::optional<ProcStat> parse_proc_stat(std::string_view text) {
  // Only the last parenthesis is the kernel's: the name before it may hold any others.
  const std::size_t open = text.find('(');
  const std::size_t close = text.rfind(')');
  if (open == std::string_view::npos || open < 2 || close == std::string_view::npos || close < open)
    return {};

  ProcStat out;
  if (!number(text.substr(0, open - 1), out.pid) || out.pid <= 0) return {};
  out.comm = text.substr(open + 1, close - open - 1);

  // fields[0] is field 3 of proc(5), the state.
  std::array<std::string_view, 20> fields;
  std::size_t at = close + 1;
  for (std::string_view& field : fields) {
    if (at >= text.size() || text[at] != ' ') return {};
    ++at;
    const std::size_t end = text.find_first_of(" \n", at);
    field = text.substr(at, end == std::string_view::npos ? end : end - at);
    at += field.size();
  }
  std::uint64_t flags = 0;
  if (fields[0].size() != 1 || !number(fields[1], out.parent) || !number(fields[6], flags) ||
      !number(fields[17], out.threads) || !number(fields[19], out.start_ticks))
    return {};
  out.state = fields[0][0];
  out.kernel_thread = (flags & kPfKthread) != 0;
  return out;
}

}  // namespace boxo
