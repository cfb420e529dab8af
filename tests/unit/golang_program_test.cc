// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/golang/program.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include "collectors/golang/symbols.h"
#include "tests/unit/fake_elf.h"
#include "tests/unit/tree.h"

using namespace boxo;
using namespace boxo::golang;
using boxo::test::FakeElf;

namespace {

Fd file_of(const std::string& bytes) {
  test::Tree tree{{"program", bytes}};
  return Fd(::open(tree.path("program").c_str(), O_RDONLY | O_CLOEXEC));
}

constexpr std::string_view kNames[] = {"runtime.first", "runtime.second", "other.third"};

Result<std::vector<std::optional<Symbol>>> find(const std::string& bytes) {
  const Fd file = file_of(bytes);
  const auto image = read_elf_image(file);
  if (!image) return image.error();
  return find_symbols(file, *image, kNames);
}

constexpr const char* kVariables[] = {"runtime.allglen", "runtime.allgptr", "runtime.allp", "runtime.sched", "runtime.memstats",
                                      "runtime.gcController", "runtime.gomaxprocs", "runtime.buildVersion", "runtime.runtimeInitTime",
                                      "internal/runtime/gc.SizeClassToSize", "runtime.waitReasonStrings"};

FakeElf go_elf(const std::string& version) {
  FakeElf elf;
  elf.data = test::inline_buildinfo(version, "");
  elf.data.resize(1 << 20);
  std::uint64_t address = FakeElf::kAddress;
  for (const char* name : kVariables) elf.add_symbol(name, address += 0x4000, 0x4000);
  return elf;
}

}  // namespace

TEST_CASE("symbols: by name and type, the first one that is defined") {
  FakeElf elf;
  elf.data = "x";
  elf.add_symbol("runtime.fi", 1, 1);
  elf.add_symbol("runtime.first.x", 2, 2);
  const std::uint64_t first = elf.strings.size();
  elf.strings += std::string("runtime.first") + '\0';
  elf.add_symbol(first, 3, 3, 2);     // a function
  elf.add_symbol(first, 4, 4, 1, 0);  // not defined here
  elf.add_symbol(first, 0x500010, 8);
  elf.add_symbol(first, 0x500020, 8);
  // The end of a longer name.
  const std::uint64_t longer = elf.strings.size();
  elf.strings += std::string("vendor/runtime.second") + '\0';
  elf.add_symbol(longer, 5, 5);
  elf.add_symbol(longer + 7, 0x500030, 16);
  const auto found = find(elf.bytes());
  REQUIRE(found);
  REQUIRE(found->size() == 3);
  CHECK((*found)[0]->address == 0x500010);
  CHECK((*found)[1]->address == 0x500030);
  CHECK((*found)[1]->size == 16);
  CHECK_FALSE((*found)[2]);
}

TEST_CASE("symbols: names and entries across the borders of what is read at once") {
  for (std::size_t before = 65500; before < 65560; ++before) {
    FakeElf elf;
    elf.data = "x";
    elf.strings = std::string(before, 'n') + '\0';
    elf.add_symbol("runtime.first", 0x500010, 8);
    elf.strings += std::string(70000, 'm') + '\0';
    elf.add_symbol("other.third", 0x500020, 8);
    const auto found = find(elf.bytes());
    REQUIRE(found);
    REQUIRE((*found)[0]);
    REQUIRE((*found)[2]);
    CHECK((*found)[2]->address == 0x500020);
  }
  FakeElf elf;
  elf.data = "x";
  for (int i = 0; i < 5000; ++i) elf.add_symbol("s", 1, 1);
  elf.add_symbol("runtime.second", 0x500040, 8);
  CHECK((*find(elf.bytes()))[1]->address == 0x500040);
}

TEST_CASE("symbols: a file without, cut off or with any byte changed") {
  FakeElf elf;
  elf.data = "x";
  CHECK(find(elf.bytes()).error().code == ENOENT);
  CHECK(find(elf.bytes()).error().message == "stripped: no symbol table");
  elf.add_symbol("runtime.first", 0x500010, 8);
  const std::string whole = elf.bytes();
  REQUIRE((*find(whole))[0]);
  for (std::size_t size = 0; size < whole.size(); ++size) (void)find(whole.substr(0, size));
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const char value : {'\xff', '\x7f', '\0'}) {
      std::string changed = whole;
      changed[at] = value;
      (void)find(changed);
    }
  }
  // A table that is said to be larger than any.
  std::string lying = whole;
  const std::size_t sections = whole.size() - 5 * 64;
  lying[sections + 3 * 64 + 32 + 6] = 1;
  CHECK(find(lying).error().code == EFBIG);
}

TEST_CASE("programs: which can be read, and why not") {
  const auto read = [](const FakeElf& elf) { return read_program(file_of(elf.bytes())); };
  const Program good = read(go_elf("go1.26.8"));
  CHECK(good.go);
  CHECK(good.trouble == "");
  REQUIRE(good.layout != nullptr);
  CHECK(good.layout->version == "go1.26");
  CHECK(good.at.all_count == FakeElf::kAddress + 0x4000);
  CHECK(good.wait_reasons == 256);
  for (const char* version : {"go1.25", "go1.27rc1", "go1.26.8 X:boringcrypto", "go1.26.8-custom"}) {
    INFO(version);
    CHECK(read(go_elf(version)).trouble == "");
  }
  const auto trouble = [&](const char* version) { return read(go_elf(version)).trouble; };
  CHECK(trouble("go1.20.1").starts_with("it was built by go1.20.1, the agent knows go1.21 to go1."));
  CHECK(trouble("devel +abc").starts_with("it was built by devel +abc"));
  CHECK(trouble("go1.\n\xff").starts_with("it was built by go1.??"));
  CHECK(trouble("go1.26.8 X:boringcrypto,staticlockranking").starts_with("it was built with the experiment staticlockranking"));
  CHECK(trouble("go1.24.1").find("runtime.class_to_size") != std::string::npos);

  FakeElf elf = go_elf("go1.26.8");
  elf.machine = 243;
  CHECK(read(elf).trouble == "only programs for amd64 and arm64 can be read");
  elf = go_elf("go1.26.8");
  elf.big = true;
  CHECK(read(elf).trouble == "only programs for amd64 and arm64 can be read");
  elf = go_elf("go1.26.8");
  elf.symbols.clear();
  CHECK(read(elf).trouble == "stripped: no symbol table: build it without -ldflags=-s");
  elf = go_elf("go1.26.8");
  elf.data.resize(0x5000);  // the variables are beyond it
  CHECK(read(elf).trouble.starts_with("its symbol table makes no sense of runtime."));
  elf.data = "no build information";
  CHECK_FALSE(read(elf).go);
}

TEST_CASE("layouts: each version once for each architecture, and what is read at once is in order") {
  std::string_view before;
  for (const GoLayout& one : go_layouts()) {
    INFO(one.version);
    CHECK((one.amd64 || one.arm64));
    CHECK(before <= one.version);
    before = one.version;
    CHECK(one.pause_ring == 256);
    CHECK(one.pauses + 8 * one.pause_ring <= one.cycles);
    CHECK(one.heap_stats + 3 * one.heap_delta <= one.heap_generation);
    CHECK(one.heap_generation + 4 <= one.pauses);
    for (const std::uint32_t table : {one.small_allocated, one.small_freed}) CHECK(table + 8 * one.size_classes <= one.heap_delta);
    CHECK(std::max(one.large_allocated, one.large_freed) + 8 <= one.heap_delta);
    CHECK(one.size_classes <= 256);
  }
}
