// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/golang/runtime.h"

#include <elf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace boxo::golang {

namespace {

constexpr std::size_t kMaxText = 64;
constexpr std::uint64_t kMaxProcessors = 4096;
constexpr std::uint64_t kMaxFreeOfProcessor = 1 << 16;
constexpr std::uint64_t kPage = 4096;
constexpr int kTries = 5;

Error stale() { return Error{"its memory does not look like the program that it runs", {}, ESTALE}; }
Error changing(const char* what) { return Error{std::string(what) + " changed while it was read", {}, EAGAIN}; }

/// How far from the addresses in its file the program was loaded.
Result<std::uint64_t> load_bias(const Program& program, const Process& process) {
  if (!program.movable) return std::uint64_t{0};
  const auto auxv = process.shared().read("auxv", 4096);
  if (!auxv) return auxv.error();
  for (std::size_t at = 0; at + 16 <= auxv->size(); at += 16) {
    if (number_in(*auxv, at, 8) != AT_ENTRY) continue;
    const std::uint64_t bias = number_in(*auxv, at + 8, 8) - program.entry;
    if (bias % kPage == 0) return bias;
  }
  // exec fills it last.
  return Error{"auxv: it does not say where the program was loaded", {}, EBUSY};
}

bool is_printable(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace

Result<Runtime> Runtime::attach(std::shared_ptr<const Program> program, const Process& process, Memory& memory) {
  const auto bias = load_bias(*program, process);
  if (!bias) return bias.error();
  Runtime found(std::move(program), *bias);
  const Program::Addresses& at = found.program_->at;
  const Memory::Piece pieces[] = {{found.in(at.version), 16}, {found.in(at.begun), 8}};
  if (const auto done = memory.read(pieces, found.anchor_); !done) return done.error();
  const std::uint64_t length = number_in(found.anchor_, 8, 8);
  found.begun_ = number_in(found.anchor_, 16, 8);
  if (found.begun_ == 0) return Error{"its Go runtime has just begun", {}, EBUSY};
  if (length != found.program_->version.size()) return stale();
  std::string version;
  const Memory::Piece text{number_in(found.anchor_, 0, 8), length};
  if (const auto done = memory.read({&text, 1}, version); !done) return done.error();
  if (version != found.program_->version) return stale();
  if (const auto done = found.read_texts(memory); !done) return done.error();
  return found;
}

Result<> Runtime::read_texts(Memory& memory) {
  std::string bytes;
  const Memory::Piece tables[] = {{in(program_->at.wait_reasons), 16 * program_->wait_reasons},
                                  {in(program_->at.class_sizes), 2 * program_->layout->size_classes}};
  if (auto done = memory.read(tables, bytes); !done) return done;
  for (std::size_t i = 0; i < program_->layout->size_classes; ++i)
    class_sizes_.push_back(static_cast<std::uint16_t>(number_in(bytes, tables[0].size + 2 * i, 2)));
  std::vector<Memory::Piece> pieces;
  for (std::size_t i = 0; i < program_->wait_reasons; ++i)
    pieces.push_back({number_in(bytes, 16 * i, 8), std::min<std::uint64_t>(number_in(bytes, 16 * i + 8, 8), kMaxText)});
  std::string texts;
  if (auto done = memory.read(pieces, texts); !done) return done;
  std::size_t at = 0;
  for (const Memory::Piece& piece : pieces) {
    std::string text = texts.substr(at, piece.size);
    at += piece.size;
    if (!is_printable(text)) text = "reason " + std::to_string(wait_reasons_.size());
    wait_reasons_.push_back(std::move(text));
  }
  return {};
}

Result<Numbers> Runtime::read(Memory& memory) const {
  const Program::Addresses& at = program_->at;
  const GoLayout& layout = *program_->layout;
  const std::size_t heap_size = layout.heap_generation + 4 - layout.heap_stats;
  // In the order in which they have to be read: see fill_heap() and fill_pauses().
  enum : std::size_t { kAnchor, kCycles, kHeap, kStats, kAllCount, kProcessors, kSystem, kFree, kFreeMore, kMax, kMarked, kLimit, kAgain, kPieces };
  const std::array<Memory::Piece, kPieces> pieces{{{in(at.version), 16},
                                                   {in(at.memstats, layout.cycles), 4},
                                                   {in(at.memstats, layout.heap_stats), heap_size},
                                                   {in(at.memstats), layout.cycles + 4},
                                                   {in(at.all_count), 8},
                                                   {in(at.processors), 16},
                                                   {in(at.sched, layout.sched_system), 4},
                                                   {in(at.sched, layout.sched_free), 4},
                                                   {in(at.sched, layout.sched_free_more), 4},
                                                   {in(at.max_processors), 4},
                                                   {in(at.controller, layout.heap_marked), 8},
                                                   {in(at.controller, layout.memory_limit), 8},
                                                   {in(at.begun), 8}}};
  std::array<std::size_t, kPieces> place{};
  for (std::size_t i = 1; i < kPieces; ++i) place[i] = place[i - 1] + pieces[i - 1].size;
  std::string bytes;
  Numbers out;
  for (int tries = 0; tries < kTries; ++tries) {
    if (const auto done = memory.read(pieces, bytes); !done) return done.error();
    const auto number = [&](std::size_t piece, std::size_t offset = 0) {
      return number_in(bytes, place[piece] + offset, std::min<std::size_t>(pieces[piece].size - offset, 8));
    };
    if (std::memcmp(bytes.data(), anchor_.data(), 16) != 0 || number(kAgain) != begun_) return stale();
    out = {};
    fill_pauses(bytes, place[kStats], number(kCycles), out);
    out.unsettled = changing("the heap's account").message;
    if (!fill_heap(bytes, place[kHeap], place[kStats], out)) continue;
    out.heap_live_bytes = number(kMarked);
    out.memory_limit = static_cast<std::int64_t>(number(kLimit));
    out.max_processors = number(kMax);
    out.all_goroutines = number(kAllCount);
    out.unsettled = changing("the number of goroutines").message;
    const auto of_processors = processor_free(memory, number(kProcessors), number(kProcessors, 8));
    if (!of_processors && of_processors.error().code == EAGAIN) continue;
    if (!of_processors) return of_processors.error();
    // Numbers of goroutines are of 32 bits and signed in the runtime; each by itself may be a moment ahead of the others.
    const auto small = [&](std::size_t piece) { return static_cast<std::int64_t>(static_cast<std::int32_t>(number(piece))); };
    const auto all = static_cast<std::int64_t>(out.all_goroutines);
    if (all < 0 || all > INT32_MAX) continue;
    const std::int64_t gone = small(kFree) + (layout.sched_free_more != 0 ? small(kFreeMore) : 0) + static_cast<std::int64_t>(*of_processors);
    if (small(kSystem) < 0 || gone < 0 || gone > all) continue;
    out.goroutines = static_cast<std::uint64_t>(std::max<std::int64_t>(all - gone - small(kSystem), 1));
    out.unsettled.clear();
    break;
  }
  return out;
}

Result<std::uint64_t> Runtime::processor_free(Memory& memory, std::uint64_t processors, std::uint64_t count) const {
  if (count > kMaxProcessors) return changing("the list of processors");
  std::string bytes;
  const Memory::Piece list{processors, 8 * count};
  if (const auto done = memory.read({&list, 1}, bytes); !done) return done.error();
  std::vector<Memory::Piece> pieces;
  for (std::size_t i = 0; i < count; ++i) pieces.push_back({number_in(bytes, 8 * i, 8) + program_->layout->p_free, 4});
  if (const auto done = memory.read(pieces, bytes); !done) return done.error();
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t one = number_in(bytes, 4 * i, 4);
    if (one > kMaxFreeOfProcessor) return changing("the list of processors");
    sum += one;
  }
  return sum;
}

/// The heap's account is spread over three sets of differences, whose sum counts. Writers add to the one that `generation`
/// names; a reader of the runtime's own moves `generation` on, adds the oldest set to the one before and clears it. While
/// that goes on the sum is wrong. It was over when the set that comes next was seen to be clear (`first`), and had not begun
/// again if the generation is the same in what was read after that (`again`).
bool Runtime::fill_heap(const std::string& bytes, std::size_t first, std::size_t again, Numbers& out) const {
  constexpr std::uint64_t kSets = 3;
  constexpr std::uint64_t kMost = std::uint64_t{1} << 48;
  const GoLayout& layout = *program_->layout;
  const std::size_t generation_at = layout.heap_generation - layout.heap_stats;
  const std::uint64_t generation = number_in(bytes, first + generation_at, 4);
  if (generation >= kSets || generation != number_in(bytes, again + layout.heap_generation, 4)) return false;
  const std::size_t next = first + (generation + 1) % kSets * layout.heap_delta;
  if (std::any_of(bytes.begin() + static_cast<std::ptrdiff_t>(next), bytes.begin() + static_cast<std::ptrdiff_t>(next + layout.heap_delta),
                  [](char c) { return c != 0; }))
    return false;
  std::uint64_t sum = 0;  // each part may be negative
  for (std::uint64_t set = 0; set < kSets; ++set) {
    const std::size_t delta = again + layout.heap_stats + set * layout.heap_delta;
    sum += number_in(bytes, delta + layout.large_allocated, 8) - number_in(bytes, delta + layout.large_freed, 8);
    for (std::size_t i = 0; i < layout.size_classes; ++i)
      sum += class_sizes_[i] * (number_in(bytes, delta + layout.small_allocated + 8 * i, 8) - number_in(bytes, delta + layout.small_freed + 8 * i, 8));
  }
  out.heap_bytes = sum;
  return sum <= kMost;
}

/// The pause of each cycle is written before it is counted, over that of the cycle 256 before. Cycles that were counted
/// before the ring was read have theirs in it, and the oldest may just be overwritten.
void Runtime::fill_pauses(const std::string& bytes, std::size_t stats, std::uint64_t before, Numbers& out) const {
  const GoLayout& layout = *program_->layout;
  const std::uint64_t after = number_in(bytes, stats + layout.cycles, 4);
  const std::uint64_t ring = layout.pause_ring;
  out.cycles = before;
  for (std::uint64_t cycle = after >= ring ? after - ring + 1 : 0; cycle < before; ++cycle)
    out.pauses.push_back(number_in(bytes, stats + layout.pauses + 8 * (cycle % ring), 8));
}

const std::string& Runtime::wait_reason(std::size_t number) const {
  static const std::string unknown = "unknown wait reason";  // as the runtime calls it
  return number < wait_reasons_.size() ? wait_reasons_[number] : unknown;
}

}  // namespace boxo::golang
