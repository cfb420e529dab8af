// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <unordered_set>
#include <vector>

#include "collectors/fd.h"
#include "collectors/target.h"
#include "collectors/time_budget.h"

namespace boxo::host {

/// Which sockets the target has open, by the links in /proc/PID/fd. Reading all links of a node with 5,000
/// sockets takes 20 ms, so a link is read once and again only if something speaks against it. Promises: a
/// socket that appears is known at the next look, one that the target closed is forgotten at the latest when
/// all links have been checked in turn. Use, once a tick: begin(), then look() if `wants_look`, then owns().
class SocketOwner {
 public:
  /// Finds out whose number of descriptors changed.
  void begin(const std::vector<Process>& processes);
  /// Whether to look now: something changed, `strangers` (sockets in the namespace never seen before) may
  /// be the target's, or the last look failed, and it is long enough ago for looking to take at most a twentieth
  /// of the time.
  bool wants_look(bool strangers) const;
  /// Reads the links of new descriptors, and of those that cannot be right any more: sockets that do not
  /// exist
  /// (`exists`), and with `strangers` everything that was no socket.
  void look(const std::vector<Process>& processes, bool strangers,
            const std::function<bool(std::uint32_t)>& exists);
  bool owns(std::uint32_t inode) const { return owned_.contains(inode); }
  /// Whether a process that ran before it came to the target had this socket open when it was looked at first.
  bool brought(std::uint32_t inode) const { return brought_.contains(inode); }
  std::size_t size() const { return owned_.size(); }
  /// Why the descriptors of a process could not be read; "" if they could.
  const std::string& trouble() const { return trouble_; }

 private:
  struct Descriptor {
    std::uint32_t number = 0;
    std::uint32_t inode = 0;  ///< 0: no socket
  };
  struct Member {
    Dir fds;
    ProcessId survivor;  ///< whose they are, if not the main thread's
    std::vector<Descriptor> descriptors;  ///< by number
    std::uint64_t count = 0;              ///< as the kernel told before the last look
    std::uint64_t count_now = 0;
    bool changed = true;
    bool looked_at = false;
    std::size_t checked = 0;  ///< where the turn of checking stands
    std::uint64_t seen = 0;
  };

  void look(const Process& process, Member& member, bool strangers,
            const std::function<bool(std::uint32_t)>& exists);
  void check_some(Member& member);
  void rebuild();

  std::map<ProcessId, Member> members_;
  std::unordered_set<std::uint32_t> owned_;
  std::unordered_set<std::uint32_t> brought_;  ///< at the last look that could take all, or since
  std::uint64_t round_ = 0;
  bool changed_ = false;
  TimeBudget budget_{20};
  std::string trouble_;
};

}  // namespace boxo::host
