// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <vector>

#include "collectors/result.h"
#include "collectors/socket.h"
#include "collectors/target.h"

namespace boxo::host {

/// All sockets of one protocol in the network namespace of a process, of every process in it, from the text
/// of /proc/PID/net: states, queues and drops only. Adds to `out`.
Result<> read_socket_table(const Process& process, Protocol protocol, std::vector<Socket>& out);

}  // namespace boxo::host
