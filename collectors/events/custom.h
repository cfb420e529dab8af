// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "collectors/events/cells.h"
#include "collectors/events/line.h"
#include "collectors/metric.h"
#include "collectors/snapshot.h"

namespace boxo::events {

/// One series with a name of the application.
struct CustomSeries {
  Labels labels;
  Cell cell;
  std::unique_ptr<Tally> tally;  ///< samples only
};

/// One metric of the application. All but `series` and `dropped` never changes.
struct CustomFamily {
  char type = 0;  ///< as in Line, 'h' for both kinds of samples
  std::shared_ptr<const Metric> metric;
  std::vector<CustomSeries*> series;
  std::uint64_t dropped = 0;  ///< lines for which there was no room
};

/// The application's own metrics. Bounded in number and in bytes of names and labels; a series once made
/// stays.
class Custom {
 public:
  Custom(std::size_t limit, std::vector<std::string> constant_labels);

  struct Found {
    CustomSeries* series = nullptr;  ///< nullptr: rejected
    Reason reason{};
    std::uint64_t* dropped =
        nullptr;  ///< with Reason::kSeriesLimit: the count of the family it would belong to
  };
  Found find(const Line& line);

  template <class F>
  void for_each_gauge(F f) {
    for (CustomFamily& family : families_)
      if (family.type == 'g')
        for (CustomSeries* series : family.series) f(series->cell);
  }
  const std::deque<CustomFamily>& families() const { return families_; }
  /// Lines with new names for which there was no room.
  std::uint64_t dropped_names() const { return dropped_names_; }

 private:
  CustomFamily* make_family(const Line& line, char type, Reason& reason);

  std::size_t limit_;
  std::size_t bytes_left_;
  std::vector<std::string> constant_labels_;
  std::uint64_t dropped_names_ = 0;
  std::string key_;  ///< of the line at hand; a member to keep its memory
  // Deques, because others hold pointers to what is in them.
  std::deque<CustomFamily> families_;
  std::deque<CustomSeries> series_;
  std::unordered_map<std::string, CustomFamily*> by_name_;  ///< by the name in the line
  std::unordered_map<std::string, CustomFamily*>
      by_exported_;  ///< by every sample name that the family exports
  std::unordered_map<std::string, CustomSeries*> by_key_;
};

}  // namespace boxo::events
