// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>

#include "collectors/host/tree_totals.h"

using namespace boxo;
using boxo::host::TreeTotals;

namespace {

constexpr ProcessId kOutside{};
constexpr ProcessId kMain{100, 1};
constexpr ProcessId kChild{101, 2};
constexpr ProcessId kGrandchild{102, 3};

using Ends = TreeTotals<1>::Ends;

/// A round in which the kernel tells.
void finish(TreeTotals<1>& sum, std::uint64_t unclaimed, std::vector<ProcessId> seen = {},
            std::vector<ProcessId> zombies = {}) {
  const Ends ends{{unclaimed}, std::move(seen)};
  sum.finish(&ends, [&](const ProcessId& id) { return std::ranges::find(zombies, id) != zombies.end(); });
}

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

TEST_CASE("tree totals, told by the kernel: seen and lost, never seen and lost, both at once") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  finish(sum, 0);
  CHECK(sum.total()[0] == 15);
  // The child went on to 8, another one that nobody saw used 30.
  sum.update(kMain, kOutside, {50, 0, {11}});
  finish(sum, 38, {kChild});
  CHECK(sum.total()[0] == 49);
  sum.update(kMain, kOutside, {50, 0, {11}});
  finish(sum, 38);
  CHECK(sum.total()[0] == 49);
}

TEST_CASE("tree totals, told by the kernel: lost, but the kernel has not let go of it yet") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  finish(sum, 0);
  sum.update(kMain, kOutside, {50, 0, {11}});
  finish(sum, 0, {kChild});
  CHECK(sum.total()[0] == 15);
  sum.update(kMain, kOutside, {50, 0, {12}});
  finish(sum, 6);
  CHECK(sum.total()[0] == 18);
}

TEST_CASE("tree totals, told by the kernel: one that was waited for, whatever the witness says") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  finish(sum, 0);
  // The parent took over 6, and was read with it; faults did not rise as the witness expects.
  sum.update(kMain, kOutside, {51, 1, {16}});
  finish(sum, 0, {kChild});
  CHECK(sum.total()[0] == 16);
}

TEST_CASE("tree totals, told by the kernel: a zombie counts by itself until it is gone") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  finish(sum, 0);
  // The target has let its main process go, which ended; whoever started it has not waited yet.
  finish(sum, 0, {kMain}, {kMain});
  finish(sum, 0, {}, {kMain});
  CHECK(sum.total()[0] == 10);
  // Started again meanwhile.
  sum.update({100, 999}, kOutside, {1, 0, {2}});
  finish(sum, 0, {}, {kMain});
  CHECK(sum.total()[0] == 12);
  sum.update({100, 999}, kOutside, {1, 0, {3}});
  finish(sum, 11);
  CHECK(sum.total()[0] == 14);
}

TEST_CASE("tree totals, told by the kernel: a parent that ends before its child, which goes to one of the target") {
  for (const bool subreaper : {true, false}) {
    CAPTURE(subreaper);
    TreeTotals<1> sum;
    sum.update(kMain, kOutside, {50, 0, {10}});
    sum.update(kChild, kMain, {20, 0, {5}});
    sum.update(kGrandchild, kChild, {10, 0, {100}});
    finish(sum, 0);
    sum.update(kMain, kOutside, {70, 20, {15}});
    sum.update(kGrandchild, subreaper ? kMain : kOutside, {10, 0, {101}});
    finish(sum, 0, {kChild});
    CHECK(sum.total()[0] == 116);
    sum.update(kMain, kOutside, {80, 30, {subreaper ? 117U : 15U}});
    finish(sum, subreaper ? 0 : 102, {kGrandchild});
    CHECK(sum.total()[0] == 117);
  }
}

TEST_CASE("tree totals, told by the kernel: one that ended while the others were read is in none or in its parent") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  finish(sum, 0);
  sum.hold(kChild);
  sum.update(kMain, kOutside, {70, 20, {16}});
  finish(sum, 0);
  CHECK(sum.total()[0] == 16);
  sum.update(kMain, kOutside, {70, 20, {16}});
  finish(sum, 0, {kChild});
  CHECK(sum.total()[0] == 16);
  // Never counted, and gone again.
  sum.hold(kGrandchild);
  sum.update(kMain, kOutside, {70, 20, {16}});
  finish(sum, 0);
  CHECK(sum.total()[0] == 16);
}

