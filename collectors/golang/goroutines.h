// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "collectors/golang/reader.h"
#include "collectors/time_budget.h"

namespace boxo::golang {

/// Goroutines of all programs by status and reason to wait. Up to kFew are counted at each call; more, for at most 2 % of
/// the time and at least once a minute; above kMost not at all.
class Goroutines {
 public:
  static constexpr std::uint64_t kFew = 1000;
  static constexpr std::uint64_t kMost = 1000000;
  using Kind = std::pair<std::string_view, std::string>;  ///< the status and the reason

  /// `generation`: of the target; another one is counted at once.
  void count(Reader& reader, std::uint64_t generation);

  /// How many there are of each kind that was seen.
  const std::map<Kind, std::uint64_t>& kinds() const { return kinds_; }
  /// Why they are not counted; "" if they are.
  const std::string& trouble() const { return trouble_; }
  /// Since kinds() were counted.
  std::chrono::nanoseconds age() const { return age_; }

 private:
  void begin();
  std::string add(Reader& reader, const Reader::Running& one);

  TimeBudget budget_{50, {}, std::chrono::minutes(1)};
  std::map<Kind, std::uint64_t> kinds_;
  std::string trouble_;
  std::chrono::nanoseconds age_{};
  std::uint64_t generation_ = 0;
};

}  // namespace boxo::golang
