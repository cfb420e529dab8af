// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectors/golang/reader.h"
#include "collectors/time_budget.h"

namespace boxo::golang {

/// Goroutines of all programs by status and reason to wait. Promises: up to kFew are counted at each call; more, for at most
/// 2 % of the time, also where programs come and go or cannot be counted, and at least once a minute; above kMost not at all.
class Goroutines {
 public:
  static constexpr std::uint64_t kFew = 1000;
  static constexpr std::uint64_t kMost = 1000000;
  using Kind = std::pair<std::string_view, std::string>;  ///< the status and the reason
  using MemoryOf = std::function<Memory(const Process&)>;

  /// `running` is not empty.
  void count(const std::vector<Reader::Running>& running, const MemoryOf& memory_of, TimeBudget::Clock::time_point now);

  /// How many there are of each kind that was seen.
  const std::map<Kind, std::uint64_t>& kinds() const { return kinds_; }
  /// Why they are not counted; "" if they are.
  const std::string& trouble() const { return trouble_; }
  /// Since kinds() were counted.
  std::chrono::nanoseconds age() const { return age_; }

 private:
  void begin();
  std::string add(const Reader::Running& one, Memory memory);

  TimeBudget budget_{50, {}, std::chrono::minutes(1)};
  std::map<Kind, std::uint64_t> kinds_;
  std::string trouble_;
  std::string failure_;  ///< of the last census
  std::chrono::nanoseconds age_{};
  std::uint64_t begun_ = 0;  ///< which program was the first one then
};

}  // namespace boxo::golang
