// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "collectors/result.h"

namespace boxo::events {

/// The group with this name or number.
Result<gid_t> find_group(const std::string& name);

/// Decides who may send: root, the agent's own user, the users of the target, and a group. Used by the thread
/// that receives; a sender like the last one costs one comparison.
class Senders {
 public:
  Senders() = default;
  /// `group_by_mode`: the mode of the socket keeps everybody else out, so that who is not known by user is in
  /// the group. (The kernel tells of a sender only its first group, not the others.)
  Senders(std::optional<gid_t> group, bool group_by_mode);

  void set_users(std::vector<uid_t> users);
  /// False if whoever could send may send: then nobody needs to be asked about.
  bool must_be_known() const { return !group_by_mode_; }
  bool allows(const ucred& sender) {
    if (sender.uid == last_.uid && sender.gid == last_.gid) return last_allowed_;
    last_allowed_ = decide(sender);
    last_ = sender;
    return last_allowed_;
  }

 private:
  bool decide(const ucred& sender) const;

  std::optional<gid_t> group_;
  bool group_by_mode_ = false;
  uid_t self_ = 0;
  std::vector<uid_t> users_;
  std::vector<uid_t> members_;  ///< of the group
  ucred last_{0, 0, 0};
  bool last_allowed_ = true;
};

}  // namespace boxo::events
