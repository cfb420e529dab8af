// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/senders.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <utility>

namespace boxo::events {

namespace {

/// The users that the group database names as members. Those that have it as their first group need no list.
std::vector<uid_t> members_of(gid_t gid) {
  std::vector<uid_t> out;
  std::vector<char> text(1 << 16);
  group entry{};
  group* found = nullptr;
  if (::getgrgid_r(gid, &entry, text.data(), text.size(), &found) != 0 || found == nullptr) return out;
  for (char** name = found->gr_mem; *name != nullptr; ++name) {
    std::array<char, 1 << 14> user_text;
    passwd user{};
    passwd* known = nullptr;
    if (::getpwnam_r(*name, &user, user_text.data(), user_text.size(), &known) == 0 && known != nullptr)
      out.push_back(known->pw_uid);
  }
  return out;
}

}  // namespace

Result<gid_t> find_group(const std::string& name) {
  gid_t number = 0;
  const auto [rest, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc{} && rest == name.data() + name.size()) return number;
  std::vector<char> text(1 << 16);
  group entry{};
  group* found = nullptr;
  const int code = ::getgrnam_r(name.c_str(), &entry, text.data(), text.size(), &found);
  if (found != nullptr) return found->gr_gid;
  return Error{"--events-group " + name + ": no such group", "give the name or the number of a group", code};
}

Senders::Senders(std::optional<gid_t> group, bool group_by_mode)
    : group_(group), group_by_mode_(group_by_mode), self_(::geteuid()) {
  if (group_) members_ = members_of(*group_);
}

void Senders::set_users(std::vector<uid_t> users) {
  if (users == users_) return;
  users_ = std::move(users);
  last_ = {0, 0, 0};
  last_allowed_ = true;
}

bool Senders::decide(const ucred& sender) const {
  const auto has = [&](const std::vector<uid_t>& list) {
    return std::find(list.begin(), list.end(), sender.uid) != list.end();
  };
  if (sender.uid == 0 || sender.uid == self_ || has(users_)) return true;
  return group_ && (group_by_mode_ || sender.gid == *group_ || has(members_));
}

}  // namespace boxo::events