TEST_CASE("tree totals, told by the kernel: one that leaves the target alive keeps what it had") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  finish(sum, 0);
  sum.update(kMain, kOutside, {50, 0, {10}});
  finish(sum, 0);
  CHECK(sum.total()[0] == 15);
}

TEST_CASE("tree totals: the kernel begins to tell, and ceases to") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {5}});
  sum.finish();
  // Gone before the kernel followed it: as without it. Another one was followed.
  sum.update(kMain, kOutside, {50, 0, {10}});
  finish(sum, 7);
  CHECK(sum.total()[0] == 22);
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kGrandchild, kMain, {20, 0, {3}});
  sum.finish();
  sum.update(kMain, kOutside, {70, 20, {13}});
  sum.finish();
  CHECK(sum.total()[0] == 25);
}

TEST_CASE("tree totals: what a process had used before it came to the target is left out, wherever it goes") {
  using Reading = TreeTotals<2>::Reading;
  const auto came = [](std::uint64_t faults, std::uint64_t used, std::uint64_t written, std::size_t told = 2) {
    return Reading{faults, 0, {used, written}, told, true};
  };
  const ProcessId late{103, 1};
  for (const bool waited_for : {true, false}) {
    TreeTotals<2> sum;
    sum.update(kMain, kOutside, {50, 0, {10, 1}});
    sum.finish();
    // One of its two counters could not be read at first.
    sum.update(kMain, kOutside, {50, 0, {10, 1}});
    sum.update(late, kMain, came(20, 1000, 0, 1));
    sum.finish();
    CHECK(sum.total() == TreeTotals<2>::Values{10, 1});
    sum.update(kMain, kOutside, {50, 0, {10, 1}});
    sum.update(late, kMain, came(20, 1003, 500));
    sum.finish();
    CHECK(sum.total() == TreeTotals<2>::Values{13, 1});
    sum.update(kMain, kOutside, {50, 0, {10, 1}});
    sum.update(late, kMain, came(20, 1003, 504));
    sum.finish();
    CHECK(sum.total() == TreeTotals<2>::Values{13, 5});
    // It ends, and one that waits for it takes over all that it ever used.
    if (waited_for)
      sum.update(kMain, kOutside, {70, 20, {10 + 1003, 1 + 504}});
    else
      sum.update(kMain, kOutside, {50, 0, {10, 1}});
    sum.finish();
    CHECK(sum.total() == TreeTotals<2>::Values{13, 5});
  }
}

TEST_CASE("tree totals: one that came with a life behind it, let go and back again, and its end told by the kernel") {
  const ProcessId late{103, 1};
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  finish(sum, 0);
  sum.update(late, kOutside, {20, 0, {100}, 1, true});
  finish(sum, 10, {kMain});
  CHECK(sum.total()[0] == 10);
  sum.update(late, kOutside, {20, 0, {107}, 1, true});
  finish(sum, 10);
  CHECK(sum.total()[0] == 17);
  finish(sum, 10);
  sum.update(late, kOutside, {20, 0, {200}, 1, true});
  finish(sum, 10);
  CHECK(sum.total()[0] == 17);
  sum.update(late, kOutside, {20, 0, {201}, 1, true});
  finish(sum, 10);
  CHECK(sum.total()[0] == 18);
  // The kernel adds up whole lives.
  finish(sum, 10, {late});
  finish(sum, 10 + 205);
  CHECK(sum.total()[0] == 22);
}

TEST_CASE("tree totals: a process that was a child of the former main one loses nothing") {
  TreeTotals<1> sum;
  sum.update(kMain, kOutside, {50, 0, {10}});
  sum.update(kChild, kMain, {20, 0, {100}});
  sum.finish();
  // Now it is the main one, which ran before; it has been counted all the time.
  sum.update(kChild, kOutside, {20, 0, {105}, 1, true});
  sum.finish();
  CHECK(sum.total()[0] == 115);
}
