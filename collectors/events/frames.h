// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

#include "collectors/events/line.h"

namespace boxo::events {

/// What cut_frames() found at the end of the bytes.
struct FrameEnd {
  bool possible = true;  ///< false: what follows cannot be a frame
  std::size_t size = 0;  ///< of the impossible frame
};

/// Calls `use` with each whole frame (4 bytes of little-endian length, then that many bytes) at the start of
/// `bytes` and removes it; what is left is the beginning of a frame whose end is still to come.
template <class Use>
FrameEnd cut_frames(std::string_view& bytes, Use use) {
  constexpr std::size_t kHead = 4;
  while (bytes.size() >= kHead) {
    std::size_t size = 0;
    for (std::size_t i = kHead; i-- > 0;) size = size << 8 | static_cast<unsigned char>(bytes[i]);
    if (size > kMaxPacket) return {false, size};
    if (bytes.size() - kHead < size) break;
    use(bytes.substr(kHead, size));
    bytes.remove_prefix(kHead + size);
  }
  return {};
}

}  // namespace boxo::events
