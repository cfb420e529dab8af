// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <optional>
#include <string_view>

namespace boxo::kernel {

/// Spreads a share of all ticks evenly: with 0.25 every fourth.
class Windows {
 public:
  explicit Windows(double share = 1) : share_(share) {}
  /// Whether the interval that begins now is one of them. The first one is.
  bool next() {
    sum_ += share_;
    if (first_ || sum_ >= 1) {
      sum_ -= first_ ? share_ : 1;
      first_ = false;
      return true;
    }
    return false;
  }
  double share() const { return share_; }

 private:
  double share_, sum_ = 0;
  bool first_ = true;
};

/// The share in "syscalls:10%": more than 0 and at most 1; 1 if there is no colon; nothing if it is no share.
std::optional<double> share_of(std::string_view option);

}  // namespace boxo::kernel
