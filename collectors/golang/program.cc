// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/golang/program.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <vector>

#include "collectors/elf_image.h"
#include "collectors/go_buildinfo.h"
#include "collectors/golang/symbols.h"

namespace boxo::golang {

namespace {

// A target that runs more different programs than this pays for reading some of them again.
constexpr std::size_t kMaxPrograms = 256;
constexpr std::size_t kMaxWaitReasons = 256;  // a byte numbers them
constexpr std::size_t kStringHeader = 16;

// Experiments that do not touch the structs that are read here.
constexpr std::string_view kHarmless[] = {"aliastypeparams", "boringcrypto", "jsonv2", "loopvar", "nocoverageredesign", "rangefunc",
                                          "synctest", "systemcrypto"};

/// "go1.26" of "go1.26.8", "go1.26rc1" and "go1.26.8 X:boringcrypto"; "" of others.
std::string_view family_of(std::string_view version) {
  constexpr std::string_view kBegin = "go1.";
  if (!version.starts_with(kBegin)) return {};
  const std::size_t end = std::min(version.find_first_not_of("0123456789", kBegin.size()), version.size());
  return end == kBegin.size() ? std::string_view() : version.substr(0, end);
}

/// The first experiment of "go1.26.8 X:boringcrypto,other" that may have moved something; "" if none has.
std::string_view odd_experiment(std::string_view version) {
  constexpr std::string_view kBegin = " X:";
  const std::size_t at = version.find(kBegin);
  if (at == std::string_view::npos) return {};
  std::string_view list = version.substr(at + kBegin.size());
  while (!list.empty()) {
    const std::string_view one = list.substr(0, list.find_first_of(", -+"));
    if (std::find(std::begin(kHarmless), std::end(kHarmless), one) == std::end(kHarmless)) return one.empty() ? list : one;
    list.remove_prefix(std::min(one.size() + 1, list.size()));
  }
  return {};
}

const GoLayout* layout_of(std::string_view family, unsigned machine) {
  for (const GoLayout& one : go_layouts())
    if (one.version == family && (machine == EM_X86_64 ? one.amd64 : machine == EM_AARCH64 && one.arm64)) return &one;
  return nullptr;
}

std::string known_versions() {
  const auto all = go_layouts();
  return std::string(all.front().version) + " to " + std::string(all.back().version);
}

bool is_loaded(const ElfImage& image, const Symbol& symbol) {
  return std::any_of(image.loaded.begin(), image.loaded.end(), [&](const ElfImage::Segment& one) {
    return symbol.address >= one.address && symbol.address - one.address <= one.memory &&
           symbol.size <= one.memory - (symbol.address - one.address);
  });
}

/// Fills the addresses; what is wrong, or "".
std::string find_addresses(const Fd& file, const ElfImage& image, Program& program) {
  const GoLayout& layout = *program.layout;
  struct Wanted {
    std::string_view name;
    std::uint64_t size;  // the least
    std::uint64_t* address;
  };
  Program::Addresses& at = program.at;
  const Wanted wanted[] = {
      {"runtime.allglen", 8, &at.all_count},
      {"runtime.allgptr", 8, &at.all},
      {"runtime.allp", 24, &at.processors},
      {"runtime.sched", std::max({layout.sched_system, layout.sched_free, layout.sched_free_more}) + 4, &at.sched},
      {"runtime.memstats", layout.cycles + 4, &at.memstats},
      {"runtime.gcController", std::max(layout.heap_marked, layout.memory_limit) + 8, &at.controller},
      {"runtime.gomaxprocs", 4, &at.max_processors},
      {"runtime.buildVersion", kStringHeader, &at.version},
      {"runtime.runtimeInitTime", 8, &at.begun},
      {layout.size_of_class, 2 * std::uint64_t{layout.size_classes}, &at.class_sizes},
      {"runtime.waitReasonStrings", kStringHeader, &at.wait_reasons},
  };
  std::array<std::string_view, std::size(wanted)> names;
  std::transform(std::begin(wanted), std::end(wanted), names.begin(), [](const Wanted& one) { return one.name; });
  const auto found = find_symbols(file, image, names);
  if (!found) return found.error().text();
  for (std::size_t i = 0; i < std::size(wanted); ++i) {
    const auto& symbol = (*found)[i];
    if (!symbol) return "its symbol table lacks " + std::string(wanted[i].name) + ": build it with the go command";
    if (symbol->size < wanted[i].size || symbol->address % 2 != 0 || !is_loaded(image, *symbol))
      return "its symbol table makes no sense of " + std::string(wanted[i].name);
    *wanted[i].address = symbol->address;
  }
  program.wait_reasons = std::min<std::uint64_t>(found->back()->size / kStringHeader, kMaxWaitReasons);
  return {};
}

}  // namespace

Program read_program(const Fd& file) {
  Program program;
  const auto build = read_go_buildinfo(file);
  const auto image = build ? read_elf_image(file) : Result<ElfImage>(build.error());
  if (!image) return program;
  program.go = true;
  program.version = build->go_version.substr(0, 64);
  std::replace_if(program.version.begin(), program.version.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  program.entry = image->entry;
  program.movable = image->kind == ET_DYN;
  if (!image->wide || image->big || (image->machine != EM_X86_64 && image->machine != EM_AARCH64)) {
    program.trouble = "only programs for amd64 and arm64 can be read";
    return program;
  }
  program.layout = layout_of(family_of(program.version), image->machine);
  if (program.layout == nullptr)
    program.trouble = "it was built by " + program.version + ", the agent knows " + known_versions() + ": take a newer agent, or add it (scripts/go-layouts)";
  else if (const auto odd = odd_experiment(program.version); !odd.empty())
    program.trouble = "it was built with the experiment " + std::string(odd) + ", which may have moved things: build it without";
  else
    program.trouble = find_addresses(file, *image, program);
  return program;
}

Result<std::shared_ptr<const Program>> Programs::of(const Process& process) {
  using Found = std::shared_ptr<const Program>;
  struct stat info {};
  const Dir& dir = process.shared();
  const auto failed = [](Error error) -> Result<Found> {
    // It has ended, or is the kernel's.
    if (error.code == ENOENT || error.code == ESRCH) return Found();
    return error;
  };
  if (::fstatat(dir.fd(), "exe", &info, 0) != 0) return failed(errno_error("exe"));
  if (!S_ISREG(info.st_mode)) return Found();
  const Key key{info.st_dev, info.st_ino, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
  if (const auto known = known_.find(key); known != known_.end()) return known->second;
  // Not to hang on what is no ordinary file by the time it is opened.
  const auto file = dir.file("exe", O_NONBLOCK | O_NOCTTY);
  if (!file) return failed(file.error());
  // The process may have become another program between the two calls.
  struct stat opened {};
  if (::fstat(file->get(), &opened) != 0 || opened.st_dev != info.st_dev || opened.st_ino != info.st_ino) return Found();
  if (known_.size() >= kMaxPrograms) known_.clear();
  return known_.emplace(key, std::make_shared<const Program>(read_program(*file))).first->second;
}

}  // namespace boxo::golang
