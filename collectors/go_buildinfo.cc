// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/go_buildinfo.h"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace boxo {

namespace {

constexpr std::string_view kMagic = "\xff Go buildinf:";
constexpr std::size_t kAlignment = 16;
constexpr std::size_t kHeader = 32;
constexpr unsigned kBigEndian = 1;
constexpr unsigned kInline = 2;
// A hostile file costs at most these, whatever it claims. kubo has 250 modules in 20 KiB.
constexpr std::size_t kMaxText = std::size_t{1} << 20;
constexpr std::size_t kMaxSections = 4096;
constexpr std::size_t kMaxSegments = 256;
constexpr std::size_t kMaxNames = std::size_t{64} << 10;
constexpr std::size_t kScanAtOnce = std::size_t{1} << 20;
constexpr std::uint64_t kScanWithSections = std::uint64_t{64} << 10;
constexpr std::uint64_t kScanWithout = std::uint64_t{32} << 20;

Error no_buildinfo(const char* why) {
  return Error{std::string("no Go build information: ") + why, {}, ENOENT};
}

/// At most `size` bytes at `offset`; fewer at the end of the file.
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

/// An unsigned number of `size` bytes; 0 beyond the end of the text, which no caller takes for a valid size
/// or address.
std::uint64_t number_at(std::string_view text, std::size_t at, std::size_t size, bool big) {
  if (at > text.size() || size > text.size() - at) return 0;
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t byte = big ? at + i : at + size - 1 - i;
    value = value << 8 | static_cast<unsigned char>(text[byte]);
  }
  return value;
}

struct Segment {
  std::uint64_t address, offset, size;
};

/// Where things are in an ELF file: what is loaded where, and the section or segment that may hold the
/// information.
struct Image {
  bool big = false;
  std::vector<Segment> loaded;
  bool sections = false;           ///< it has a section table
  std::optional<Segment> section;  ///< .go.buildinfo
  std::vector<Segment> data;       ///< the writable segments: a position-independent program has two
};

