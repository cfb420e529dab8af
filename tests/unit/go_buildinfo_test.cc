// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/go_buildinfo.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include "tests/unit/fake_elf.h"
#include "tests/unit/tree.h"

using namespace boxo;
using boxo::test::FakeElf;
using boxo::test::inline_buildinfo;

namespace {

const std::string kLines =
    "path\tgithub.com/me/node/cmd\nmod\tgithub.com/me/node\t(devel)\t\n"
    "dep\tgithub.com/ipfs/boxo/x\tv9.9.9\th1:x=\ndep\tgithub.com/ipfs/boxo\tv0.42.1\th1:abc=\n"
    "=>\tgithub.com/me/boxo\tv0.1.0\th1:d=\nbuild\t-compiler=gc\n";

Result<GoBuildInfo> read(const std::string& bytes) {
  boxo::test::Tree tree{{"program", bytes}};
  return read_go_buildinfo(Fd(::open(tree.path("program").c_str(), O_RDONLY | O_CLOEXEC)));
}

/// The older format: pointers to string headers, all in the one segment.
std::string pointed(const FakeElf& elf, const std::string& version, const std::string& lines) {
  const std::size_t pointer = elf.wide ? 8 : 4;
  const std::string marked = std::string(16, 'B') + lines + std::string(16, 'E');
  const std::uint64_t headers = FakeElf::kAddress + 32;
  const std::uint64_t texts = headers + 4 * pointer;
  std::string out = "\xff Go buildinf:";
  out += static_cast<char>(pointer);
  out += static_cast<char>(elf.big ? 1 : 0);
  out += elf.word(headers) + elf.word(headers + 2 * pointer);
  out.resize(32);
  out +=
      elf.word(texts) + elf.word(version.size()) + elf.word(texts + version.size()) + elf.word(marked.size());
  return out + version + marked;
}

}  // namespace

TEST_CASE("build information in both formats, of every class and byte order, with and without sections") {
  for (const bool big : {false, true}) {
    for (const bool wide : {false, true}) {
      for (const bool section : {false, true}) {
        for (const bool old : {false, true}) {
          INFO("big ", big, " wide ", wide, " section ", section, " old ", old);
          FakeElf elf{big, wide, section, {}};
          elf.data = old ? pointed(elf, "go1.17.2", kLines) : inline_buildinfo("go1.26.1", kLines);
          const auto info = read(elf.bytes());
          REQUIRE(info);
          CHECK(info->go_version == (old ? "go1.17.2" : "go1.26.1"));
          CHECK(info->modules == kLines);
          CHECK(info->path() == "github.com/me/node/cmd");
          CHECK(info->version("github.com/ipfs/boxo") == "v0.42.1");
          CHECK(info->version("github.com/me/node") == "(devel)");
          CHECK_FALSE(info->version("github.com/me/boxo"));
          CHECK_FALSE(info->version("github.com/ipfs"));
          CHECK_FALSE(info->version("github.com/ipfs/kubo"));
        }
      }
    }
  }
}

TEST_CASE("the header is found behind other data, on its alignment only") {
  FakeElf elf;
  elf.section = false;
  elf.data = std::string(8, 'x') + "\xff Go buildinf:" + std::string((1 << 20) - 38, 'y');
  elf.data.resize((1 << 20) - 16);
  elf.data += inline_buildinfo("go1.22.0", "");
  const auto info = read(elf.bytes());
  REQUIRE(info);
  CHECK(info->go_version == "go1.22.0");
  CHECK(info->modules.empty());
  CHECK(info->path().empty());
}

TEST_CASE("what is no Go program") {
  FakeElf elf;
  elf.data = "nothing of the kind";
  for (const std::string& bytes : {std::string(), std::string("#!/bin/sh\n"),
                                   std::string("\x7f"
                                               "ELF"),
                                   elf.bytes()}) {
    const auto info = read(bytes);
    REQUIRE_FALSE(info);
    CHECK(info.error().code == ENOENT);
  }
}

TEST_CASE("a file cut off anywhere, or with any byte changed, is an error or a shorter answer") {
  for (const bool old : {false, true}) {
    FakeElf elf;
    elf.data = old ? pointed(elf, "go1.17.2", kLines) : inline_buildinfo("go1.26.1", kLines);
    const std::string whole = elf.bytes();
    for (std::size_t size = 0; size < whole.size(); size += 7) (void)read(whole.substr(0, size));
    CHECK_FALSE(read(whole.substr(0, FakeElf::kDataAt + 40)));
    for (std::size_t at = 0; at < FakeElf::kDataAt + 80; ++at) {
      std::string changed = whole;
      changed[at] = '\xff';
      (void)read(changed);
    }
    for (std::size_t at = whole.size() - 192; at < whole.size(); ++at) {
      std::string changed = whole;
      changed[at] = '\xff';
      (void)read(changed);
    }
  }
}

TEST_CASE("lengths that lie") {
  std::string head = "\xff Go buildinf:\x08\x02";
  head.resize(32);
  FakeElf elf;
  elf.section = false;
  for (const std::string& length : {test::varint(~std::uint64_t{0}), test::varint(std::uint64_t{1} << 40),
                                    test::varint(100), std::string(20, '\xff')}) {
    elf.data = head + length + "go1.26";
    CHECK_FALSE(read(elf.bytes()));
  }
  elf.data =
      head + test::varint(6) + "go1.26" + test::varint(std::uint64_t{1} << 50);  // only the modules lie
  REQUIRE(read(elf.bytes()));
  CHECK(read(elf.bytes())->modules.empty());
}
