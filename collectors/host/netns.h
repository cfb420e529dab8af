// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace boxo::host {

struct InterfaceCounts {
  static constexpr std::size_t kEach = 4;        ///< bytes, packets, errors, drops
  std::array<std::uint64_t, 2 * kEach> values{};  ///< received, then sent
};

/// The interfaces in the text of /proc/PID/net/dev; lines that are not of this form are left out.
std::vector<std::pair<std::string, InterfaceCounts>> parse_interfaces(std::string_view net_dev);

/// One number out of the text of net/snmp or net/netstat, where a line of names is followed by one of values:
/// protocol_counter(text, "Udp:", "RcvbufErrors").
std::optional<std::uint64_t> protocol_counter(std::string_view text, std::string_view group, std::string_view name);

}  // namespace boxo::host
