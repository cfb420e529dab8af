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

#include "bpf/readings.h"

namespace boxo::kernel {

namespace {

/// Calls each(record) for every record in the text that an iterator wrote.
template <class Record, class Each>
void for_each_record(const std::string& records, Each each) {
  for (std::size_t at = 0; at + sizeof(Record) <= records.size(); at += sizeof(Record)) {
    Record record;
    std::memcpy(&record, records.data() + at, sizeof(Record));
    each(record);
  }
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
  socket.sent = reading.bytes_sent - std::min(reading.bytes_sent, reading.bytes_again);
  socket.received = payload_received(socket.state, reading.bytes_received);
  socket.segments_out = reading.segments_out;
  socket.segments_in = reading.segments_in;
  socket.retransmits = reading.retransmits;
  socket.rtt_us = reading.rtt_us;
  return socket;
}

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
    return Error{"iterators over one process need Linux 6.1", {}, read.error().code};
  }
  const bool found =
      std::any_of(own.begin(), own.end(), [](const auto& one) { return one.tid == ::getpid(); });
  if (!found) return Error{"the agent's own threads are not found by its pid"};
  const auto self = Dir::open("/proc");
  const auto link = self ? self->link("self") : Result<std::string>(self.error());
  if (!link || *link != std::to_string(::getpid()))
    return Error{"/proc is of another pid namespace than the agent"};
  return {};
}

Result<> Reader::threads(pid_t pid, std::vector<ThreadReading>& out) {
  out.clear();
  if (auto read = probe_->iterate("read_threads", records_, pid); !read) return read;
  for_each_record<thread_reading>(records_, [&out](const thread_reading& one) {
    out.push_back({static_cast<pid_t>(one.tid), state_letter(one.state), one.started_at, one.run_ns,
                   one.wait_ns, one.turns, one.voluntary, one.involuntary});
  });
  const auto by_tid = [](const ThreadReading& a, const ThreadReading& b) { return a.tid < b.tid; };
  if (!std::is_sorted(out.begin(), out.end(), by_tid)) std::sort(out.begin(), out.end(), by_tid);
  return {};
}

Result<> Reader::sockets(pid_t pid, std::vector<Socket>& out) {
  if (auto read = probe_->iterate("read_sockets", records_, pid); !read) return read;
  for_each_record<socket_reading>(records_,
                                  [&out](const socket_reading& one) { out.push_back(socket_of(one)); });
  return {};
}

}  // namespace boxo::kernel
