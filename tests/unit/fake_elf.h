// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace boxo::test {

inline std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

/// A little ELF file whose one writable segment holds `data`, at file offset kDataAt and address kAddress.
struct FakeElf {
  static constexpr std::uint64_t kAddress = 0x500000;
  static constexpr std::uint64_t kDataAt = 0x200;

  bool big = false;
  bool wide = true;
  bool section = true;  ///< with a section table that names .go.buildinfo
  std::string data{};
  std::string symbols{};  ///< if not empty: of sections .symtab and .strtab
  std::string strings{};
  std::uint64_t machine = 62;

  std::string number(std::uint64_t value, std::size_t size) const {
    std::string out(size, '\0');
    for (std::size_t i = 0; i < size; ++i)
      out[big ? size - 1 - i : i] = static_cast<char>(value >> (8 * i) & 0xff);
    return out;
  }
  std::string word(std::uint64_t value) const { return number(value, wide ? 8 : 4); }

  /// Adds a symbol of 64 bits whose name is already in `strings`. 1: an object.
  void add_symbol(std::uint64_t name, std::uint64_t address, std::uint64_t size, std::uint64_t type = 1, std::uint64_t where = 2) {
    symbols += number(name, 4) + number(type, 1) + number(0, 1) + number(where, 2) + number(address, 8) + number(size, 8);
  }
  /// Adds one with its name.
  void add_symbol(const std::string& name, std::uint64_t address, std::uint64_t size) {
    if (strings.empty()) strings += '\0';
    add_symbol(strings.size(), address, size);
    strings += name + '\0';
  }

  std::string bytes() const {
    const std::size_t header = wide ? 64 : 52;
    const std::size_t program = wide ? 56 : 32;
    const std::size_t entry = wide ? 64 : 40;
    const std::string names = std::string("\0.shstrtab\0.go.buildinfo\0.symtab\0.strtab\0", 41);
    const std::uint64_t names_at = kDataAt + data.size();
    const std::uint64_t symbols_at = names_at + names.size();
    const std::uint64_t strings_at = symbols_at + symbols.size();
    const std::uint64_t sections_at = strings_at + strings.size();

    std::string out =
        "\x7f"
        "ELF";
    out += static_cast<char>(wide ? 2 : 1);
    out += static_cast<char>(big ? 2 : 1);
    out += '\1';
    out.resize(16);
    out += number(2, 2) + number(machine, 2) + number(1, 4) + word(0) + word(header) +
           word(section ? sections_at : 0) + number(0, 4) + number(header, 2) + number(program, 2) +
           number(1, 2) + number(section ? entry : 0, 2) + number(!section ? 0 : symbols.empty() ? 3 : 5, 2) +
           number(section ? 1 : 0, 2);
    if (wide)
      out += number(1, 4) + number(6, 4) + word(kDataAt) + word(kAddress) + word(kAddress) +
             word(data.size()) + word(data.size()) + word(0x1000);
    else
      out += number(1, 4) + word(kDataAt) + word(kAddress) + word(kAddress) + word(data.size()) +
             word(data.size()) + number(6, 4) + word(0x1000);
    out.resize(kDataAt);
    out += data;
    if (!section) return out;
    out += names + symbols + strings;
    const auto add = [&](std::uint64_t name, std::uint64_t type, std::uint64_t address, std::uint64_t offset,
                         std::uint64_t size, std::uint64_t link = 0) {
      out += number(name, 4) + number(type, 4) + word(0) + word(address) + word(offset) + word(size) +
             number(link, 4) + number(0, 4) + word(1) + word(0);
    };
    add(0, 0, 0, 0, 0);
    add(1, 3, 0, names_at, names.size());
    add(11, 1, kAddress, kDataAt, data.size());
    if (symbols.empty()) return out;
    add(25, 2, 0, symbols_at, symbols.size(), 4);
    add(33, 3, 0, strings_at, strings.size());
    return out;
  }
};

/// Go's build information as its linker writes it since 1.18.
inline std::string inline_buildinfo(const std::string& version, const std::string& lines) {
  std::string out = "\xff Go buildinf:\x08\x02";
  out.resize(32);
  const std::string marked = lines.empty() ? "" : std::string(16, 'B') + lines + std::string(16, 'E');
  return out + varint(version.size()) + version + varint(marked.size()) + marked;
}

inline std::string go_program(const std::string& lines) {
  FakeElf elf;
  elf.data = inline_buildinfo("go1.26.1", lines);
  return elf.bytes();
}

}  // namespace boxo::test
