// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "collectors/golang/memory.h"
#include "collectors/golang/program.h"

namespace boxo::golang {

/// What a Go runtime counts, at one moment.
struct Numbers {
  std::uint64_t goroutines = 0;      ///< as runtime.NumGoroutine() has it
  std::uint64_t all_goroutines = 0;  ///< with those that have ended and are kept for reuse
  std::uint64_t cycles = 0;          ///< garbage collections that have ended
  /// How long each of the latest of these stopped the program, in ns, oldest first: as many as the runtime remembers.
  std::vector<std::uint64_t> pauses;
  std::uint64_t heap_bytes = 0;  ///< in objects, living and not yet swept
  std::uint64_t heap_live_bytes = 0;  ///< that the last collection found to be living
  std::uint64_t max_processors = 0;
  std::int64_t memory_limit = 0;  ///< INT64_MAX: none
  /// Why only cycles and pauses hold; "" if all does.
  std::string unsettled;
};

/// Goroutines by status and, of waiting ones, reason.
struct Census {
  static constexpr std::size_t kStatuses = 16;
  static constexpr std::size_t kReasons = 256;
  std::array<std::array<std::uint32_t, kReasons>, kStatuses> counts{};
};

/// The Go runtime of one process. Everything that is read is the process's word, which may be untrue: sizes are bounded,
/// and what contradicts itself is read again, and then said not to hold.
class Runtime {
 public:
  /// EBUSY: it has just begun. ESTALE: what is in memory is not this program.
  static Result<Runtime> attach(std::shared_ptr<const Program> program, const Process& process, Memory& memory);

  /// ESTALE: the process runs another program by now. What the runtime counts can be read at every moment, its levels cannot.
  Result<Numbers> read(Memory& memory) const;
  /// `all` as read() gave it; grows with it.
  Result<> count(Memory& memory, std::uint64_t all, Census& census) const;

  const Program& program() const { return *program_; }
  /// When it began, in ns: no two programs began at the same time, but one that forked has not begun anew.
  std::uint64_t begun() const { return begun_; }
  /// The text of a reason to wait, "" for none.
  const std::string& wait_reason(std::size_t number) const;
  /// How the runtime calls a status; nullptr: it has no such.
  static const char* status_name(std::size_t status);
  /// Whether goroutines of this status wait for something that has a name.
  static bool has_reason(std::size_t status);

 private:
  Runtime(std::shared_ptr<const Program> program, std::uint64_t bias) : program_(std::move(program)), bias_(bias) {}
  Result<> read_texts(Memory& memory);
  Result<std::uint64_t> processor_free(Memory& memory, std::uint64_t processors, std::uint64_t count) const;
  bool fill_heap(const std::string& bytes, std::size_t first, std::size_t again, Numbers& out) const;
  void fill_pauses(const std::string& bytes, std::size_t stats, std::uint64_t before, Numbers& out) const;
  std::uint64_t in(std::uint64_t address, std::uint64_t offset = 0) const { return address + bias_ + offset; }

  std::shared_ptr<const Program> program_;
  std::uint64_t bias_;
  std::string anchor_;  // where the version's text is, and when the program began: another program has others
  std::uint64_t begun_ = 0;
  std::vector<std::string> wait_reasons_;
  std::vector<std::uint16_t> class_sizes_;
};

}  // namespace boxo::golang
