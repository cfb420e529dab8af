// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/go_buildinfo.h"

#include <elf.h>

#include <algorithm>
#include <cstdint>

#include "collectors/elf_image.h"

namespace boxo {

namespace {

constexpr std::string_view kMagic = "\xff Go buildinf:";
constexpr std::size_t kAlignment = 16;
constexpr std::size_t kHeader = 32;
constexpr unsigned kBigEndian = 1;
constexpr unsigned kInline = 2;
// A hostile file costs at most these, whatever it claims. kubo has 250 modules in 20 KiB.
constexpr std::size_t kMaxText = std::size_t{1} << 20;
constexpr std::size_t kScanAtOnce = std::size_t{1} << 20;
constexpr std::uint64_t kScanWithSections = std::uint64_t{64} << 10;
constexpr std::uint64_t kScanWithout = std::uint64_t{32} << 20;

Error no_buildinfo(const std::string& why) { return Error{"no Go build information: " + why, {}, ENOENT}; }

/// Where in the file the header begins, looking at the first `most` bytes of a part of it.
template <class Part>
std::optional<std::uint64_t> find_magic(const Fd& file, const Part& where, std::uint64_t most) {
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

std::string at_address(const Fd& file, const ElfImage& image, std::uint64_t address, std::size_t size) {
  for (const ElfImage::Segment& one : image.loaded)
    if (address >= one.address && address - one.address < one.size)
      return bytes_at(file, one.offset + (address - one.address),
                      std::min<std::uint64_t>(size, one.size - (address - one.address)));
  return {};
}

/// A string of the older format: the address of Go's own string header, which is a pointer and a length.
std::optional<std::string> pointed_string(const Fd& file, const ElfImage& image, std::uint64_t header,
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
  const auto image = read_elf_image(executable);
  if (!image) return no_buildinfo(image.error().message);
  std::optional<std::uint64_t> where;
  if (const auto* const section = image->section(".go.buildinfo"); section != nullptr)
    where = find_magic(executable, *section, kScanAtOnce);
  // It is in the writable data, of which a position-independent program has two segments, usually at its start; where
  // section headers were stripped off it may be further on.
  std::uint64_t left = image->sections.empty() ? kScanWithout : kScanWithSections;
  for (const ElfImage::Segment& data : image->loaded) {
    if (where) break;
    if ((data.flags & (PF_X | PF_W)) != PF_W) continue;
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
