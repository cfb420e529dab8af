// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace boxo::events {

/// Why something that arrived was not counted: the values of the label `reason` of
/// boxo_agent_events_rejected_total. One rejection is one line, except where the comment says otherwise.
enum class Reason : std::uint8_t {
  kEmpty,         ///< a datagram or frame without any line
  kMalformed,     ///< not name:value|type…
  kTooLong,       ///< a line over kMaxLine, or what was cut off a datagram over kMaxPacket (counted once)
  kName,          ///< the name has other characters than it may, or too many
  kUnknownName,   ///< no such name in a built-in namespace
  kType,          ///< no such type
  kTypeChanged,   ///< the name has another type (built in, or by its first line)
  kNameConflict,  ///< another name already has the exported name that this one would get
  kUnsupported,   ///< sets, DogStatsD events and service checks
  kValue,         ///< not a finite number, too large, or negative where that makes no sense
  kRate,          ///< outside [1e-6, 1]
  kTag,           ///< a tag that cannot become a label, or a value that a built-in tag does not have
  kSeriesLimit,   ///< a new series beyond --series
  kCredentials,   ///< a datagram or connection of somebody who may not send (counted once)
  kFrame,         ///< a connection with an impossible frame, closed (counted once)
  kConnections,   ///< a connection beyond the number that is served at once (counted once)
  kCount
};

inline constexpr std::size_t kReasons = static_cast<std::size_t>(Reason::kCount);

constexpr std::string_view name_of(Reason reason) {
  constexpr std::string_view kNames[kReasons] = {
      "empty",        "malformed",     "too_long",    "name",       "unknown_name", "type",
      "type_changed", "name_conflict", "unsupported", "value",      "rate",         "tag",
      "series_limit", "credentials",   "frame",       "connections"};
  return kNames[static_cast<std::size_t>(reason)];
}

}  // namespace boxo::events
