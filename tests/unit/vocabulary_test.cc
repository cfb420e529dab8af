// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include "collectors/snapshot.h"

using namespace boxo;

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
