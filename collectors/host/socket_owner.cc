// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/socket_owner.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <utility>

#include "collectors/host/descriptors.h"
#include "collectors/host/listing.h"
#include "collectors/host/text.h"
#include "collectors/members.h"
#include "collectors/reading.h"

namespace boxo::host {

namespace {

constexpr std::size_t kCheckedAtOnce = 32;

/// The inode of a socket behind descriptor `number`; 0 if it is something else or has been closed.
Result<std::uint32_t> socket_behind(const Dir& fds, std::uint32_t number) {
  std::array<char, 16> name{};
  std::to_chars(name.data(), name.data() + name.size() - 1, number);
  std::array<char, 64> link{};
  const ssize_t n = ::readlinkat(fds.fd(), name.data(), link.data(), link.size());
  constexpr std::string_view kPrefix = "socket:[";
  if (n < 0 && errno != ENOENT && errno != ESRCH) return errno_error("fd/N");
  if (n <= static_cast<ssize_t>(kPrefix.size())) return std::uint32_t{0};
  std::string_view text(link.data(), static_cast<std::size_t>(n));
  if (!text.starts_with(kPrefix) || !text.ends_with(']')) return std::uint32_t{0};
  text.remove_prefix(kPrefix.size());
  text.remove_suffix(1);
  const auto inode = to_number(text);
  return inode && *inode <= UINT32_MAX ? static_cast<std::uint32_t>(*inode) : 0;
}

}  // namespace

void SocketOwner::begin(const std::vector<Process>& processes) {
  ++round_;
  changed_ = false;
  for (const Process& process : processes) {
    Member& member = members_[process.id];
    member.seen = round_;
    if (member.survivor != process.survivor) {
      member.survivor = process.survivor;
      member.fds = {};
      member.changed = true;
    }
    const auto count = quick_fd_count(process);
    member.count_now = count.value_or(0);
    if (!count || member.count_now != member.count) member.changed = true;
    changed_ = changed_ || member.changed;
  }
  const std::size_t ended =
      std::erase_if(members_, [this](const auto& entry) { return entry.second.seen != round_; });
  if (ended > 0) rebuild();
}

bool SocketOwner::wants_look(bool strangers) const {
  return (changed_ || strangers || !trouble_.empty()) && budget_.allows(TimeBudget::Clock::now());
}

void SocketOwner::look(const std::vector<Process>& processes, bool strangers,
                       const std::function<bool(std::uint32_t)>& exists) {
  const auto begin = TimeBudget::cpu_time();
  if (trouble_.empty()) brought_.clear();
  trouble_.clear();
  for (const Process& process : processes) {
    Member& member = members_[process.id];
    if (!member.changed && !strangers) continue;
    look(process, member, strangers, exists);
  }
  rebuild();
  budget_.spent(TimeBudget::Clock::now(), TimeBudget::cpu_time() - begin);
}

void SocketOwner::look(const Process& process, Member& member, bool strangers,
                       const std::function<bool(std::uint32_t)>& exists) {
  if (!member.fds) {
    auto fds = process.shared().dir("fd");
    if (!fds) {
      if (!ended(process, fds.error())) trouble_ = reason(fds.error());
      return;
    }
    member.fds = std::move(*fds);
  }
  // Both the directory and what is known are in ascending order.
  std::vector<Descriptor> now;
  now.reserve(member.descriptors.size() + 16);
  auto known = member.descriptors.cbegin();
  std::string unread;
  auto done = list_numbers(member.fds, [&](std::uint32_t number) {
    while (known != member.descriptors.cend() && known->number < number) ++known;
    const bool same = known != member.descriptors.cend() && known->number == number &&
                      (known->inode == 0 ? !strangers : exists(known->inode));
    auto inode = same ? known->inode : socket_behind(member.fds, number);
    if (!inode && unread.empty()) unread = reason(inode.error());
    now.push_back({number, inode ? *inode : 0});
  });
  if (!done) {
    if (!ended(process, done.error())) trouble_ = reason(done.error());
    return;
  }
  if (!unread.empty()) {
    if (is_there(process)) trouble_ = std::move(unread);
    return;
  }
  member.descriptors = std::move(now);
  if (!std::exchange(member.looked_at, true) && process.ran_before)
    for (const Descriptor& one : member.descriptors) brought_.insert(one.inode);
  member.count = member.count_now;
  member.changed = false;
  check_some(member);
}

/// A descriptor may be closed and used anew while the old socket lives on in another process: nothing speaks
/// against it then, so all are read again in turn.
void SocketOwner::check_some(Member& member) {
  for (std::size_t i = 0; i < std::min(kCheckedAtOnce, member.descriptors.size()); ++i) {
    member.checked = (member.checked + 1) % member.descriptors.size();
    Descriptor& one = member.descriptors[member.checked];
    if (one.inode == 0) continue;
    if (const auto inode = socket_behind(member.fds, one.number)) one.inode = *inode;
  }
}

void SocketOwner::rebuild() {
  owned_.clear();
  for (const auto& [id, member] : members_)
    for (const Descriptor& one : member.descriptors)
      if (one.inode != 0) owned_.insert(one.inode);
}

}  // namespace boxo::host
