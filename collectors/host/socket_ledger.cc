// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/socket_ledger.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>

namespace boxo::host {

namespace {

constexpr std::uint64_t kDropped = UINT64_MAX;
/// How many may be awaited whose end nobody has told. One whose descriptor went to a process outside the target lives on.
constexpr std::size_t kLeft = 32768;
constexpr std::size_t kAhead = 8, kCacheLine = 64;

}  // namespace

void SocketLedger::begin() {
  ++round_;
  found_.swap(before_);
  found_.clear();
  place_ = 0;
}

/// As find(); sockets mostly stand in the order in which they stood before, which saves looking for them.
SocketLedger::Entry* SocketLedger::known(const Socket& socket) {
  // Their memory is waited for at once, and not one after the other.
  if (place_ + kAhead < before_.size())
    for (std::size_t line = 0; line < sizeof(Entry); line += kCacheLine)
      __builtin_prefetch(reinterpret_cast<const char*>(before_[place_ + kAhead]) + line);
  // One further if the one between them was closed.
  for (std::size_t at = place_; at < before_.size() && at < place_ + 2; ++at) {
    Entry* const entry = before_[at];
    if (entry == nullptr || entry->inode != socket.inode || entry->id != socket.id || entry->source != socket.source)
      continue;
    place_ = at + 1;
    return entry;
  }
  return find(socket);
}

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
  entry->inode = socket.inode;
  entry->source = socket.source;
  entry->protocol = socket.protocol;
  // It was open before, and has come back from another process.
  if (const auto left = socket.cookie != 0 ? left_.extract(socket.cookie) : decltype(left_)::node_type(); left)
    entry->last = left.mapped().last;
  return *entry;
}

void SocketLedger::update(const std::vector<Process>& processes, const std::vector<Socket>& sockets,
                          const Complete& complete) {
  begin();
  owner_.begin(processes);
  bool strangers = false;
  for (const Socket& socket : sockets) {
    found_.push_back(known(socket));
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

void SocketLedger::update_own(std::vector<Socket>& sockets, const std::vector<Range>& brought) {
  begin();
  std::size_t at = 0;
  auto range = brought.begin();
  std::erase_if(sockets, [&](const Socket& socket) {
    while (range != brought.end() && range->last <= at) ++range;
    const bool came_with = range != brought.end() && range->first <= at;
    ++at;
    Entry* entry = known(socket);
    if (entry == nullptr) entry = &make(socket);
    found_.push_back(entry);
    if (entry->seen == round_) return true;
    entry->seen = round_;
    add(socket, *entry, came_with && !entry->counted);
    return false;
  });
  own_.swap(sockets);
  if (own_.size() != size_) forget({true, true, true});
}

void SocketLedger::count(const Socket& socket, Entry& entry) {
  own_.push_back(socket);
  add(socket, entry, !entry.counted && owner_.brought(socket.inode));
}

/// `brought`: what it has counted so far it did before it was the target's.
void SocketLedger::add(const Socket& socket, Entry& entry, bool brought) {
  if (socket.cookie != 0) entry.cookie = socket.cookie;
  entry.counted = true;
  grow(socket, entry.last, !brought);
}

void SocketLedger::grow(const Socket& socket, Counts& last, bool counts) {
  const Counts now = {socket.sent,        socket.received,          socket.segments_out,
                      socket.segments_in, socket.data_segments_out, socket.retransmits,
                      socket.drops};
  for (std::size_t i = 0; i < kTotals; ++i) {
    // The tables know no more than the drops.
    if (socket.source == SocketSource::kTables && i != kDrops) continue;
    if (now[i] > last[i] && counts) totals_[i] += now[i] - last[i];
    last[i] = now[i];
  }
}

void SocketLedger::ended(const std::vector<Socket>& connections) {
  std::unordered_map<std::uint64_t, const Socket*> unknown;
  for (const Socket& one : connections) {
    Counts nothing{};
    if (const auto left = left_.find(one.cookie); left != left_.end()) {
      grow(one, left->second.last);
      left_.erase(left);
    } else if (one.cookie == 0) {
      grow(one, nothing);
    } else {
      unknown.emplace(one.cookie, &one);
    }
  }
  if (unknown.empty()) return;
  // Most of them have come and gone since the last update. Some are still listed: the kernel tells of an end just before
  // it comes, and there is no update while the target is down.
  for (auto& [inode, first] : entries_)
    for (Entry* entry = &first; entry != nullptr; entry = entry->next.get()) {
      const auto it = entry->cookie != 0 ? unknown.find(entry->cookie) : unknown.end();
      if (it == unknown.end()) continue;
      // Unless the socket has already begun another connection, which the last update read.
      const Counts before = entry->last;
      grow(*it->second, entry->last);
      for (std::size_t i = 0; i < kTotals; ++i) entry->last[i] = std::max(entry->last[i], before[i]);
      unknown.erase(it);
    }
  for (const auto& [cookie, one] : unknown) {
    Counts nothing{};
    grow(*one, nothing);
  }
}

/// No process has it open any more; what it had beyond this is told by ended().
void SocketLedger::leave(const Entry& entry) {
  if (entry.cookie == 0 || entry.protocol != Protocol::kTcp || entry.last == Counts{}) return;
  if (left_.size() >= kLeft) {
    std::uint64_t newest = 0;
    for (const auto& [cookie, left] : left_) newest = std::max(newest, left.since);
    std::erase_if(left_, [newest](const auto& one) { return one.second.since < newest; });
    if (left_.size() >= kLeft) return;
  }
  left_.insert_or_assign(entry.cookie, Left{entry.last, round_});
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
      leave(**at);
      *at = std::move((*at)->next);
      --size_;
    }
  }
  if (first.seen == round_) return;
  leave(first);
  --size_;
  if (first.next) {
    const std::unique_ptr<Entry> second = std::move(first.next);
    first = std::move(*second);
    found_.clear();  // it may be in there
  } else {
    first.seen = kDropped;
  }
}

}  // namespace boxo::host
