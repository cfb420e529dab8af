// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bpf/metric.h"

namespace boxo::kernel {

using RemoteAddress = std::array<std::uint8_t, 16>;  ///< IPv4 as ::ffff:a.b.c.d
using RemoteValues = std::array<std::uint64_t, REMOTE_VALUES>;

/// "192.0.2.1", "2001:db8::1".
std::string text_of(const RemoteAddress& address);

/// What was counted by remote address: the busiest by bytes have series of their own, all others are summed up. Promises:
/// no value ever goes back, and what was counted grows in one series and no other, also when a remote gains or loses its own:
/// it begins at zero, and what it has shown does not move to the others.
/// Once a tick: see() for every entry of the kernel's map, unlisted(), settle(), then what is to be shown.
class Remotes {
 public:
  /// `own_limit`: how many may have series of their own; `room`: how many entries the kernel's map has.
  explicit Remotes(std::size_t own_limit = 100, std::size_t room = REMOTES_MAX) : own_limit_(own_limit), room_(room) {}

  /// What the kernel has counted for this address since its entry was made. `now` is in seconds.
  void see(const RemoteAddress& address, const RemoteValues& values, double now);
  /// What the kernel has counted so far for which it found no room in its map.
  void unlisted(const RemoteValues& values);
  /// Gives the series to the busiest. Returns whose entries are to be taken out of the kernel's map: who has been silent
  /// for ten minutes, and if the map gets full the least busy.
  std::vector<RemoteAddress> settle(double now);
  /// An entry was taken out of the kernel's map; these were its last values.
  void gone(const RemoteAddress& address, const RemoteValues& last, double now);

  struct Series {
    RemoteAddress address;
    RemoteValues values{};  ///< since it has series of its own
    RemoteValues all{};     ///< since it is known
  };
  /// Those that have series.
  std::vector<Series> own() const;
  /// All that no series of a remote's own has shown.
  const RemoteValues& other() const { return other_; }

 private:
  struct Hash {
    std::size_t operator()(const RemoteAddress& address) const {
      std::array<std::uint64_t, 2> words{};
      std::memcpy(words.data(), address.data(), sizeof(words));
      return std::hash<std::uint64_t>()(words[0] * 0x9e3779b97f4a7c15 ^ words[1]);
    }
  };
  struct Remote {
    RemoteValues last{};
    RemoteValues base{};   ///< where its series began; what it had before is in other_
    RemoteValues shown{};  ///< as it was seen the last time but one, which is what its series has shown
    double score = 0;     ///< its bytes, halved every five minutes
    double heard = 0;
    bool own = false;
  };
  void count(Remote& remote, const RemoteValues& values, double now);
  void give_series(Remote& remote);
  void take_series(Remote& remote);

  std::size_t own_limit_, room_;
  std::size_t owners_ = 0;
  double settled_ = 0;
  std::unordered_map<RemoteAddress, Remote, Hash> remotes_;
  RemoteValues unlisted_{};
  RemoteValues other_{};
};

}  // namespace boxo::kernel
