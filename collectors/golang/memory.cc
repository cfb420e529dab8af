// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/golang/memory.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>

namespace boxo::golang {

namespace {

constexpr std::size_t kPiecesAtOnce = 1024;  // IOV_MAX
constexpr std::size_t kBytesAtOnce = std::size_t{64} << 20;

Error refused(int code) {
  return errno_error("memory", "run with CAP_SYS_PTRACE, or as the target's user where kernel.yama.ptrace_scope is 0", code);
}

Error unmapped() { return errno_error("memory", {}, EFAULT); }

}  // namespace

std::uint64_t number_in(const std::string& bytes, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data() + at, size);  // the agent and the target have the same byte order
  return value;
}

Memory::Memory(const Process& process, bool by_pid) : process_(process), by_pid_(by_pid) {}

Result<> Memory::read(std::span<const Piece> pieces, std::string& out) {
  std::size_t total = 0;
  for (const Piece& piece : pieces) {
    if (piece.size > kBytesAtOnce - total) return Error{"memory: too much at once", {}, EFBIG};
    total += piece.size;
  }
  out.resize(total);
  if (by_pid_ && !file_) {
    auto done = by_call(pieces, out.data());
    // A filter of system calls may refuse this one, and the file be there all the same.
    const int code = done ? 0 : done.error().code;
    if (code != EPERM && code != EACCES && code != ENOSYS) return done;
  }
  return by_file(pieces, out.data());
}

Result<std::uint64_t> Memory::word(std::uint64_t address) {
  std::string bytes;
  const Piece piece{address, 8};
  if (const auto done = read({&piece, 1}, bytes); !done) return done.error();
  return number_in(bytes, 0, 8);
}

Result<> Memory::by_call(std::span<const Piece> pieces, char* out) const {
  const pid_t pid = process_.survivor_proc ? process_.survivor.pid : process_.id.pid;
  std::array<iovec, kPiecesAtOnce> remote;
  while (!pieces.empty()) {
    const auto now = pieces.first(std::min(pieces.size(), kPiecesAtOnce));
    std::size_t size = 0;
    for (std::size_t i = 0; i < now.size(); ++i) {
      remote[i] = {reinterpret_cast<void*>(now[i].address), now[i].size};  // NOLINT(performance-no-int-to-ptr)
      size += now[i].size;
    }
    const iovec local{out, size};
    const ssize_t n = ::process_vm_readv(pid, &local, 1, remote.data(), now.size(), 0);
    if (n < 0) return errno_error("memory");
    if (static_cast<std::size_t>(n) != size) return unmapped();
    out += size;
    pieces = pieces.subspan(now.size());
  }
  return {};
}

Result<> Memory::by_file(std::span<const Piece> pieces, char* out) {
  if (!file_) {
    auto file = process_.shared().file("mem");
    if (!file) return file.error().code == EACCES || file.error().code == EPERM ? refused(file.error().code) : file.error();
    file_ = std::move(*file);
  }
  for (const Piece& piece : pieces) {
    for (std::size_t used = 0; used < piece.size;) {
      if (piece.address > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max()) - used) return unmapped();
      const ssize_t n =
          ::pread(file_.get(), out + used, piece.size - used, static_cast<off_t>(piece.address + used));
      if (n < 0 && errno == EINTR) continue;
      // Nothing at all: the process has ended or called exec since the file was opened.
      if (n <= 0) return n == 0 ? errno_error("memory", {}, ESRCH) : errno == EIO ? unmapped() : errno_error("memory");
      used += static_cast<std::size_t>(n);
    }
    out += piece.size;
  }
  return {};
}

}  // namespace boxo::golang
