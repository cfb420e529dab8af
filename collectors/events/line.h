// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "collectors/events/reason.h"

namespace boxo::events {

inline constexpr std::size_t kMaxPacket = 65536;  ///< bytes of a datagram or frame
inline constexpr std::size_t kMaxLine = 8192;
inline constexpr std::size_t kMaxName = 128;
inline constexpr std::size_t kMaxTags = 16;
inline constexpr std::size_t kMaxTagKey = 64;
inline constexpr std::size_t kMaxTagValue = 200;

struct Tag {
  std::string_view key;
  std::string_view value;
};

/// The parts of one line, views into it. Tags are sorted by key, each key once, none empty.
struct Line {
  std::string_view name;
  std::string_view values;  ///< "1" or packed "1:2:3", not yet looked at
  char type = 0;            ///< 'c', 'g', 'm' (for ms), 'h' or 'd'
  double rate = 1;
  bool has_timestamp = false;
  std::array<Tag, kMaxTags> tags;
  std::size_t tag_count = 0;

  /// The value of this tag; "" if it is not there.
  std::string_view tag(std::string_view key) const;
};

/// Takes `text` (one line without its newline) apart; the reason if it is no line that can be counted.
/// Allocates nothing.
std::optional<Reason> split(std::string_view text, Line& out);

/// `text` as a label value: bytes that are not UTF-8 and control characters become \xNN.
std::string label_value(std::string_view text);

/// `text` for a log line: everything but printable ASCII becomes \xNN, cut after `max` bytes of it.
std::string printable(std::string_view text, std::size_t max = 200);

}  // namespace boxo::events
