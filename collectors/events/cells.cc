// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/cells.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace boxo::events {

double Tally::count() const { return std::accumulate(counts.begin(), counts.end(), 0.0); }

Histogram Tally::exported() const {
  Histogram out;
  out.bounds.assign(buckets->exported.begin(), buckets->exported.end());
  out.counts.reserve(out.bounds.size() + 1);
  // Rounded one by one: each count never goes back, and their sum is the total that is exported.
  for (std::size_t i = 0; i <= out.bounds.size(); ++i)
    out.counts.push_back(static_cast<std::uint64_t>(std::min(counts[i] + 0.5, 0x1p63)));
  out.sum = sum / buckets->unit;
  return out;
}

void Window::use_weights() {
  weights_.reserve(size_);
  weights_.assign(values_.size(), 1.0);
}

void Window::forget(std::uint64_t before) {
  const auto keep = last_ < before ? 0 : static_cast<std::size_t>(added_ - marked_);
  if (keep >= values_.size()) return;
  const auto cut = [&](std::vector<double>& samples) {
    if (samples.empty()) return;
    std::rotate(samples.begin(), samples.begin() + static_cast<std::ptrdiff_t>(next_), samples.end());
    samples.erase(samples.begin(), samples.end() - static_cast<std::ptrdiff_t>(keep));
  };
  cut(values_);
  cut(weights_);
  next_ = 0;
}

double Window::mean() const {
  if (weights_.empty())
    return std::accumulate(values_.begin(), values_.end(), 0.0) / static_cast<double>(values_.size());
  double sum = 0;
  double weight = 0;
  for (std::size_t i = 0; i < values_.size(); ++i) {
    sum += values_[i] * weights_[i];
    weight += weights_[i];
  }
  return sum / weight;
}

namespace {

/// The place of the smallest of n samples that at least `share` of them do not exceed.
std::size_t rank(double share, std::size_t n) {
  // 0.95 is a little less or more than 95/100; the product is rounded back before it is rounded up.
  const double place = std::ceil(share * static_cast<double>(n) - 1e-9);
  return std::clamp<std::size_t>(static_cast<std::size_t>(place), 1, n) - 1;
}

Statistics weighted(const std::vector<double>& values, const std::vector<double>& weights) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  Statistics out;
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) sum += values[i] * weights[i];
  out.mean = sum / total;
  const auto at = [&](double share) {
    double below = 0;
    for (const std::size_t i : order) {
      below += weights[i];
      if (below >= total * share * (1 - 1e-12)) return values[i];
    }
    return values[order.back()];
  };
  out.p95 = at(0.95);
  out.p99 = at(0.99);
  return out;
}

}  // namespace

Statistics statistics(std::vector<double>& values, const std::vector<double>& weights) {
  if (!weights.empty()) return weighted(values, weights);
  Statistics out;
  out.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  const auto p99 = values.begin() + static_cast<std::ptrdiff_t>(rank(0.99, values.size()));
  std::nth_element(values.begin(), p99, values.end());
  out.p99 = *p99;
  // What is left of the 99th percentile is not above it: the 95th is found among these.
  const auto p95 = values.begin() + static_cast<std::ptrdiff_t>(rank(0.95, values.size()));
  if (p95 < p99) std::nth_element(values.begin(), p95, p99);
  out.p95 = *p95;
  return out;
}

}  // namespace boxo::events
