// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/pace.h"

#include <doctest/doctest.h>

#include <vector>

using namespace boxo;
using namespace boxo::host;
using namespace std::chrono_literals;

namespace {

constexpr Metric kSeen{"boxo_test_seen", MetricType::kGauge, "", "", Source::kProc, "A number."};

Snapshot showing(double value) {
  Snapshot out;
  out.add(kSeen, value);
  return out;
}

}  // namespace

TEST_CASE("a time budget: what was dear waits longer") {
  const auto start = TimeBudget::Clock::time_point(1h);
  TimeBudget budget(50, 100ms, 60s);
  CHECK(budget.allows(start));
  budget.spent(start, 1ms);  // 50 ms, but never more often than this
  CHECK_FALSE(budget.allows(start + 99ms));
  CHECK(budget.allows(start + 100ms));
  budget.spent(start + 1s, 100ms);
  CHECK(budget.last() == start + 1s);
  CHECK_FALSE(budget.allows(start + 5999ms));
  CHECK(budget.allows(start + 6s));
  budget.spent(start + 10s, 30s);  // 25 minutes
  CHECK_FALSE(budget.allows(start + 69s));
  CHECK(budget.allows(start + 70s));

  // Over an hour, whatever a reading costs: a fiftieth.
  constexpr TimeBudget::Clock::duration kHour = 1h;
  for (const TimeBudget::Clock::duration cost : std::initializer_list<TimeBudget::Clock::duration>{100us, 1000us, 7000us, 100'000us, 1'000'000us}) {
    TimeBudget hour(50);
    TimeBudget::Clock::duration spent{};
    for (auto now = start; now < start + kHour; now += 100ms) {
      if (!hour.allows(now)) continue;
      spent += cost;
      hour.spent(now + cost, cost);
    }
    CHECK(spent <= kHour / 50 + cost);
    CHECK(spent >= std::min(kHour / 60, 36000 * cost));
  }
}

TEST_CASE("a time budget: what failed is tried at the next tick, then at twice the time, up to the ordinary one") {
  // What it costs is nothing beside the time between two ticks.
  const auto start = TimeBudget::Clock::time_point(1h);
  const auto tries = [start](TimeBudget& budget, TimeBudget::Clock::duration seldom) {
    std::vector<int> at;
    for (int second = 0; second <= 400; second += 5) {
      const auto now = start + std::chrono::seconds(second);
      if (!budget.allows(now)) continue;
      at.push_back(second);
      budget.failed(now, 1us, seldom);
    }
    return at;
  };
  TimeBudget dear(50, 60s);
  CHECK(tries(dear, {}) == std::vector<int>{0, 5, 15, 35, 75, 135, 195, 255, 315, 375});
  TimeBudget slower(50, 6s);
  CHECK(tries(slower, 60s) == std::vector<int>{0, 5, 15, 35, 75, 135, 195, 255, 315, 375});
  TimeBudget often(50, 6s);
  CHECK(tries(often, {}) == std::vector<int>{0, 5, 15, 25, 35, 45, 55, 65, 75, 85, 95, 105, 115, 125, 135, 145, 155, 165, 175, 185, 195, 205,
                                             215, 225, 235, 245, 255, 265, 275, 285, 295, 305, 315, 325, 335, 345, 355, 365, 375, 385, 395});

  // By its cost, where that is more; and a good one in between does not make it begin anew, two do.
  TimeBudget budget(50, 100ms, 60s);
  const auto wait = [&] {
    auto after = 0s;
    while (!budget.allows(start + after)) after += 1s;
    return after;
  };
  for (const auto after : {2s, 4s, 8s}) {
    budget.failed(start, 1s);
    CHECK(wait() == after);
  }
  budget.spent(start, 1s);
  CHECK(wait() == 50s);
  budget.failed(start, 1s);
  CHECK(wait() == 16s);
  for (int i = 0; i < 2; ++i) budget.spent(start, 1s);
  budget.failed(start, 1s);
  CHECK(wait() == 2s);
}

TEST_CASE("a time budget counts the CPU time of its thread") {
  const auto begin = TimeBudget::cpu_time();
  const auto wall = TimeBudget::Clock::now();
  volatile unsigned long work = 0;
  while (TimeBudget::cpu_time() - begin < 5ms) work = work + 1;
  CHECK(TimeBudget::Clock::now() - wall >= 4ms);
}

TEST_CASE("few things are read at every tick, many for a share of the time") {
  const Pace::Subject one{{100, 7}, nullptr};
  auto now = Pace::Clock::time_point(1h);
  Pace pace;
  CHECK_FALSE(pace.rests(one, now));
  for (int i = 0; i < 5; ++i) {
    pace.took(one, Pace::kFew, now, 1s, showing(1));
    CHECK_FALSE(pace.rests(one, now + 1ms));
  }
  // Now there are many. The first two readings are not followed by a rest, later ones are.
  Pace many;
  many.took(one, 5000, now, 40ms, showing(1));
  CHECK_FALSE(many.rests(one, now + 1ms));
  many.took(one, 5000, now, 4ms, showing(2));
  CHECK(many.rests(one, now + 199ms));
  CHECK(many.last().find("boxo_test_seen")->samples.size() == 1);
  CHECK(std::get<double>(many.last().find("boxo_test_seen")->samples[0].value) == 2);
  CHECK(many.read_at() == now);
  CHECK_FALSE(many.rests(one, now + 200ms));
  many.took(one, 2'000'000, now, 10s, showing(3));
  CHECK(many.rests(one, now + 59s));
  CHECK_FALSE(many.rests(one, now + 60s));
  // Another process, or another way to read: what was seen is not theirs.
  const Pace::Subject restarted{{100, 8}, nullptr};
  const Pace::Subject by_kernel{{100, 7}, &many};
  CHECK_FALSE(many.rests(restarted, now + 1s));
  CHECK_FALSE(many.rests(by_kernel, now + 1s));
  many.took(restarted, 5000, now, 40ms, showing(4));
  CHECK_FALSE(many.rests(restarted, now + 1ms));
  // Few again.
  many.took(restarted, 5000, now, 40ms, showing(5));
  CHECK(many.rests(restarted, now + 1ms));
  many.took(restarted, 10, now, 40ms, showing(6));
  CHECK_FALSE(many.rests(restarted, now + 1ms));
}

TEST_CASE("a reading that failed is tried again at once, and ever more seldom while it goes on failing") {
  const Pace::Subject one{{100, 7}, nullptr};
  constexpr TimeBudget::Clock::duration kCost = 1s;
  auto now = Pace::Clock::time_point(1h);
  const auto wait = [&](const Pace& pace) {
    for (auto after = 0s; after < 120s; after += 1s)
      if (!pace.rests(one, now + after)) return after;
    return 120s;
  };
  Pace pace;
  for (int i = 0; i < 3; ++i) pace.took(one, 5000, now, kCost, showing(1));
  CHECK(wait(pace) == 50s);
  // It did not come to see them all, which makes them no fewer.
  pace.failed(one, 10, now, kCost, showing(2));
  CHECK(wait(pace) == 2s);
  CHECK(std::get<double>(pace.last().find("boxo_test_seen")->samples[0].value) == 2);
  // Rates need two again.
  pace.took(one, 5000, now, kCost, showing(3));
  CHECK(wait(pace) == 0s);
  pace.took(one, 5000, now, kCost, showing(3));
  CHECK(wait(pace) == 50s);

  for (const auto after : {2s, 4s, 8s, 16s, 32s, 50s, 50s}) {
    pace.failed(one, 5000, now, kCost, showing(4));
    CHECK(wait(pace) == after);
  }
  // Every other one.
  pace.took(one, 5000, now, kCost, showing(5));
  pace.failed(one, 5000, now, kCost, showing(6));
  CHECK(wait(pace) == 50s);
  pace.failed(one, 5000, now, 10s, showing(7));
  CHECK(wait(pace) == 60s);
  // Not all of its processes are looked at any more: what was seen of all of them is not what is seen now.
  const Pace::Subject part{{100, 7}, nullptr, false};
  CHECK_FALSE(pace.rests(part, now));
  pace.failed(part, 5000, now, kCost, showing(8));
  CHECK(pace.rests(part, now + 1s));
  CHECK_FALSE(pace.rests(one, now + 1s));
  // Few are read at every tick.
  Pace few;
  for (int i = 0; i < 10; ++i) few.failed(one, Pace::kFew, now, kCost, showing(9));
  CHECK(wait(few) == 0s);
}
