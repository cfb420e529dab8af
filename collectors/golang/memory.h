// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "collectors/fd.h"
#include "collectors/target.h"

namespace boxo::golang {

/// The memory of one running process, which goes on meanwhile. Promises: it is only read, the process is not stopped, and a
/// read gives all that was asked for or an Error (EFAULT: not all of it is mapped; EPERM, EACCES: not allowed, with the
/// mend; ESRCH: it has ended).
class Memory {
 public:
  struct Piece {
    std::uint64_t address;
    std::size_t size;
  };

  /// `by_pid`: the process has in the agent's eyes the number that it has in Process. `process` outlives the Memory.
  Memory(const Process& process, bool by_pid);

  /// The pieces one after the other, in the order in which they were read.
  Result<> read(std::span<const Piece> pieces, std::string& out);
  /// An unsigned number of 8 bytes.
  Result<std::uint64_t> word(std::uint64_t address);
  /// The call that answered last.
  const char* way() const { return file_ ? "/proc/PID/mem" : "process_vm_readv"; }

 private:
  Result<> by_call(std::span<const Piece> pieces, char* out) const;
  Result<> by_file(std::span<const Piece> pieces, char* out);

  const Process& process_;
  bool by_pid_;
  Fd file_;
};

/// The number of `size` bytes (at most 8) at `at` of what was read; `at` must be within.
std::uint64_t number_in(const std::string& bytes, std::size_t at, std::size_t size);

}  // namespace boxo::golang
