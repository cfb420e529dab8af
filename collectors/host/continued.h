// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace boxo::host {

/// Counters that are read from one place after another: the cgroup of a target that was started again, the
/// host once the cgroup has no such file. Promises: the sum never goes back and never jumps by what another
/// place had counted before; the first place is taken with all that it has counted.
template <std::size_t N>
class Continued {
 public:
  using Values = std::array<std::uint64_t, N>;

  /// `place` names where `now` was read; never 0.
  void update(std::uint64_t place, const Values& now) {
    if (place_ == 0) total_ = now;
    if (place == place_)
      for (std::size_t i = 0; i < N; ++i)
        if (now[i] > last_[i]) total_[i] += now[i] - last_[i];
    place_ = place;
    last_ = now;
  }
  const Values& total() const { return total_; }
  bool ever() const { return place_ != 0; }

 private:
  Values last_{};
  Values total_{};
  std::uint64_t place_ = 0;
};

/// Continued counters by name, of things that come and go. Promises: the first kMost names keep a sum each, for good (a host
/// that makes a loop device a minute must not fill the page); what all others counted is in one more, kOther, which does
/// not go back when some of them are gone.
template <std::size_t N>
class ContinuedByName {
 public:
  using Values = typename Continued<N>::Values;
  using Reading = std::map<std::string, Values, std::less<>>;
  static constexpr std::size_t kMost = 64;
  static constexpr const char* kOther = "other";

  /// `now` is all that is there.
  void update(std::uint64_t place, const Reading& now) {
    for (const auto& [name, values] : now) {
      auto it = own_.find(name);
      if (it == own_.end() && own_.size() < kMost && name != kOther) it = own_.try_emplace(name).first;
      (it == own_.end() ? others_[name] : it->second).update(place, values);
    }
    std::erase_if(others_, [&](const auto& entry) {
      if (now.contains(entry.first)) return false;
      add(gone_, entry.second.total());
      return true;
    });
    has_others_ = has_others_ || !others_.empty();
  }

  bool empty() const { return own_.empty() && !has_others_; }
  /// Calls visit(name, sums) for each.
  template <class Visit>
  void each(Visit visit) const {
    for (const auto& [name, counters] : own_) visit(name, counters.total());
    if (!has_others_) return;
    Values rest = gone_;
    for (const auto& [name, counters] : others_) add(rest, counters.total());
    visit(std::string(kOther), rest);
  }

 private:
  static void add(Values& sum, const Values& more) {
    for (std::size_t i = 0; i < N; ++i) sum[i] += more[i];
  }

  std::map<std::string, Continued<N>, std::less<>> own_;
  std::map<std::string, Continued<N>, std::less<>> others_;  ///< those that are there
  Values gone_{};
  bool has_others_ = false;
};

}  // namespace boxo::host
