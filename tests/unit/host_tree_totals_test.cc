// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include "collectors/host/tree_totals.h"

using namespace boxo;
using boxo::host::TreeTotals;

namespace {

constexpr ProcessId kOutside{};
constexpr ProcessId kMain{100, 1};
constexpr ProcessId kChild{101, 2};
constexpr ProcessId kGrandchild{102, 3};

}  // namespace

TEST_CASE("tree totals: a child that was waited for is counted once") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  sum.finish();
  CHECK(sum.total()[0] == 15);
  // The child went on to 7 and ended; the parent used 1 more and took the 7 over.
  sum.update(kMain, kOutside, {72, 22, {18}});
  sum.finish();
  CHECK(sum.total()[0] == 18);
  sum.update(kMain, kOutside, {72, 22, {18}});
  sum.finish();
  CHECK(sum.total()[0] == 18);
}

TEST_CASE("tree totals: a child nobody waited for keeps what it was last seen with") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  sum.finish();
  sum.update(kMain, kOutside, {50, 0, {11}});
  sum.finish();
  CHECK(sum.total()[0] == 16);
}

TEST_CASE("tree totals: children that come and go between two looks are in their parent") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.finish();
  sum.update(kMain, kOutside, {90, 40, {30}});
  sum.finish();
  CHECK(sum.total()[0] == 30);
}

TEST_CASE("tree totals: a whole branch that ends is handed on to the nearest living ancestor") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  sum.update(kGrandchild, kChild, {10, 0, {100}});
  sum.finish();
  CHECK(sum.total()[0] == 115);
  sum.update(kMain, kOutside, {80, 30, {115}});
  sum.finish();
  CHECK(sum.total()[0] == 115);
}

TEST_CASE("tree totals: a restarted target goes on from where it was, and a late reading never goes back") {
  TreeTotals<2> sum;
  sum.update(kMain, kOutside, {50, 0, {10, 3}});
  sum.finish();
  sum.finish();
  CHECK(sum.total() == std::array<std::uint64_t, 2>{10, 3});
  sum.update({100, 999}, kOutside, {1, 0, {2, 0}});
  sum.finish();
  CHECK(sum.total() == std::array<std::uint64_t, 2>{12, 3});
  sum.update({100, 999}, kOutside, {1, 0, {1, 1}});
  sum.finish();
  CHECK(sum.total() == std::array<std::uint64_t, 2>{12, 4});
}

TEST_CASE("tree totals: parents in a ring do not hang") {
  TreeTotals<1> sum;
  sum.update(kChild, kGrandchild, {1, 0, {1}});
  sum.update(kGrandchild, kChild, {1, 0, {1}});
  sum.finish();
  sum.finish();
  CHECK(sum.total()[0] == 2);
}

TEST_CASE("tree totals: a process that cannot be read for a while is not counted anew") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  sum.finish();
  sum.keep(kMain);
  sum.keep(kChild);
  sum.finish();
  CHECK(sum.total()[0] == 15);
  sum.update(kMain, kOutside, {51, 0, {11}});
  sum.update(kChild, kMain, {21, 0, {6}});
  sum.finish();
  CHECK(sum.total()[0] == 17);
  // Nothing is known of this one, so there is nothing to keep.
  sum.keep(kGrandchild);
  sum.finish();
  CHECK(sum.total()[0] == 17);
}

TEST_CASE("tree totals: a child that ends while its parent cannot be read is settled when it can") {
  for (const bool waited : {true, false}) {
    CAPTURE(waited);
    TreeTotals<1> sum;
    sum.update(kMain, kOutside, {50, 0, {10}});
    sum.update(kChild, kMain, {20, 0, {5}});
    sum.finish();
    for (int i = 0; i < 3; ++i) {
      sum.keep(kMain);
      sum.finish();
      CHECK(sum.total()[0] == 15);
    }
    if (waited)
      sum.update(kMain, kOutside, {70, 20, {15}});
    else
      sum.update(kMain, kOutside, {50, 0, {10}});
    sum.finish();
    CHECK(sum.total()[0] == 15);
    sum.update(kMain, kOutside, {80, waited ? 20U : 0U, {waited ? 16U : 11U}});
    sum.finish();
    CHECK(sum.total()[0] == 16);
  }
}

TEST_CASE("tree totals: a branch whose parent ended unread goes to whoever is left") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  sum.update(kGrandchild, kChild, {10, 0, {100}});
  sum.finish();
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.keep(kChild);
  sum.finish();
  CHECK(sum.total()[0] == 115);
  sum.update(kMain, kOutside, {80, 30, {115}});
  sum.finish();
  CHECK(sum.total()[0] == 115);
  sum.finish();
  CHECK(sum.total()[0] == 115);
}
