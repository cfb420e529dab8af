// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/reader.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "bpf/readings.h"
#include "bpf/reasons.h"

namespace boxo::kernel {

namespace {

/// What a reading of an open socket and of an ended connection tell alike.
template <class Reading>
void take_traffic(const Reading& reading, Socket& socket) {
  socket.cookie = reading.cookie;
  socket.sent = reading.bytes_sent - std::min(reading.bytes_sent, reading.bytes_again);
  socket.received = reading.bytes_received;
  socket.segments_out = reading.segments_out;
  socket.segments_in = reading.segments_in;
  socket.data_segments_out = reading.data_segments_out;
  socket.retransmits = payload_retransmits(reading.retransmits, reading.bytes_again);
}

Socket socket_of(const socket_reading& reading) {
  Socket socket;
  socket.source = SocketSource::kKernel;
  socket.protocol = reading.family == AF_UNIX         ? Protocol::kUnix
                    : reading.protocol == IPPROTO_UDP ? Protocol::kUdp
                                                      : Protocol::kTcp;
  socket.state = static_cast<std::uint8_t>(reading.state);
  socket.inode = reading.inode;
  socket.id = reading.id;
  socket.receive_queue = reading.receive_queue;
  socket.send_queue = reading.send_queue;
  socket.drops = reading.drops;
  take_traffic(reading, socket);
  socket.received = payload_received(socket.state, reading.bytes_received);
  socket.rtt_us = reading.rtt_us;
  return socket;
}

/// Little is missing on the page: most is only dearer.
constexpr const char* kOtherwise = "threads and sockets are read from /proc and sock_diag instead";

/// Whether the names of the other collectors are those of the probes, in the same order.
constexpr bool reasons_agree() {
  std::string_view rest = OFFCPU_REASON_NAMES;
  for (const std::string_view name : kWaitReasons) {
    if (rest.substr(0, name.size()) != name) return false;
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
  }
  return rest.empty() && kWaitReasons.size() == OFFCPU_REASONS;
}
static_assert(reasons_agree());

}  // namespace

char state_letter(std::uint32_t state) {
  // include/linux/sched.h: what is shown is the highest bit of those that have a letter.
  constexpr std::uint32_t kUninterruptible = 0x2, kShown = 0x7f, kNoLoad = 0x400, kLockWait = 0x1000,
                          kFrozen = 0x8000;
  constexpr std::array kLetters = {'R', 'S', 'D', 'T', 't', 'X', 'Z', 'P'};
  if (state == (kUninterruptible | kNoLoad)) return 'I';
  if ((state & (kLockWait | kFrozen)) != 0) return 'D';
  return kLetters[std::bit_width(state & kShown)];
}

Result<> Reader::check() {
  std::vector<ThreadReading> own;
  if (auto read = threads(::getpid(), own); !read) {
    if (read.error().code != E2BIG && read.error().code != EINVAL) return read;
    return Error{"iterators over one process need Linux 6.1", kOtherwise, read.error().code};
  }
  const bool found =
      std::any_of(own.begin(), own.end(), [](const auto& one) { return one.tid == ::getpid(); });
  if (!found) return Error{"the agent's own threads are not found by its pid", kOtherwise};
  return {};
}

Result<> Reader::threads(pid_t pid, std::vector<ThreadReading>& out) {
  out.clear();
  const auto take = [&out](const thread_reading& one) {
    out.push_back({static_cast<pid_t>(one.tid), state_letter(one.state), one.started_at, one.run_ns,
                   one.wait_ns, one.turns, one.voluntary, one.involuntary, one.task,
                   std::min<std::size_t>(one.waits_for, kWaitReasons.size()), one.blocked_ns});
  };
  if (auto read = probe_->iterate<thread_reading>("read_threads", {.process = pid}, take); !read) return read;
  const auto by_tid = [](const ThreadReading& a, const ThreadReading& b) { return a.tid < b.tid; };
  if (!std::is_sorted(out.begin(), out.end(), by_tid)) std::sort(out.begin(), out.end(), by_tid);
  return {};
}

Result<> Reader::sockets(pid_t pid, std::vector<Socket>& out) {
  // All threads have the descriptors of the first, and passing over 2,000 of them takes 0.4 ms. Only where the first
  // has ended before the others there is nothing to be had from it.
  const std::size_t before = out.size();
  const auto take = [&out](const socket_reading& one) { out.push_back(socket_of(one)); };
  if (auto read = probe_->iterate<socket_reading>("read_sockets", {.thread = pid}, take); !read) return read;
  return out.size() > before ? Result<>() : probe_->iterate<socket_reading>("read_sockets", {.process = pid}, take);
}

Result<> read_ended(Probe& tcp, std::vector<Socket>& out) {
  std::string records;
  if (auto taken = tcp.take_records(records); !taken) return taken;
  for (std::string_view rest = records; rest.size() >= sizeof(connection_end); rest.remove_prefix(sizeof(connection_end))) {
    connection_end one;
    std::memcpy(&one, rest.data(), sizeof(one));
    Socket socket;
    socket.source = SocketSource::kKernel;
    socket.state = kClosed;
    take_traffic(one, socket);
    out.push_back(socket);
  }
  return {};
}

}  // namespace boxo::kernel