Result<Image> read_image(const Fd& file) {
  const std::string head = bytes_at(file, 0, sizeof(Elf64_Ehdr));
  if (head.size() < sizeof(Elf32_Ehdr) || std::memcmp(head.data(), ELFMAG, SELFMAG) != 0)
    return no_buildinfo("not an ELF file");
  const bool wide = head[EI_CLASS] == ELFCLASS64;
  if ((!wide && head[EI_CLASS] != ELFCLASS32) || (wide && head.size() < sizeof(Elf64_Ehdr)) ||
      (head[EI_DATA] != ELFDATA2LSB && head[EI_DATA] != ELFDATA2MSB))
    return no_buildinfo("an ELF header of no known kind");
  Image image;
  image.big = head[EI_DATA] == ELFDATA2MSB;
  const auto field = [&](std::string_view text, std::size_t narrow_at, std::size_t narrow_size,
                         std::size_t wide_at, std::size_t wide_size) {
    return number_at(text, wide ? wide_at : narrow_at, wide ? wide_size : narrow_size, image.big);
  };
#define BOXO_ELF(text, type, name)                                                                    \
  field(text, offsetof(Elf32_##type, name), sizeof(Elf32_##type::name), offsetof(Elf64_##type, name), \
        sizeof(Elf64_##type::name))
  // Segments.
  const std::size_t program_size = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
  const std::size_t segments = std::min<std::size_t>(BOXO_ELF(head, Ehdr, e_phnum), kMaxSegments);
  if (segments > 0 && BOXO_ELF(head, Ehdr, e_phentsize) != program_size)
    return no_buildinfo("odd program headers");
  const std::string programs = bytes_at(file, BOXO_ELF(head, Ehdr, e_phoff), segments * program_size);
  for (std::size_t at = 0; at + program_size <= programs.size(); at += program_size) {
    const std::string_view one = std::string_view(programs).substr(at, program_size);
    if (BOXO_ELF(one, Phdr, p_type) != PT_LOAD) continue;
    const Segment segment{BOXO_ELF(one, Phdr, p_vaddr), BOXO_ELF(one, Phdr, p_offset),
                          BOXO_ELF(one, Phdr, p_filesz)};
    image.loaded.push_back(segment);
    if ((BOXO_ELF(one, Phdr, p_flags) & (PF_X | PF_W)) == PF_W) image.data.push_back(segment);
  }
  // Sections.
  const std::size_t section_size = wide ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
  const std::size_t count = std::min<std::size_t>(BOXO_ELF(head, Ehdr, e_shnum), kMaxSections);
  if (count == 0 || BOXO_ELF(head, Ehdr, e_shentsize) != section_size) return image;
  const std::string sections = bytes_at(file, BOXO_ELF(head, Ehdr, e_shoff), count * section_size);
  const std::size_t names_at = BOXO_ELF(head, Ehdr, e_shstrndx) * section_size;
  if (names_at + section_size > sections.size()) return image;
  const std::string_view table = std::string_view(sections).substr(names_at, section_size);
  const std::string names = bytes_at(file, BOXO_ELF(table, Shdr, sh_offset),
                                     std::min<std::uint64_t>(BOXO_ELF(table, Shdr, sh_size), kMaxNames));
  image.sections = true;
  constexpr std::string_view kName = ".go.buildinfo";
  for (std::size_t at = 0; at + section_size <= sections.size(); at += section_size) {
    const std::string_view one = std::string_view(sections).substr(at, section_size);
    const std::uint64_t name = BOXO_ELF(one, Shdr, sh_name);
    if (name >= names.size() || std::strncmp(names.c_str() + name, kName.data(), kName.size() + 1) != 0)
      continue;
    if (BOXO_ELF(one, Shdr, sh_type) == SHT_NOBITS) continue;
    image.section =
        Segment{BOXO_ELF(one, Shdr, sh_addr), BOXO_ELF(one, Shdr, sh_offset), BOXO_ELF(one, Shdr, sh_size)};
    break;
  }
#undef BOXO_ELF
  return image;
}

/// Where in the file the header begins, looking at the first `most` bytes of a part of it.
std::optional<std::uint64_t> find_magic(const Fd& file, const Segment& where, std::uint64_t most) {
  const std::uint64_t end = std::min(where.size, most);
  // Parts overlap by one header's length, so that none is cut by their border.
  for (std::uint64_t from = 0; from < end; from += kScanAtOnce - kHeader) {
    const std::string text =
        bytes_at(file, where.offset + from, std::min<std::uint64_t>(end - from, kScanAtOnce));
    for (std::size_t at = 0; (at = text.find(kMagic, at)) != std::string::npos; ++at)
      if ((where.address + from + at) % kAlignment == 0) return where.offset + from + at;
    if (text.size() < kScanAtOnce) break;
  }
  return {};
}

/// A string of the inline format: its length as a varint, then its bytes. Moves `at` behind it.
std::optional<std::string> inline_string(const Fd& file, std::uint64_t& at) {
  const std::string head = bytes_at(file, at, 10);
  std::uint64_t length = 0;
  std::size_t used = 0;
  for (;; ++used) {
    if (used == head.size()) return {};
    const auto byte = static_cast<unsigned char>(head[used]);
    if (used == 9 && byte > 1) return {};  // more than 64 bits
    length |= static_cast<std::uint64_t>(byte & 0x7f) << (7 * used);
    if (byte < 0x80) break;
  }
  if (length > kMaxText) return {};
  std::string out = bytes_at(file, at + used + 1, length);
  if (out.size() != length) return {};
  at += used + 1 + length;
  return out;
}

std::string at_address(const Fd& file, const Image& image, std::uint64_t address, std::size_t size) {
  for (const Segment& one : image.loaded)
    if (address >= one.address && address - one.address < one.size)
      return bytes_at(file, one.offset + (address - one.address),
                      std::min<std::uint64_t>(size, one.size - (address - one.address)));
  return {};
}

/// A string of the older format: the address of Go's own string header, which is a pointer and a length.
std::optional<std::string> pointed_string(const Fd& file, const Image& image, std::uint64_t header,
                                          std::size_t pointer, bool big) {
  const std::string words = at_address(file, image, header, 2 * pointer);
  if (words.size() != 2 * pointer) return {};
  const std::uint64_t length = number_at(words, pointer, pointer, big);
  if (length > kMaxText) return {};
  std::string out = at_address(file, image, number_at(words, 0, pointer, big), length);
  if (out.size() != length) return {};
  return out;
}

/// The module lines stand between two marks of 16 bytes, so that they can be found in memory.
std::string without_marks(const std::string& text) {
  constexpr std::size_t kMark = 16;
  if (text.size() < 2 * kMark + 1 || text[text.size() - kMark - 1] != '\n') return {};
  return text.substr(kMark, text.size() - 2 * kMark);
}

/// Visits line after line until the visitor has enough (returns false).
template <class Visit>
void for_lines(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (!visit(text.substr(0, end))) return;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

Result<GoBuildInfo> read_go_buildinfo(const Fd& executable) {
  auto image = read_image(executable);
  if (!image) return image.error();
  std::optional<std::uint64_t> where;
  if (image->section) where = find_magic(executable, *image->section, kScanAtOnce);
  // It is in the writable data, usually at its start; where section headers were stripped off it may be
  // further on.
  std::uint64_t left = image->sections ? kScanWithSections : kScanWithout;
  for (const Segment& data : image->data) {
    if (where) break;
    where = find_magic(executable, data, left);
    left -= std::min(left, data.size);
  }
  if (!where) return no_buildinfo("no such section");

  const std::string head = bytes_at(executable, *where, kHeader);
  if (head.size() != kHeader) return no_buildinfo("cut off");
  const auto pointer = static_cast<std::size_t>(static_cast<unsigned char>(head[kMagic.size()]));
  const auto flags = static_cast<unsigned>(static_cast<unsigned char>(head[kMagic.size() + 1]));
  std::optional<std::string> version;
  std::optional<std::string> modules;
  if ((flags & kInline) != 0) {
    std::uint64_t at = *where + kHeader;
    version = inline_string(executable, at);
    if (version) modules = inline_string(executable, at);
  } else {
    if (pointer != 4 && pointer != 8) return no_buildinfo("odd pointers");
    const bool big = (flags & kBigEndian) != 0;
    const auto string = [&](std::size_t index) {
      const std::uint64_t header = number_at(head, kAlignment + index * pointer, pointer, big);
      return pointed_string(executable, *image, header, pointer, big);
    };
    version = string(0);
    modules = string(1);
  }
  if (!version || version->empty()) return no_buildinfo("cut off or too long");
  return GoBuildInfo{*std::move(version), without_marks(modules.value_or(""))};
}

std::string_view GoBuildInfo::path() const {
  constexpr std::string_view kPath = "path\t";
  std::string_view found;
  for_lines(modules, [&](std::string_view line) {
    if (!line.starts_with(kPath)) return true;
    found = line.substr(kPath.size());
    return false;
  });
  return found;
}

std::optional<std::string_view> GoBuildInfo::version(std::string_view module) const {
  std::optional<std::string_view> found;
  for_lines(modules, [&](std::string_view line) {
    if (!line.starts_with("dep\t") && !line.starts_with("mod\t")) return true;
    line.remove_prefix(4);
    if (!line.starts_with(module)) return true;
    line.remove_prefix(module.size());
    if (!line.empty() && line.front() != '\t') return true;
    if (!line.empty()) line.remove_prefix(1);
    found = line.substr(0, line.find('\t'));
    return false;
  });
  return found;
}

}  // namespace boxo
