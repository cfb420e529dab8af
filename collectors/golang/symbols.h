// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "collectors/elf_image.h"

namespace boxo::golang {

/// A variable in a program: its address before the program is loaded.
struct Symbol {
  std::uint64_t address = 0;
  std::uint64_t size = 0;
};

/// Where the variables `names` (of at most kLongestName characters) are, by the symbol table of a 64-bit little-endian file.
/// Reads symbols and names piece by piece, so that a program of any size costs the same little memory. ENOENT: there is no
/// symbol table.
inline constexpr std::size_t kLongestName = 64;
Result<std::vector<std::optional<Symbol>>> find_symbols(const Fd& file, const ElfImage& image,
                                                        std::span<const std::string_view> names);

}  // namespace boxo::golang
