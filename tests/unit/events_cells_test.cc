// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "collectors/events/builtin.h"
#include "collectors/events/cells.h"
#include "collectors/events/publisher.h"

using namespace boxo::events;

TEST_CASE("events: a histogram's edges are inclusive, and every sample falls where a linear search puts it") {
  for (std::size_t which = 0; which < kTimings; ++which) {
    const Buckets& buckets = buckets_of(static_cast<Timing>(which));
    REQUIRE(buckets.raw.size() == buckets.exported.size());
    REQUIRE(buckets.raw.size() < kMaxBuckets);
    for (std::size_t i = 0; i < buckets.raw.size(); ++i)
      CHECK(buckets.raw[i] == doctest::Approx(buckets.exported[i] * buckets.unit).epsilon(1e-12));
    std::vector<double> values = {0, 1e-9, 1e12};
    for (const double edge : buckets.raw)
      for (const double value : {std::nextafter(edge, 0), edge, std::nextafter(edge, 1e300)})
        values.push_back(value);
    for (const double value : values) {
      Tally tally;
      tally.buckets = &buckets;
      tally.add(value, 1);
      const auto expected = static_cast<std::size_t>(
          std::count_if(buckets.raw.begin(), buckets.raw.end(), [&](double edge) { return edge < value; }));
      CAPTURE(value);
      CHECK(tally.counts[expected] == 1);
      CHECK(tally.count() == 1);
    }
  }
}

TEST_CASE("events: a window holds the last samples") {
  Window window(3);
  for (const double value : {1, 2, 3, 4, 5}) window.add(value, 1, 1);
  std::vector<double> values = window.values();
  std::sort(values.begin(), values.end());
  CHECK(values == std::vector<double>{3, 4, 5});
  CHECK(window.mean() == 4);
  CHECK(window.weights().empty());
  window.add(10, 3, 1);
  CHECK(window.mean() == doctest::Approx((4 + 5 + 30) / 5.0));
}

TEST_CASE("events: percentiles are nearest ranks") {
  for (const std::size_t n : {1, 2, 19, 20, 21, 99, 100, 101, 999, 1000}) {
    std::vector<double> values(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<double>(i + 1);
    std::shuffle(values.begin(), values.end(), std::mt19937(static_cast<unsigned>(n)));
    const std::vector<double> ones(n, 1);
    std::vector<double> copy = values;
    for (const Statistics& found : {statistics(values, {}), statistics(copy, ones)}) {
      CAPTURE(n);
      CHECK(found.p95 == static_cast<double>((95 * n + 99) / 100));
      CHECK(found.p99 == static_cast<double>((99 * n + 99) / 100));
      CHECK(found.mean == doctest::Approx((static_cast<double>(n) + 1) / 2));
    }
  }
}

TEST_CASE("events: a sample that stands for many moves the percentiles as many would") {
  std::vector<double> values = {1, 2, 3};
  const Statistics found = statistics(values, {94, 4, 2});
  CHECK(found.p95 == 2);
  CHECK(found.p99 == 3);
  CHECK(found.mean == doctest::Approx(1.08));
}

TEST_CASE("events: a share is over the last things, in whole ticks") {
  Share share(100);
  CHECK(!share.value());
  share.update(0, 0, 1, 0);
  CHECK(!share.value());
  share.update(85, 100, 1, 0);
  CHECK(*share.value() == 0.85);
  share.update(85, 100, 1, 0);
  CHECK(*share.value() == 0.85);  // nothing new: still true of the last hundred
  share.update(85, 150, 1, 0);
  CHECK(*share.value() == doctest::Approx(85.0 / 150));
  share.update(85, 200, 1, 0);
  CHECK(*share.value() == 0);   // the first hundred is no longer among the last
  share.update(90, 200, 1, 0);  // a part told before its whole
  CHECK(*share.value() == 0);
  share.update(95, 300, 1, 0);
  CHECK(*share.value() == doctest::Approx(0.1));
}

TEST_CASE(
    "events: what a window and a share knew of somebody who has ended is forgotten, to a tick exactly") {
  for (const double weight : {1.0, 3.0}) {
    Window window(4);
    for (int i = 1; i <= 6; ++i) window.add(i, weight, 10);
    window.forget(10);
    CHECK(window.values().size() == 4);  // nothing is older
    window.mark();
    window.add(7, weight, 20);
    window.add(8, weight, 20);
    window.forget(15);
    CHECK(window.values() == std::vector<double>{7, 8});
    window.add(9, weight, 30);
    CHECK(window.mean() == 8);
    for (int i = 10; i <= 12; ++i) window.add(i, weight, 30);
    CHECK(window.mean() == 10.5);  // 9 to 12: the oldest go first
    window.forget(31);
    CHECK(window.empty());
    window.add(1, weight, 32);
    CHECK(window.mean() == 1);
  }
  Share share(100);
  share.update(90, 100, 10, 0);
  CHECK(*share.value() == 0.9);
  share.update(90, 100, 10, 11);
  CHECK(!share.value());
  share.update(95, 105, 10, 11);  // still of before, only told late
  CHECK(!share.value());
  share.update(96, 115, 12, 11);
  CHECK(*share.value() == 0.1);
  share.update(106, 125, 14, 13);  // the successor's own
  CHECK(*share.value() == 1);
}
