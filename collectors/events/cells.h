// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "collectors/snapshot.h"

namespace boxo::events {

inline constexpr std::uint64_t kSecond = 1'000'000'000;  ///< times are nanoseconds since boot
/// A mean, percentile, share or rate is shown for so long after its last sample, as long as Prometheus itself
/// takes a sample for the present one.
inline constexpr std::uint64_t kSampleSilence = 300 * kSecond;

/// What a counter or a gauge holds. A double counts integers exactly up to 2^53.
struct Cell {
  double value = 0;
  std::uint64_t set_at = 0;  ///< the last time
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

  void add(double value, double weight, std::uint64_t now) {
    last_ = now;
    ++added_;
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
  bool empty() const { return values_.empty(); }
  /// When the last sample came.
  std::uint64_t last() const { return last_; }
  double mean() const;
  /// The end of a tick: see forget().
  void mark() { marked_ = added_; }
  /// Forgets the samples that came before this moment, to a tick exactly: if later ones came, those since the
  /// last mark() stay.
  void forget(std::uint64_t before);

 private:
  void use_weights();

  std::size_t size_;
  std::size_t next_ = 0;      ///< where the oldest one is, once there are `size_` of them
  std::uint64_t added_ = 0;   ///< since the start
  std::uint64_t marked_ = 0;  ///< of these, up to the last mark()
  std::uint64_t last_ = 0;
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
