// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/socket_ledger.h"

namespace boxo::host {

namespace {

/// Older kernels count cookies up in each network namespace by itself; inodes are counted for all.
std::uint64_t key_of(const Socket& socket) { return socket.cookie ^ std::uint64_t{socket.inode} << 32; }

}  // namespace

void SocketLedger::update(const std::vector<Process>& processes, const std::vector<Socket>& sockets) {
  ++round_;
  owner_.begin(processes);
  bool strangers = false;
  found_.clear();
  for (const Socket& socket : sockets) {
    const auto it = entries_.find(key_of(socket));
    found_.push_back(it == entries_.end() ? nullptr : &it->second);
    strangers = strangers || it == entries_.end();
  }
  if (owner_.wants_look(strangers)) {
    inodes_.clear();
    for (const Socket& socket : sockets) inodes_.insert(socket.inode);
    owner_.look(processes, strangers, [this](std::uint32_t inode) { return inodes_.contains(inode); });
    // Known from now on, whoever they belong to. Until a look could be taken they stay strangers.
    for (std::size_t i = 0; i < sockets.size(); ++i)
      if (found_[i] == nullptr) found_[i] = &entries_[key_of(sockets[i])];
  }
  own_.clear();
  std::size_t seen = 0;
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    Entry* const entry = found_[i];
    if (entry == nullptr || entry->seen == round_) continue;
    entry->seen = round_;
    ++seen;
    if (owner_.owns(sockets[i].inode)) count(sockets[i], *entry);
  }
  if (seen != entries_.size())
    std::erase_if(entries_, [this](const auto& entry) { return entry.second.seen != round_; });
}

void SocketLedger::count(const Socket& socket, Entry& entry) {
  own_.push_back(socket);
  const std::array<std::uint64_t, kTotals> now = {socket.sent,        socket.received,    socket.segments_out,
                                                  socket.segments_in, socket.retransmits, socket.drops};
  for (std::size_t i = 0; i < kTotals; ++i) {
    if (now[i] > entry.last[i]) totals_[i] += now[i] - entry.last[i];
    entry.last[i] = now[i];
  }
}

}  // namespace boxo::host
