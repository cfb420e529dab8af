// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/golang/symbols.h"

#include <elf.h>

#include <algorithm>
#include <cerrno>

namespace boxo::golang {

namespace {

// kubo has 315,000 symbols with 9 MiB of names.
constexpr std::uint64_t kMost = std::uint64_t{128} << 20;
constexpr std::size_t kAtOnce = std::size_t{64} << 10;
constexpr std::size_t kMostPlaces = 256;

/// Where one of the names stands in the string table.
struct Place {
  std::uint64_t offset;
  std::size_t name;
};

/// A name may be the end of a longer one (linkers share them), so that it can stand in several places.
std::vector<Place> find_names(const Fd& file, const ElfImage::Section& strings, std::span<const std::string_view> names) {
  std::vector<Place> places;
  std::string buffer;  // begins with the end of the part before
  std::uint64_t from = 0;
  while (from < strings.size) {
    const std::size_t old = buffer.size();
    buffer += bytes_at(file, strings.offset + from, std::min<std::uint64_t>(kAtOnce, strings.size - from));
    if (buffer.size() == old) break;
    const std::string_view text = buffer;
    for (std::size_t at = old; (at = text.find('\0', at)) != std::string_view::npos; ++at) {
      const std::string_view before = text.substr(0, at);
      for (std::size_t i = 0; i < names.size(); ++i)
        if (before.ends_with(names[i]) && places.size() < kMostPlaces)
          places.push_back({from + at - old - names[i].size(), i});
    }
    from += buffer.size() - old;
    buffer.erase(0, buffer.size() - std::min(buffer.size(), kLongestName));
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.offset < b.offset; });
  return places;
}

}  // namespace

Result<std::vector<std::optional<Symbol>>> find_symbols(const Fd& file, const ElfImage& image,
                                                        std::span<const std::string_view> names) {
  const auto table = std::find_if(image.sections.begin(), image.sections.end(),
                                  [](const ElfImage::Section& one) { return one.type == SHT_SYMTAB; });
  if (table == image.sections.end()) return Error{"stripped: no symbol table", "build it without -ldflags=-s", ENOENT};
  if (table->link >= image.sections.size()) return Error{"its symbol table has no names", {}, EINVAL};
  const ElfImage::Section& strings = image.sections[table->link];
  if (table->size > kMost || strings.size > kMost) return Error{"its symbol table is too large", {}, EFBIG};

  const std::vector<Place> places = find_names(file, strings, names);
  std::vector<std::optional<Symbol>> found(names.size());
  std::size_t missing = names.size();
  constexpr std::size_t kEntry = sizeof(Elf64_Sym);
  constexpr std::size_t kPart = kAtOnce / kEntry * kEntry;
  for (std::uint64_t from = 0; from < table->size && missing > 0; from += kPart) {
    const std::string part = bytes_at(file, table->offset + from, std::min<std::uint64_t>(kPart, table->size - from));
    for (std::size_t at = 0; at + kEntry <= part.size(); at += kEntry) {
      const std::string_view one = std::string_view(part).substr(at, kEntry);
      const auto field = [&](std::size_t offset, std::size_t size) { return number_at(one, offset, size, false); };
      const std::uint64_t name = field(offsetof(Elf64_Sym, st_name), 4);
      const auto place = std::lower_bound(places.begin(), places.end(), name,
                                          [](const Place& p, std::uint64_t offset) { return p.offset < offset; });
      if (place == places.end() || place->offset != name || found[place->name]) continue;
      if (ELF64_ST_TYPE(field(offsetof(Elf64_Sym, st_info), 1)) != STT_OBJECT ||
          field(offsetof(Elf64_Sym, st_shndx), 2) == SHN_UNDEF)
        continue;
      found[place->name] = Symbol{field(offsetof(Elf64_Sym, st_value), 8), field(offsetof(Elf64_Sym, st_size), 8)};
      --missing;
    }
    if (part.size() < kPart) break;
  }
  return found;
}

}  // namespace boxo::golang
