// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/remotes.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cmath>

namespace boxo::kernel {

namespace {

constexpr double kSilence = 600;
constexpr double kHalfLife = 300;
// A remote takes over a series only if it is clearly busier than who has it; else two equals would take turns.
constexpr double kClearly = 1.1;

/// Adds what `now` is above `before`, where it is.
void add_growth(RemoteValues& to, const RemoteValues& now, const RemoteValues& before) {
  for (std::size_t i = 0; i < to.size(); ++i)
    if (now[i] > before[i]) to[i] += now[i] - before[i];
}

}  // namespace

std::string text_of(const RemoteAddress& address) {
  constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  std::array<char, INET6_ADDRSTRLEN> text{};
  const bool v4 = std::equal(kMapped.begin(), kMapped.end(), address.begin());
  if (::inet_ntop(v4 ? AF_INET : AF_INET6, address.data() + (v4 ? kMapped.size() : 0), text.data(), text.size()) == nullptr)
    return {};
  return text.data();
}

void Remotes::see(const RemoteAddress& address, const RemoteValues& values, double now) {
  const auto [it, is_new] = remotes_.try_emplace(address);
  Remote& remote = it->second;
  if (is_new) {
    remote.heard = now;
    if (owners_ < own_limit_) give_series(remote);
  }
  remote.shown = remote.last;
  count(remote, values, now);
}

void Remotes::count(Remote& remote, const RemoteValues& values, double now) {
  if (values == remote.last) return;
  remote.heard = now;
  for (std::size_t i = 0; i < values.size() / 2; ++i)
    if (values[i] > remote.last[i]) remote.score += static_cast<double>(values[i] - remote.last[i]);
  if (!remote.own) add_growth(other_, values, remote.last);
  remote.last = values;
}

void Remotes::unlisted(const RemoteValues& values) {
  add_growth(other_, values, unlisted_);
  unlisted_ = values;
}

std::vector<RemoteAddress> Remotes::settle(double now) {
  const double fade = std::exp2(-(now - std::exchange(settled_, now)) / kHalfLife);
  std::vector<RemoteAddress> leaving;
  std::vector<Remote*> owners;
  std::vector<std::pair<RemoteAddress, Remote*>> others;
  for (auto& [address, remote] : remotes_) {
    remote.score *= fade;
    if (now - remote.heard > kSilence)
      leaving.push_back(address);
    else if (remote.own)
      owners.push_back(&remote);
    else
      others.emplace_back(address, &remote);
  }
  std::ranges::sort(owners, [](const Remote* a, const Remote* b) { return a->score > b->score; });
  std::ranges::sort(others, [](const auto& a, const auto& b) { return a.second->score > b.second->score; });
  for (auto& [address, remote] : others) {
    if (owners_ >= own_limit_) {
      if (owners.empty() || remote->score <= owners.back()->score * kClearly) break;
      take_series(*owners.back());
      owners.pop_back();
    }
    give_series(*remote);
  }
  // Room for newcomers: from three quarters down to a half, the least busy first.
  if (remotes_.size() - leaving.size() > room_ / 4 * 3)
    for (auto it = others.rbegin(); it != others.rend() && remotes_.size() - leaving.size() > room_ / 2; ++it)
      if (!it->second->own) leaving.push_back(it->first);
  return leaving;
}

void Remotes::gone(const RemoteAddress& address, const RemoteValues& last, double now) {
  const auto it = remotes_.find(address);
  if (it == remotes_.end()) return;
  count(it->second, last, now);
  if (it->second.own) take_series(it->second);
  remotes_.erase(it);
}

std::vector<Remotes::Series> Remotes::own() const {
  std::vector<Series> out;
  for (const auto& [address, remote] : remotes_) {
    if (!remote.own) continue;
    Series series{address, {}, remote.last};
    add_growth(series.values, remote.last, remote.base);
    out.push_back(series);
  }
  return out;
}

void Remotes::give_series(Remote& remote) {
  remote.own = true;
  remote.base = remote.last;
  ++owners_;
}

void Remotes::take_series(Remote& remote) {
  remote.own = false;
  --owners_;
  add_growth(other_, remote.last, remote.shown);
}

}  // namespace boxo::kernel
