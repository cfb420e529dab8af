// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

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

}  // namespace boxo::host
