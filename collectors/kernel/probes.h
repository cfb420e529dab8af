// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace boxo::kernel {

/// A compiled bpf/NAME.bpf.c that the program carries.
struct EmbeddedProbe {
  std::string_view name;
  const unsigned char* data;
  std::size_t size;
};

/// All of them, in the order of bpf/meson.build. Generated.
std::span<const EmbeddedProbe> embedded_probes();

}  // namespace boxo::kernel
