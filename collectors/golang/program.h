// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "collectors/golang/layouts.h"
#include "collectors/target.h"

namespace boxo::golang {

/// What an executable is to this room.
struct Program {
  /// Variables of the Go runtime: where they are before the program is loaded.
  struct Addresses {
    std::uint64_t all_count, all, processors, sched, memstats, controller, max_processors, wait_reasons, version, begun, class_sizes;
  };

  bool go = false;        ///< a Go program
  std::string trouble{};  ///< why the runtime of one cannot be read, with the mend; "" if it can
  std::string version{};  ///< "go1.26.8"
  const GoLayout* layout = nullptr;
  Addresses at{};
  std::uint64_t wait_reasons = 0;  ///< how many there are
  std::uint64_t entry = 0;
  bool movable = false;  ///< loaded at an address that is known of each process only
};

/// Knows executables. Promises: each is read once, as long as it is not written to, and no process of it costs more than one
/// stat after that.
class Programs {
 public:
  /// What the process runs; nullptr if it has none, as one that has ended. An Error: it may not be looked at.
  Result<std::shared_ptr<const Program>> of(const Process& process);

 private:
  using Key = std::tuple<dev_t, ino_t, off_t, std::int64_t, std::int64_t>;
  std::map<Key, std::shared_ptr<const Program>> known_;
};

/// Reads an executable.
Program read_program(const Fd& file);

}  // namespace boxo::golang
