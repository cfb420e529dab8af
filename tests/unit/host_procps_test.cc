// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstring>
#include <ctime>

#include "collectors/host/procps.h"
#include "tests/unit/host_helpers.h"

using namespace boxo;
using namespace boxo::host;
using boxo::test::Child;
using boxo::test::only;
using boxo::test::process_of;

namespace {

/// Maps and touches, and never gives back.
void touch(std::size_t bytes, int flags) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  if (memory != MAP_FAILED) std::memset(memory, 1, bytes);
}

}  // namespace

TEST_CASE("procps: CPU time and faults of the test itself equal getrusage") {
  auto procps = Procps::open();
  REQUIRE(procps);
  const std::clock_t begin = std::clock();
  while (std::clock() - begin < CLOCKS_PER_SEC / 20) {
  }
  const auto list = only(::getpid());
  rusage before{};
  ::getrusage(RUSAGE_SELF, &before);
  auto times = procps->times(list);
  rusage after{};
  ::getrusage(RUSAGE_SELF, &after);
  REQUIRE(times);
  REQUIRE(times->size() == 1);
  const ProcessTimes& one = times->begin()->second;
  CHECK(one.minor_faults >= static_cast<std::uint64_t>(before.ru_minflt));
  CHECK(one.minor_faults <= static_cast<std::uint64_t>(after.ru_minflt));
  CHECK(one.major_faults == static_cast<std::uint64_t>(after.ru_majflt));
  const double seconds =
      static_cast<double>(one.user_ticks + one.system_ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  const auto of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  CHECK(seconds >= of(before.ru_utime) + of(before.ru_stime) - 0.021);
  CHECK(seconds <= of(after.ru_utime) + of(after.ru_stime) + 0.001);
}

TEST_CASE("procps: a child that was waited for is in the reaped counts, exactly by faults") {
  auto procps = Procps::open();
  REQUIRE(procps);
  const auto list = only(::getpid());
  const ProcessTimes before = procps->times(list)->begin()->second;
  rusage children_before{};
  ::getrusage(RUSAGE_CHILDREN, &children_before);
  {
    Child child([] { touch(std::size_t{4} << 20, MAP_PRIVATE); });
  }
  rusage children{};
  ::getrusage(RUSAGE_CHILDREN, &children);
  const ProcessTimes after = procps->times(list)->begin()->second;
  CHECK(after.reaped_minor_faults - before.reaped_minor_faults ==
        static_cast<std::uint64_t>(children.ru_minflt - children_before.ru_minflt));
}

TEST_CASE("procps: memory by kind") {
  auto procps = Procps::open();
  REQUIRE(procps);
  Child idle([] {});
  Child busy([] {
    touch(std::size_t{24} << 20, MAP_PRIVATE);
    touch(std::size_t{8} << 20, MAP_SHARED);
  });
  std::vector<Process> list;
  list.push_back(process_of(idle.pid()));
  list.push_back(process_of(busy.pid()));
  auto memory = procps->memory(list);
  REQUIRE(memory);
  REQUIRE(memory->size() == 2);
  const ProcessMemory& without = memory->at(list[0].id);
  const ProcessMemory& with = memory->at(list[1].id);
  constexpr std::uint64_t kSlack = 512 << 10;
  CHECK(with.anonymous - without.anonymous >= std::uint64_t{24} << 20);
  CHECK(with.anonymous - without.anonymous <= (std::uint64_t{24} << 20) + kSlack);
  CHECK(with.shared - without.shared == std::uint64_t{8} << 20);
  CHECK(with.mapped - without.mapped == std::uint64_t{32} << 20);
  CHECK(with.resident == with.anonymous + with.file + with.shared);
}

TEST_CASE("procps: a zombie has times and no memory, an ended process is not in the answer") {
  auto procps = Procps::open();
  REQUIRE(procps);
  Child child([] { touch(std::size_t{4} << 20, MAP_PRIVATE); });
  auto list = only(child.pid());
  CHECK(procps->memory(list)->begin()->second.resident > std::uint64_t{4} << 20);
  child.kill();
  auto memory = procps->memory(list);
  REQUIRE(memory);
  REQUIRE(memory->size() == 1);
  CHECK(memory->begin()->second.resident == 0);
  CHECK(memory->begin()->second.mapped == 0);
  CHECK(procps->times(list)->begin()->second.minor_faults > 1000);
  child.end();
  CHECK(procps->memory(list)->empty());
  CHECK(procps->times(list)->empty());
  CHECK(procps->times({})->empty());
}

TEST_CASE("procps: another process with the same pid is not mistaken for the one that was asked for") {
  auto procps = Procps::open();
  REQUIRE(procps);
  auto list = only(::getpid());
  list[0].id.start_ticks -= 1;
  CHECK(procps->times(list)->empty());
  Child child([] {});
  auto former = only(child.pid());
  child.kill();
  child.end();
  former[0].id.pid = ::getpid();
  CHECK(procps->memory(former)->empty());
}

TEST_CASE("procps: more processes than the library takes at once") {
  auto procps = Procps::open();
  REQUIRE(procps);
  std::vector<Process> list;
  for (int i = 0; i < 450; ++i) list.push_back(process_of(::getpid()));
  CHECK(procps->times(list)->size() == 1);
  Child child([] {});
  list.push_back(process_of(child.pid()));
  CHECK(procps->times(list)->size() == 2);
}
