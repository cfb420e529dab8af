// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "collectors/fd.h"
#include "collectors/result.h"

namespace boxo {

/// Where things are in an ELF file of any class and byte order, as its headers say.
struct ElfImage {
  struct Segment {
    std::uint64_t address, offset, size;
    std::uint64_t memory;  ///< how long it is once loaded: at least `size` in an honest file
    unsigned flags;        ///< PF_…
  };
  struct Section {
    std::uint32_t name;  ///< where its name is in `names`
    std::uint32_t type;  ///< SHT_…
    std::uint64_t address, offset, size;
    std::uint32_t link;  ///< index of another section
  };

  bool wide = false;  ///< 64 bits
  bool big = false;   ///< big-endian
  unsigned kind = 0;  ///< ET_…
  unsigned machine = 0;              ///< EM_…
  std::uint64_t entry = 0;
  std::vector<Segment> loaded;       ///< PT_LOAD
  std::vector<Section> sections;     ///< empty: no section table, or one that cannot be read
  std::string names;

  /// The first section of this name that has contents in the file; nullptr: none.
  const Section* section(std::string_view name) const;
};

/// Reads headers only, each bounded, with pread: a file that shrinks meanwhile gives a shorter answer and no signal. A file
/// that lies about its own sizes gives an Error or an image whose places are not in the file. ENOENT: not an ELF file.
Result<ElfImage> read_elf_image(const Fd& file);

/// At most `size` bytes at `offset`; fewer at the end of the file.
std::string bytes_at(const Fd& file, std::uint64_t offset, std::size_t size);

/// An unsigned number of `size` bytes; 0 beyond the end of the text, which no caller takes for a valid size or address.
std::uint64_t number_at(std::string_view text, std::size_t at, std::size_t size, bool big);

}  // namespace boxo
