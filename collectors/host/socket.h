// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "collectors/result.h"
#include "collectors/target.h"

namespace boxo::host {

enum class Protocol : std::uint8_t { kTcp, kUdp, kUnix };

/// One socket as the kernel describes it. What the source does not tell is zero.
struct Socket {
  Protocol protocol = Protocol::kTcp;
  std::uint8_t state = 0;    ///< as in TCP_ESTABLISHED …, for every protocol
  std::uint32_t inode = 0;   ///< the number in the link /proc/PID/fd/N; 0 if no process has it any more
  std::uint64_t cookie = 0;  ///< never used again for another socket; the inode where there is none
  std::uint32_t receive_queue = 0;  ///< bytes not read yet; for a listening one: connections not accepted yet
  std::uint32_t send_queue = 0;     ///< bytes not acknowledged yet; for a listening one: how many may wait
  std::uint64_t drops = 0;          ///< datagrams not taken in
  // From tcp_info, zero for all but TCP.
  std::uint64_t sent = 0;  ///< bytes of payload, each once
  std::uint64_t received = 0;
  std::uint64_t segments_out = 0;
  std::uint64_t segments_in = 0;
  std::uint64_t retransmits = 0;
  std::uint32_t rtt_us = 0;  ///< smoothed round-trip time; 0 before the first sample
};

/// Bits of `states`, as the kernel numbers them (TCP_ESTABLISHED = 1 …).
enum SocketState : std::uint8_t {
  kEstablished = 1,
  kSynSent,
  kSynReceived,
  kFinWait1,
  kFinWait2,
  kTimeWait,
  kClosed,
  kCloseWait,
  kLastAck,
  kListening,
  kClosing,
};

/// All sockets of the network namespace of a process, of every process in it, from the text of /proc/PID/net:
/// states, queues and drops only. Adds to `out`.
Result<> read_socket_tables(const Process& process, std::vector<Socket>& out);

}  // namespace boxo::host
