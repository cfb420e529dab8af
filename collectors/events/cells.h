// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "collectors/snapshot.h"

namespace boxo::events {

/// What a counter or a gauge holds. A double counts integers exactly up to 2^53.
struct Cell {
  double value = 0;
  std::uint64_t set_at = 0;  ///< nanoseconds since boot, gauges only
  bool seen = false;         ///< false: nothing arrived, the metric is absent
};

/// The edges of a histogram, inclusive, as samples are written (milliseconds) and as they are exported
/// (seconds). Both are literals: neither compares nor exports a rounded quotient.
struct Buckets {
  std::span<const double> raw;
  std::span<const double> exported;
  double unit;  ///< a sample divided by this is in the exported unit
};

inline constexpr std::size_t kMaxBuckets = 26;

/// A histogram of weighted samples, in the unit in which they were sent.
struct Tally {
  const Buckets* buckets = nullptr;
  double sum = 0;
  std::array<double, kMaxBuckets> counts{};  ///< the last used one holds what is above every edge

  void add(double value, double weight) {
    // A binary search without a branch that could be guessed wrongly.
    const double* const edges = buckets->raw.data();
    std::size_t at = 0;
    for (std::size_t left = buckets->raw.size(); left > 0;) {
      const std::size_t half = (left + 1) / 2;
      at += edges[at + half - 1] < value ? half : 0;
      left = left - half;
    }
    counts[at] += weight;
    sum += value * weight;
  }
  double count() const;
  Histogram exported() const;
};

/// The last N samples and how much each of them weighs.
class Window {
 public:
  explicit Window(std::size_t size) : size_(size) { values_.reserve(size); }

  void add(double value, double weight) {
    if (weight != 1 && weights_.empty()) use_weights();
    if (values_.size() < size_) {
      values_.push_back(value);
      if (!weights_.empty()) weights_.push_back(weight);
      return;
    }
    values_[next_] = value;
    if (!weights_.empty()) weights_[next_] = weight;
    if (++next_ == size_) next_ = 0;
  }
  const std::vector<double>& values() const { return values_; }
  /// Empty while every sample weighs 1.
  const std::vector<double>& weights() const { return weights_; }
  double mean() const;

 private:
  void use_weights();

  std::size_t size_;
  std::size_t next_ = 0;
  std::vector<double> values_;
  std::vector<double> weights_;
};

/// Of the samples of a window.
struct Statistics {
  double mean = 0;
  double p95 = 0;  ///< nearest rank: the smallest sample that at least 95 % of the weight does not exceed
  double p99 = 0;
};

/// Reorders `values`, of which there is at least one; `weights` is empty or as long.
Statistics statistics(std::vector<double>& values, const std::vector<double>& weights);

}  // namespace boxo::events
