// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string>

#include "collectors/kernel/membership.h"
#include "collectors/kernel/probe.h"
#include "collectors/kernel_reader.h"

namespace boxo::kernel {

/// Reads threads and sockets through the iterators of bpf/readers.bpf.c.
class Reader final : public KernelReader {
 public:
  /// `probe` is the loaded bpf/readers.bpf.c; both outlive the reader.
  Reader(const Probe& probe, const Membership& membership) : probe_(&probe), membership_(&membership) {}

  /// Whether this kernel has iterators over one process (6.1).
  Result<> check();

  Result<> threads(pid_t pid, std::vector<ThreadReading>& out) override;
  ThreadCounts ended_threads() const override { return membership_->ended_threads(); }
  Result<> sockets(pid_t pid, std::vector<Socket>& out) override;

 private:
  const Probe* probe_;
  const Membership* membership_;
};

/// Adds to `out` the target's TCP connections that have ended since the last call, with all that they had; `tcp` is the
/// loaded bpf/tcp.bpf.c.
Result<> read_ended(Probe& tcp, std::vector<Socket>& out);

/// The letter of /proc for task_struct.__state and exit_state together.
char state_letter(std::uint32_t state);

}  // namespace boxo::kernel
