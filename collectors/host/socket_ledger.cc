// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/socket_ledger.h"

#include <cstdint>
#include <iterator>
#include <utility>

namespace boxo::host {

namespace {

constexpr std::uint64_t kDropped = UINT64_MAX;

}  // namespace

/// nullptr if no source has described it before.
SocketLedger::Entry* SocketLedger::find(const Socket& socket) {
  const auto it = entries_.find(socket.inode);
  if (it == entries_.end()) return nullptr;
  for (Entry* entry = &it->second; entry != nullptr; entry = entry->next.get())
    if (entry->source == socket.source && entry->id == socket.id) return entry;
  // An inode is not used again for billions of sockets: it is the one that another source has described.
  for (Entry* entry = &it->second; entry != nullptr; entry = entry->next.get()) {
    if (entry->source == socket.source) continue;
    entry->source = socket.source;
    entry->id = socket.id;
    return entry;
  }
  return nullptr;
}

SocketLedger::Entry& SocketLedger::make(const Socket& socket) {
  const auto [it, is_new] = entries_.try_emplace(socket.inode);
  Entry* entry = &it->second;
  if (!is_new) {
    auto added = std::make_unique<Entry>();
    added->next = std::move(entry->next);
    entry->next = std::move(added);
    entry = entry->next.get();
  }
  ++size_;
  entry->id = socket.id;
  entry->source = socket.source;
  entry->protocol = socket.protocol;
  return *entry;
}

void SocketLedger::update(const std::vector<Process>& processes, const std::vector<Socket>& sockets,
                          const Complete& complete) {
  ++round_;
  owner_.begin(processes);
  bool strangers = false;
  found_.clear();
  for (const Socket& socket : sockets) {
    found_.push_back(find(socket));
    strangers = strangers || found_.back() == nullptr;
  }
  if (owner_.wants_look(strangers)) {
    inodes_.clear();
    for (const Socket& socket : sockets) inodes_.insert(socket.inode);
    owner_.look(processes, strangers, [this](std::uint32_t inode) { return inodes_.contains(inode); });
    // Known from now on, whoever they belong to. Until all of a look could be taken they stay strangers.
    if (owner_.trouble().empty())
      for (std::size_t i = 0; i < sockets.size(); ++i) {
        if (found_[i] != nullptr) continue;
        Entry* const twice = find(sockets[i]);
        found_[i] = twice != nullptr ? twice : &make(sockets[i]);
      }
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
  if (seen != size_) forget(complete);
}

void SocketLedger::update_own(std::vector<Socket>& sockets) {
  ++round_;
  std::erase_if(sockets, [this](const Socket& socket) {
    Entry* entry = find(socket);
    if (entry == nullptr) entry = &make(socket);
    if (entry->seen == round_) return true;
    entry->seen = round_;
    add(socket, *entry);
    return false;
  });
  own_.swap(sockets);
  if (own_.size() != size_) forget({true, true, true});
}

void SocketLedger::count(const Socket& socket, Entry& entry) {
  own_.push_back(socket);
  add(socket, entry);
}

void SocketLedger::add(const Socket& socket, Entry& entry) {
  const std::array<std::uint64_t, kTotals> now = {socket.sent,        socket.received,    socket.segments_out,
                                                  socket.segments_in, socket.retransmits, socket.drops};
  for (std::size_t i = 0; i < kTotals; ++i) {
    // The tables know no more than the drops.
    if (socket.source == SocketSource::kTables && i != kDrops) continue;
    if (now[i] > entry.last[i]) totals_[i] += now[i] - entry.last[i];
    entry.last[i] = now[i];
  }
}

/// Those that were not listed this time are closed.
void SocketLedger::forget(const Complete& complete) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    drop_closed(it->second, complete);
    it = it->second.seen == kDropped ? entries_.erase(it) : std::next(it);
  }
}

/// Of those behind one inode; if none is left the first is marked as dropped.
void SocketLedger::drop_closed(Entry& first, const Complete& complete) {
  // The tables do not tell the sockets behind one inode apart: all stay.
  for (const Entry* one = &first; one != nullptr; one = one->next.get())
    if (one->source == SocketSource::kTables && one->seen == round_) return;
  if (!complete[index_of(first.protocol)]) return;
  for (std::unique_ptr<Entry>* at = &first.next; *at;) {
    if ((*at)->seen == round_) {
      at = &(*at)->next;
    } else {
      *at = std::move((*at)->next);
      --size_;
    }
  }
  if (first.seen == round_) return;
  --size_;
  if (first.next) {
    const std::unique_ptr<Entry> second = std::move(first.next);
    first = std::move(*second);
  } else {
    first.seen = kDropped;
  }
}

}  // namespace boxo::host
