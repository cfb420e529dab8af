// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include "collectors/host/continued.h"
#include "collectors/host/group_limits.h"
#include "collectors/host/pressure_stall.h"
#include "tests/unit/host_helpers.h"
#include "tests/unit/tree.h"

using namespace boxo;
using namespace boxo::host;
using boxo::test::Tree;

namespace {

CgroupView view(int version, const Tree& tree, const std::vector<std::string>& levels) {
  CgroupView out;
  out.version = version;
  for (const auto& level : levels) out.levels.push_back(*Dir::open(tree.path(level)));
  return out;
}

}  // namespace

TEST_CASE("continued counters: the first place with all it has, another one from where it stands") {
  Continued<2> sum;
  CHECK_FALSE(sum.ever());
  sum.update(7, {100, 5});
  CHECK(sum.total() == std::array<std::uint64_t, 2>{100, 5});
  sum.update(7, {110, 5});
  CHECK(sum.total()[0] == 110);
  sum.update(8, {1'000'000, 1});
  CHECK(sum.total() == std::array<std::uint64_t, 2>{110, 5});
  sum.update(8, {1'000'004, 0});
  CHECK(sum.total() == std::array<std::uint64_t, 2>{114, 5});
}

TEST_CASE("continued counters by name: 64 of their own, the rest in one that never goes back") {
  using Sums = ContinuedByName<1>;
  Sums sums;
  const auto shown = [&sums] {
    std::map<std::string, std::uint64_t> out;
    sums.each([&out](const std::string& name, const auto& total) { out[name] = total[0]; });
    return out;
  };
  CHECK(sums.empty());
  Sums::Reading now;
  for (int i = 100; i < 164; ++i) now["n" + std::to_string(i)] = {1};
  sums.update(7, now);
  CHECK(shown().size() == 64);
  now["x"] = {10};
  now["y"] = {20};
  sums.update(7, now);
  CHECK(shown().size() == 65);
  CHECK(shown()["other"] == 30);
  // One of the rest goes, and comes again with new counts; another place goes on from where it stands.
  now.erase("y");
  sums.update(7, now);
  CHECK(shown()["other"] == 30);
  now["y"] = {5};
  sums.update(7, now);
  CHECK(shown()["other"] == 35);
  now["x"] = {1'000'000};
  sums.update(8, now);
  CHECK(shown()["other"] == 35);
  now["x"] = {1'000'001};
  sums.update(8, now);
  CHECK(shown()["other"] == 36);
  sums.update(8, {});
  CHECK(shown()["other"] == 36);
  CHECK(shown().size() == 65);

  // A thing that has this very name is not a second row.
  Sums few;
  few.update(7, {{"a", {1}}, {"other", {2}}});
  few.update(7, {{"a", {1}}, {"other", {3}}});
  int rows = 0;
  few.each([&rows](const std::string& name, const auto& total) {
    ++rows;
    if (name == "other") CHECK(total[0] == 3);
  });
  CHECK(rows == 2);
}

TEST_CASE("cgroup limits: the least along the levels, none where it says max") {
  Tree v2({{"a/memory.max", "max\n"},
           {"a/cpu.max", "max 100000\n"},
           {"b/memory.max", "1073741824\n"},
           {"b/cpu.max", "150000 100000\n"},
           {"c/memory.max", "536870912\n"},
           {"c/cpu.max", "200000 100000\n"},
           {"root/cgroup.procs", ""}});
  CHECK(least(view(2, v2, {"a", "b", "c", "root"}), memory_limit) == 536870912);
  CHECK(least(view(2, v2, {"a", "b", "c", "root"}), cpu_limit) == 1.5);
  CHECK_FALSE(least(view(2, v2, {"a", "root"}), memory_limit).has_value());
  const CgroupView of_two = view(2, v2, {"a", "b", "c", "root"});
  CHECK(&limit_holder(of_two, memory_limit) == &of_two.levels[2]);
  CHECK(&limit_holder(of_two, cpu_limit) == &of_two.levels[1]);
  CHECK(&limit_holder(of_two, memory_high) == &of_two.levels[0]);
  CHECK_FALSE(least(view(2, v2, {"a", "root"}), cpu_limit).has_value());

  Tree v1({{"a/memory.limit_in_bytes", "9223372036854771712\n"},
           {"a/cpu.cfs_quota_us", "-1\n"},
           {"a/cpu.cfs_period_us", "100000\n"},
           {"b/memory.limit_in_bytes", "4096\n"},
           {"b/cpu.cfs_quota_us", "50000\n"},
           {"b/cpu.cfs_period_us", "100000\n"}});
  CHECK(least(view(1, v1, {"a", "b"}), memory_limit) == 4096);
  CHECK(least(view(1, v1, {"a", "b"}), cpu_limit) == 0.5);
  CHECK_FALSE(least(view(1, v1, {"a"}), memory_limit).has_value());
  CHECK_FALSE(least(view(1, v1, {"a"}), cpu_limit).has_value());

  const Tree bad(
      {{"a/memory.max", "12 34\n"}, {"a/cpu.max", "100000 0\n"}, {"b/memory.max", ""}, {"b/cpu.max", "\n"}});
  CHECK_FALSE(least(view(2, bad, {"a", "b"}), memory_limit).has_value());
  CHECK_FALSE(least(view(2, bad, {"a", "b"}), cpu_limit).has_value());
}

TEST_CASE("cgroup memory: of both versions") {
  Tree v2({{"memory.current", "1000\n"},
           {"memory.stat", "anon 1\ninactive_file 300\n"},
           {"memory.peak", "5000\n"}});
  const auto two = memory_use(2, *Dir::open(v2.path()));
  REQUIRE(two);
  CHECK(two->usage == 1000);
  CHECK(two->working_set == 700);
  CHECK(two->peak == 5000);

  const Tree v1(
      {{"memory.usage_in_bytes", "1000\n"}, {"memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n"}});
  const auto one = memory_use(1, *Dir::open(v1.path()));
  REQUIRE(one);
  CHECK(one->working_set == 0);
  CHECK_FALSE(one->peak.has_value());

  CHECK_FALSE(memory_use(2, *Dir::open(v1.path())).has_value());
}

TEST_CASE("pressure: totals of both lines, nothing from anything else") {
  constexpr std::string_view kText =
      "some avg10=97.13 avg60=93.18 avg300=51.99 total=229276490\nfull avg10=0.00 avg60=0.00 avg300=0.14 "
      "total=6115328\n";
  CHECK(stalled_us(kText, "some ") == 229276490);
  CHECK(stalled_us(kText, "full ") == 6115328);
  for (const char* bad :
       {"", "some", "some \n", "some avg10=1.0\n", "some total=x\n", "some total=-1\n", "full total=1\n"})
    CHECK_FALSE(stalled_us(bad, "some ").has_value());
}
