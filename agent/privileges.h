// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string>

#include "collectors/result.h"

namespace boxo {

struct KeepPrivileges {
  bool network = false;  ///< CAP_NET_ADMIN, to count in the cgroup of a target that may come back in another one
  bool admin = false;  ///< CAP_SYS_ADMIN, for a target in another network namespace
  bool kill = false;   ///< CAP_KILL, to forward signals to a command that changes its user
};

/// Gives up, for good and for every thread made from now on, the capabilities that the running agent has no use for,
/// and the chance to gain any (no_new_privs). Those that reading a target needs stay, if they were there: a target that
/// restarts has to be opened anew. Works on the calling thread and on those that it makes later.
Result<> drop_privileges(KeepPrivileges keep);

/// The capabilities that are left, "CAP_BPF, CAP_PERFMON"; "none".
std::string privileges_left();

}  // namespace boxo
