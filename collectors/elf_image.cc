// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/elf_image.h"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace boxo {

namespace {

// A hostile file costs at most these, whatever it claims.
constexpr std::size_t kMaxSections = 4096;
constexpr std::size_t kMaxSegments = 256;
constexpr std::size_t kMaxNames = std::size_t{64} << 10;

Error not_elf(const char* why) { return Error{why, {}, ENOENT}; }

}  // namespace

std::string bytes_at(const Fd& file, std::uint64_t offset, std::size_t size) {
  std::string out(size, '\0');
  std::size_t used = 0;
  while (used < size) {
    if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max()) - used) break;
    const ssize_t n = ::pread(file.get(), out.data() + used, size - used, static_cast<off_t>(offset + used));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    used += static_cast<std::size_t>(n);
  }
  out.resize(used);
  return out;
}

std::uint64_t number_at(std::string_view text, std::size_t at, std::size_t size, bool big) {
  if (at > text.size() || size > text.size() - at) return 0;
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t byte = big ? at + i : at + size - 1 - i;
    value = value << 8 | static_cast<unsigned char>(text[byte]);
  }
  return value;
}

const ElfImage::Section* ElfImage::section(std::string_view name) const {
  for (const Section& one : sections) {
    if (one.type == SHT_NOBITS || one.name >= names.size()) continue;
    const std::string_view rest = std::string_view(names).substr(one.name);
    if (rest.substr(0, rest.find('\0')) == name) return &one;
  }
  return nullptr;
}

Result<ElfImage> read_elf_image(const Fd& file) {
  const std::string head = bytes_at(file, 0, sizeof(Elf64_Ehdr));
  if (head.size() < sizeof(Elf32_Ehdr) || std::memcmp(head.data(), ELFMAG, SELFMAG) != 0) return not_elf("not an ELF file");
  const bool wide = head[EI_CLASS] == ELFCLASS64;
  if ((!wide && head[EI_CLASS] != ELFCLASS32) || (wide && head.size() < sizeof(Elf64_Ehdr)) ||
      (head[EI_DATA] != ELFDATA2LSB && head[EI_DATA] != ELFDATA2MSB))
    return not_elf("an ELF header of no known kind");
  ElfImage image;
  image.wide = wide;
  image.big = head[EI_DATA] == ELFDATA2MSB;
  const auto field = [&](std::string_view text, std::size_t narrow_at, std::size_t narrow_size,
                         std::size_t wide_at, std::size_t wide_size) {
    return number_at(text, wide ? wide_at : narrow_at, wide ? wide_size : narrow_size, image.big);
  };
#define BOXO_ELF(text, type, name)                                                                    \
  field(text, offsetof(Elf32_##type, name), sizeof(Elf32_##type::name), offsetof(Elf64_##type, name), \
        sizeof(Elf64_##type::name))
  image.kind = static_cast<unsigned>(BOXO_ELF(head, Ehdr, e_type));
  image.machine = static_cast<unsigned>(BOXO_ELF(head, Ehdr, e_machine));
  image.entry = BOXO_ELF(head, Ehdr, e_entry);
  // Segments.
  const std::size_t program_size = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
  const std::size_t segments = std::min<std::size_t>(BOXO_ELF(head, Ehdr, e_phnum), kMaxSegments);
  if (segments > 0 && BOXO_ELF(head, Ehdr, e_phentsize) != program_size) return not_elf("odd program headers");
  const std::string programs = bytes_at(file, BOXO_ELF(head, Ehdr, e_phoff), segments * program_size);
  for (std::size_t at = 0; at + program_size <= programs.size(); at += program_size) {
    const std::string_view one = std::string_view(programs).substr(at, program_size);
    if (BOXO_ELF(one, Phdr, p_type) != PT_LOAD) continue;
    image.loaded.push_back({BOXO_ELF(one, Phdr, p_vaddr), BOXO_ELF(one, Phdr, p_offset), BOXO_ELF(one, Phdr, p_filesz),
                            BOXO_ELF(one, Phdr, p_memsz), static_cast<unsigned>(BOXO_ELF(one, Phdr, p_flags))});
  }
  // Sections.
  const std::size_t section_size = wide ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
  const std::size_t count = std::min<std::size_t>(BOXO_ELF(head, Ehdr, e_shnum), kMaxSections);
  if (count == 0 || BOXO_ELF(head, Ehdr, e_shentsize) != section_size) return image;
  const std::string sections = bytes_at(file, BOXO_ELF(head, Ehdr, e_shoff), count * section_size);
  const std::size_t names_at = BOXO_ELF(head, Ehdr, e_shstrndx) * section_size;
  if (names_at + section_size > sections.size()) return image;
  const std::string_view table = std::string_view(sections).substr(names_at, section_size);
  image.names = bytes_at(file, BOXO_ELF(table, Shdr, sh_offset),
                         std::min<std::uint64_t>(BOXO_ELF(table, Shdr, sh_size), kMaxNames));
  for (std::size_t at = 0; at + section_size <= sections.size(); at += section_size) {
    const std::string_view one = std::string_view(sections).substr(at, section_size);
    image.sections.push_back({static_cast<std::uint32_t>(BOXO_ELF(one, Shdr, sh_name)),
                              static_cast<std::uint32_t>(BOXO_ELF(one, Shdr, sh_type)), BOXO_ELF(one, Shdr, sh_addr),
                              BOXO_ELF(one, Shdr, sh_offset), BOXO_ELF(one, Shdr, sh_size),
                              static_cast<std::uint32_t>(BOXO_ELF(one, Shdr, sh_link))});
  }
#undef BOXO_ELF
  return image;
}

}  // namespace boxo
