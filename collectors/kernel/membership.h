// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
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
  Result<bool> sync(const Target& target);
  /// `main` is one of `processes` or nullptr; `generation` changes with them.
  Result<bool> sync(std::span<const Process> processes, const Process* main, std::uint64_t generation);
  /// The ids of the target's own cgroup in the hierarchies of the memory and the I/O controller; 0 if it has none.
  void set_cgroups(std::uint64_t memory, std::uint64_t io);
  /// How often the set of processes or the store of threads was full.
  std::uint64_t full() const { return watched_->full; }
  /// See KernelReader. The probe readers counts it.
  ThreadCounts ended_threads() const;
  /// What the kernel has noticed since the last sync; nothing if that does not hold for all processes.
  std::optional<Forks> forks() const;
  /// Who was forked by a member and is not known of Target yet, as the agent numbers them.
  std::vector<pid_t> born();
  /// A probe that is attached only at times is attached again: what was begun before does not count.
  void attached_now();
  /// Of the processes that have left the target since the last call: those whose end the kernel saw.
  std::vector<ProcessId> take_ends_seen() { return std::exchange(ends_seen_, {}); }

 private:
  struct Known {
    std::uint32_t tgid = 0;  ///< the kernel's number of it
    bool told = false;       ///< it was entered into the map
    bool ended = false;      ///< and taken out at its end: a zombie, if it is there at all
  };
  Membership(Probe& probe, bool initial_pidns) : probe_(&probe), initial_pidns_(initial_pidns) {}
  Result<> translate(std::span<const Process> processes);
  Result<std::vector<translation>> translations();
  /// Writes the set into the map; true if there are members that the kernel did not know of.
  bool write();
  bool tell(const ProcessId& id, Known& process);
  std::optional<std::uint32_t> entry(std::uint32_t tgid) const;  ///< enum member_of, of who is in the map
  bool ended_before(const ProcessId& id, std::uint32_t tgid) const;
  std::set<std::uint32_t> wanted() const;
  std::vector<std::uint32_t> members() const;
  void mark(const std::set<std::uint32_t>& wanted);

  Probe* probe_;
  bool initial_pidns_;
  int members_ = -1;
  int endings_ = -1;
  watched* watched_ = nullptr;
  std::map<ProcessId, Known> known_;
  std::vector<std::pair<ProcessId, Known>> gone_;  ///< those that the last sync does not know any more
  std::vector<ProcessId> ends_seen_;
  ProcessId main_{};           ///< at the last sync
  bool keeps_strays_ = false;  ///< members that Target does not know of stay
  std::uint64_t generation_ = 0;
  std::uint32_t forks_ = 0;
  std::bitset<WATCH_MARKS> idle_;  ///< marks that nobody needed at the last sync
  bool complete_ = false;  ///< the last sync told the kernel of every process
  bool again_ = true;  ///< the last sync left something to look at again
};

}  // namespace boxo::kernel
