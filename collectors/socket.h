// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace boxo {

enum class Protocol : std::uint8_t { kTcp, kUdp, kUnix };
inline constexpr std::array kProtocols = {Protocol::kTcp, Protocol::kUdp, Protocol::kUnix};
inline constexpr std::array<const char*, 3> kProtocolNames = {"tcp", "udp", "unix"};
constexpr std::size_t index_of(Protocol protocol) { return static_cast<std::size_t>(protocol); }

/// Who described a socket: the text in /proc/PID/net, sock_diag, a BPF iterator over the target's
/// descriptors.
enum class SocketSource : std::uint8_t { kTables, kDiag, kKernel };

/// One socket as the kernel describes it. What the source does not tell is zero.
struct Socket {
  Protocol protocol = Protocol::kTcp;
  SocketSource source = SocketSource::kTables;
  std::uint8_t state = 0;   ///< as in TCP_ESTABLISHED …, for every protocol
  std::uint32_t inode = 0;  ///< the number in the link /proc/PID/fd/N; 0 if no process has it any more
  std::uint64_t id = 0;     ///< tells the sockets behind one inode apart (MPTCP); each source has its own
  std::uint64_t cookie = 0;  ///< of TCP: the kernel's number for the socket, the same from every source; 0: it has none yet
  std::uint32_t receive_queue = 0;  ///< bytes not read yet; for a listening one: connections not accepted yet
  std::uint32_t send_queue = 0;     ///< bytes not acknowledged yet; for a listening one: how many may wait
  std::uint64_t drops = 0;          ///< datagrams not taken in
  // From tcp_info, zero for all but TCP.
  std::uint64_t sent = 0;  ///< bytes of payload, each once
  std::uint64_t received = 0;
  std::uint64_t segments_out = 0;
  std::uint64_t segments_in = 0;
  std::uint64_t data_segments_out = 0;  ///< those with payload
  std::uint64_t retransmits = 0;        ///< of segments with payload
  std::uint32_t rtt_us = 0;  ///< smoothed round-trip time; 0 before the first sample
};

/// Values of `state`, as the kernel numbers them.
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

/// The other side's FIN is counted as a byte.
constexpr std::uint64_t payload_received(std::uint8_t state, std::uint64_t received) {
  const bool fin = state == kCloseWait || state == kLastAck || state == kClosing;
  return fin && received > 0 ? received - 1 : received;
}

/// SYNs and FINs that are sent again count too and have no payload: while none was sent again, it was they.
constexpr std::uint64_t payload_retransmits(std::uint64_t retransmits, std::uint64_t bytes_again) {
  return bytes_again > 0 ? retransmits : 0;
}

}  // namespace boxo
