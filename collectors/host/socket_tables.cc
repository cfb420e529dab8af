// SPDX-License-Identifier: MIT OR Apache-2.0
#include <cerrno>
#include <string_view>

#include "collectors/host/socket.h"
#include "collectors/host/text.h"
#include "collectors/members.h"
#include "collectors/reading.h"

namespace boxo::host {

namespace {

constexpr std::size_t kLargest = std::size_t{64} << 20;

/// A line of net/tcp, tcp6, udp or udp6; false if it is not of the known form.
bool parse_inet(std::string_view line, Socket& socket) {
  next_word(line);  // its number in the list
  next_word(line);  // local address
  next_word(line);  // remote address
  const auto state = to_number(next_word(line), 16);
  const std::string_view queues = next_word(line);
  const std::size_t colon = queues.find(':');
  if (!state || *state > kClosing || colon == std::string_view::npos) return false;
  const auto send = to_number(queues.substr(0, colon), 16);
  const auto receive = to_number(queues.substr(colon + 1), 16);
  for (int skipped = 0; skipped < 4; ++skipped) next_word(line);  // timer, retransmits, uid, timeout
  const auto inode = to_number(next_word(line));
  if (!send || !receive || !inode || *inode > UINT32_MAX) return false;
  socket.state = static_cast<std::uint8_t>(*state);
  socket.send_queue = static_cast<std::uint32_t>(*send);
  socket.receive_queue = static_cast<std::uint32_t>(*receive);
  socket.inode = static_cast<std::uint32_t>(*inode);
  if (socket.protocol != Protocol::kUdp) return true;
  next_word(line);  // reference count
  next_word(line);  // address of the socket
  const auto drops = to_number(next_word(line));
  if (!drops) return false;
  socket.drops = *drops;
  return true;
}

/// A line of net/unix.
bool parse_unix(std::string_view line, Socket& socket) {
  for (int skipped = 0; skipped < 3; ++skipped) next_word(line);  // address, reference count, protocol
  const auto flags = to_number(next_word(line), 16);
  next_word(line);  // type
  const auto state = to_number(next_word(line), 16);
  const auto inode = to_number(next_word(line));
  if (!flags || !state || !inode || *inode > UINT32_MAX) return false;
  constexpr std::uint64_t kAccepts = 1 << 16;
  constexpr std::uint64_t kConnected = 3;
  socket.state = (*flags & kAccepts) != 0 ? kListening : *state == kConnected ? kEstablished : kClosed;
  socket.inode = static_cast<std::uint32_t>(*inode);
  return true;
}

}  // namespace

Result<> read_socket_table(const Process& process, Protocol protocol, std::vector<Socket>& out) {
  struct Table {
    const char* file;
    Protocol protocol;
    bool optional;  // IPv6 may be off
  };
  constexpr Table kTables[] = {{"net/tcp", Protocol::kTcp, false},
                               {"net/tcp6", Protocol::kTcp, true},
                               {"net/udp", Protocol::kUdp, false},
                               {"net/udp6", Protocol::kUdp, true},
                               {"net/unix", Protocol::kUnix, false}};
  for (const Table& table : kTables) {
    if (table.protocol != protocol) continue;
    auto text = process.shared().read(table.file, kLargest);
    if (!text) {
      if (table.optional && text.error().code == ENOENT && is_there(process)) continue;
      return text.error();
    }
    std::string_view rest = *text;
    next_line(rest);  // the heading
    while (!rest.empty()) {
      Socket socket;
      socket.protocol = protocol;
      const std::string_view line = next_line(rest);
      const bool good = protocol == Protocol::kUnix ? parse_unix(line, socket) : parse_inet(line, socket);
      if (good && socket.inode != 0) out.push_back(socket);
    }
  }
  return {};
}

}  // namespace boxo::host
