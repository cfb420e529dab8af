// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "bpf/watched.h"
#include "collectors/kernel/probe.h"
#include "collectors/kernel_reader.h"
#include "collectors/target.h"

namespace boxo::kernel {

/// Loads bpf/members.bpf.c, which makes the maps that all probes share, and enters them into `context`; finds out
/// whether this kernel has task storage.
Result<Probe> load_members(const Description& description, LoadContext& context);

/// Tells the probes which processes are the target's, by the pids that the kernel uses, and keeps that in step with
/// Target. Between two ticks bpf/members.bpf.c follows forks and exits by itself.
class Membership {
 public:
  /// `probe` is the loaded bpf/members.bpf.c.
  static Result<Membership> make(Probe& probe, bool initial_pidns);

  Membership(Membership&& other) noexcept;
  Membership& operator=(Membership&& other) noexcept;
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;
  ~Membership();

  /// Returns whether there are processes that the kernel had not followed: probes have to be told then.
  Result<bool> sync(const Target& target) { return sync(target.processes(), target.main(), target.generation()); }
  /// `main` is one of `processes` or nullptr; `generation` changes with them.
  Result<bool> sync(std::span<const Process> processes, const Process* main, std::uint64_t generation);
  /// The ids of the target's own cgroup in the hierarchies of the memory and the I/O controller; 0 if it has none.
  void set_cgroups(std::uint64_t memory, std::uint64_t io);
  /// How often the set of processes or the store of threads was full.
  std::uint64_t full() const { return watched_->full; }
  /// What the kernel has noticed since the last sync; nothing if that does not hold for all processes.
  std::optional<Forks> forks() const;
  /// A probe that is attached only at times is attached again: what was begun before does not count.
  void attached_now();

 private:
  Membership(Probe& probe, bool initial_pidns) : probe_(&probe), initial_pidns_(initial_pidns) {}
  Result<> translate(std::span<const Process> processes);
  /// Writes the set into the map; true if there are members that the kernel did not know of.
  bool write(const std::set<std::uint32_t>& wanted);
  std::vector<std::uint32_t> members() const;
  void mark(const std::set<std::uint32_t>& wanted);

  Probe* probe_;
  bool initial_pidns_;
  int members_ = -1;
  watched* watched_ = nullptr;
  std::map<ProcessId, std::uint32_t> known_;  ///< the kernel's tgid of each process
  std::uint64_t generation_ = 0;
  std::uint32_t forks_ = 0;
  std::bitset<WATCH_MARKS> idle_;  ///< marks that nobody needed at the last sync
  bool complete_ = false;  ///< the last sync told the kernel of every process
  bool again_ = true;  ///< the last sync left something to look at again
};

}  // namespace boxo::kernel
