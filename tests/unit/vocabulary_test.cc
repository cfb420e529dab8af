// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include "collectors/accumulator.h"
#include "collectors/snapshot.h"

using namespace boxo;

TEST_CASE("an accumulator never goes back when a process ends") {
  Accumulator<1> sum;
  sum.update({1, 10}, {100});
  sum.update({2, 10}, {50});
  sum.finish();
  CHECK(sum.total()[0] == 150);
  sum.update({1, 10}, {110});
  sum.finish();
  CHECK(sum.total()[0] == 160);
  // The pid comes back as another process and starts from zero.
  sum.update({1, 10}, {110});
  sum.update({2, 99}, {1});
  sum.finish();
  CHECK(sum.total()[0] == 161);
}

TEST_CASE("a process that could not be read keeps its counters") {
  Accumulator<1> sum;
  sum.update({1, 10}, {100});
  sum.finish();
  sum.keep({1, 10});
  sum.finish();
  sum.update({1, 10}, {120});
  sum.finish();
  CHECK(sum.total()[0] == 120);
}

TEST_CASE("a family is found by its name and made once") {
  static constexpr Metric kThings{"boxo_things", MetricType::kGauge, "", "kind", Source::kProc, "Things."};
  Snapshot snapshot;
  snapshot.add(kThings, 1, {{"kind", "a"}});
  snapshot.add(kThings, 2, {{"kind", "b"}});
  REQUIRE(snapshot.find("boxo_things") != nullptr);
  CHECK(snapshot.find("boxo_things")->samples.size() == 2);
  CHECK(snapshot.families().size() == 1);
  CHECK(snapshot.find("boxo_other") == nullptr);
}
