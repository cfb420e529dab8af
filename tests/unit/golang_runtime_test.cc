// SPDX-License-Identifier: MIT OR Apache-2.0
// A Go runtime as a value in the test's own memory, read as that of another process would be.
#include "collectors/golang/runtime.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>

#include "collectors/events/builtin.h"
#include "collectors/golang/gc_totals.h"
#include "collectors/golang/goroutines.h"
#include "tests/unit/host_helpers.h"

using namespace boxo;
using namespace boxo::golang;

namespace {

struct Text {
  const char* data;
  std::uint64_t size;
};
struct Goroutine {
  std::uint64_t before = 0;
  std::uint32_t status = 0;
  std::uint8_t reason = 0;
  std::uint8_t after[3] = {};  // a test reads it for a status
};
struct Processor {
  std::uint64_t before = 0;
  std::int32_t free = 0;
};
struct Sched {
  std::int32_t other = 7;
  std::int32_t system = 0;
  std::int32_t free = 0;
  std::int32_t free_more = 0;
};
struct Delta {
  std::uint64_t other = 0;
  std::uint64_t large_allocated = 0;
  std::uint64_t large_freed = 0;
  std::uint64_t small_allocated[3] = {};
  std::uint64_t small_freed[3] = {};
};
struct Stats {
  Delta heap[3];
  std::uint32_t generation = 0;
  std::uint64_t pauses[256] = {};
  std::uint32_t cycles = 0;
};
struct Controller {
  std::uint64_t marked = 11;
  std::int64_t limit = INT64_MAX;
};

constexpr GoLayout kLayout{.version = "go1.99",
                           .amd64 = true,
                           .g_status = offsetof(Goroutine, status),
                           .g_wait_reason = offsetof(Goroutine, reason),
                           .sched_system = offsetof(Sched, system),
                           .sched_free = offsetof(Sched, free),
                           .sched_free_more = offsetof(Sched, free_more),
                           .p_free = offsetof(Processor, free),
                           .cycles = offsetof(Stats, cycles),
                           .pauses = offsetof(Stats, pauses),
                           .pause_ring = 256,
                           .heap_stats = 0,
                           .heap_generation = offsetof(Stats, generation),
                           .heap_delta = sizeof(Delta),
                           .large_allocated = offsetof(Delta, large_allocated),
                           .large_freed = offsetof(Delta, large_freed),
                           .small_allocated = offsetof(Delta, small_allocated),
                           .small_freed = offsetof(Delta, small_freed),
                           .size_classes = 3,
                           .heap_marked = offsetof(Controller, marked),
                           .memory_limit = offsetof(Controller, limit),
                           .size_of_class = ""};

template <class T>
std::uint64_t address(const T& thing) {
  return reinterpret_cast<std::uint64_t>(&thing);
}

struct FakeRuntime {
  Text version{"go1.99.3", 8};
  std::uint64_t begun = 1234;
  Text reasons[3] = {{"", 0}, {"select", 6}, {"IO wait", 7}};
  std::uint16_t sizes[3] = {0, 8, 4096};
  std::vector<Goroutine> goroutines = std::vector<Goroutine>(5);
  std::vector<const Goroutine*> list;
  const Goroutine* const* all = nullptr;
  std::uint64_t all_count = 0;
  Processor processors[2];
  const Processor* processor_list[2] = {&processors[0], &processors[1]};
  struct {
    const Processor* const* data;
    std::uint64_t size;
  } allp{processor_list, 2};
  Sched sched;
  Stats stats;
  Controller controller;
  std::uint32_t max_processors = 2;

  Process self = test::process_of(::getpid());
  bool by_pid = true;

  FakeRuntime() { relist(); }
  void relist() {
    list.clear();
    for (const Goroutine& one : goroutines) list.push_back(&one);
    all = list.data();
    all_count = list.size();
  }
  Result<Runtime> attach(Memory& memory) const {
    Program program{.go = true, .version = "go1.99.3", .layout = &kLayout};
    program.at = {address(all_count), address(all), address(allp), address(sched), address(stats), address(controller),
                  address(max_processors), address(reasons), address(version), address(begun), address(sizes)};
    program.wait_reasons = 3;
    return Runtime::attach(std::make_shared<const Program>(program), self, memory);
  }
  Result<Numbers> read() const {
    Memory memory(self, by_pid);
    const auto runtime = attach(memory);
    if (!runtime) return runtime.error();
    return runtime->read(memory);
  }
  /// Goroutines of this status and reason; -1: an error.
  int count(std::size_t status, std::size_t reason) const {
    Memory memory(self, by_pid);
    const auto runtime = attach(memory);
    REQUIRE(runtime);
    Census census;
    if (!runtime->count(memory, all_count, census)) return -1;
    return static_cast<int>(census.counts[status][reason]);
  }
};

}  // namespace

TEST_CASE("numbers as the runtime itself computes them, by both ways to read memory") {
  for (const bool by_pid : {true, false}) {
    FakeRuntime fake;
    fake.by_pid = by_pid;
    fake.goroutines.resize(100);
    fake.relist();
    fake.sched = {7, 4, 3, 2};
    fake.processors[0].free = 10;
    fake.processors[1].free = 1;
    fake.stats.heap[0] = {9, 5000, 1000, {9, 10, 3}, {9, 4, 1}};
    fake.stats.heap[2] = {9, 0, 500, {9, 0, 0}, {9, 2, 1}};  // a part of the sum may be negative
    fake.stats.generation = 0;
    fake.controller.limit = 1 << 30;
    const auto numbers = fake.read();
    REQUIRE(numbers);
    CHECK(numbers->goroutines == 100 - 4 - 3 - 2 - 11);
    CHECK(numbers->all_goroutines == 100);
    CHECK(numbers->heap_bytes == 4000 + 6 * 8 + 2 * 4096 - 500 - 2 * 8 - 4096);
    CHECK(numbers->heap_live_bytes == 11);
    CHECK(numbers->memory_limit == 1 << 30);
    CHECK(numbers->max_processors == 2);
    CHECK(numbers->cycles == 0);
    CHECK(numbers->pauses.empty());
  }
}

TEST_CASE("pauses: of all cycles while the ring holds them, then of the latest 255") {
  FakeRuntime fake;
  for (const std::uint32_t cycles : {1U, 255U, 256U, 257U, 1000U}) {
    fake.stats.cycles = cycles;
    for (std::uint32_t i = 0; i < cycles; ++i) fake.stats.pauses[i % 256] = i + 1;
    const auto numbers = fake.read();
    REQUIRE(numbers);
    CHECK(numbers->cycles == cycles);
    REQUIRE(numbers->pauses.size() == std::min(cycles, 255U));
    CHECK(numbers->pauses.back() == cycles);
    CHECK(numbers->pauses.front() == cycles + 1 - numbers->pauses.size());
  }
}

TEST_CASE("goroutines by status and reason, the scan bit aside") {
  for (const bool by_pid : {true, false}) {
    FakeRuntime fake;
    fake.by_pid = by_pid;
    fake.goroutines.resize(3000);
    for (std::size_t i = 0; i < 3000; ++i)
      fake.goroutines[i] = {0, i % 3 == 0 ? 4U : i % 3 == 1 ? 0x1002U : 6U, static_cast<std::uint8_t>(i % 2 == 0 ? 1 : 200)};
    fake.relist();
    std::reverse(fake.list.begin(), fake.list.end());
    CHECK(fake.count(4, 1) == 500);
    CHECK(fake.count(4, 200) == 500);
    CHECK(fake.count(2, 0) == 1000);
    CHECK(fake.count(6, 0) == 1000);
  }
  FakeRuntime fake;
  Memory memory(fake.self, true);
  const auto runtime = fake.attach(memory);
  CHECK(runtime->wait_reason(1) == "select");
  CHECK(runtime->wait_reason(200) == "unknown wait reason");
}

TEST_CASE("a runtime that contradicts itself has no levels, or is an error") {
  const auto code = [](const std::function<void(FakeRuntime&)>& change) {
    FakeRuntime fake;
    fake.sched = {7, 1, 1, 1};
    fake.stats.cycles = 3;
    change(fake);
    const auto numbers = fake.read();
    if (!numbers) return numbers.error().code;
    CHECK(numbers->cycles == 3);
    CHECK(numbers->pauses.size() == 3);
    return numbers->unsettled.empty() ? 0 : EAGAIN;
  };
  CHECK(code([](FakeRuntime&) {}) == 0);
  CHECK(code([](FakeRuntime& f) { f.all_count = ~std::uint64_t{0}; }) == EAGAIN);
  CHECK(code([](FakeRuntime& f) { f.all_count = std::uint64_t{1} << 40; }) == EAGAIN);
  CHECK(code([](FakeRuntime& f) { f.sched.free = 1000; }) == EAGAIN);
  CHECK(code([](FakeRuntime& f) { f.sched.free = -1000; }) == EAGAIN);
  CHECK(code([](FakeRuntime& f) { f.sched.system = -1; }) == EAGAIN);
  CHECK(code([](FakeRuntime& f) { f.allp.size = std::uint64_t{1} << 60; }) == EAGAIN);
  CHECK(code([](FakeRuntime& f) { f.allp.data = nullptr; }) == EFAULT);
  CHECK(code([](FakeRuntime& f) { f.processor_list[1] = nullptr; }) == EFAULT);
  CHECK(code([](FakeRuntime& f) { f.processors[1].free = -5; }) == EAGAIN);
  CHECK(code([](FakeRuntime& f) { f.stats.generation = 3; }) == EAGAIN);
  CHECK(code([](FakeRuntime& f) { f.stats.heap[1].other = 1; }) == EAGAIN);  // a reader of the runtime's own is at work
  CHECK(code([](FakeRuntime& f) { f.stats.heap[0].large_freed = 1; }) == EAGAIN);
  CHECK(code([](FakeRuntime& f) { f.begun = 0; }) == EBUSY);
  CHECK(code([](FakeRuntime& f) { f.version = {"go1.98.3", 8}; }) == ESTALE);
  CHECK(code([](FakeRuntime& f) { f.version.size = ~std::uint64_t{0}; }) == ESTALE);
  CHECK(code([](FakeRuntime& f) { f.version.data = nullptr; }) == EFAULT);
  CHECK(code([](FakeRuntime& f) { f.reasons[1] = {nullptr, 10}; }) == EFAULT);
  CHECK(code([](FakeRuntime& f) { f.sched.system = 100; }) == 0);  // one at least: who asks is running

  FakeRuntime fake;
  Memory memory(fake.self, true);
  const auto runtime = fake.attach(memory);
  fake.begun = 5;
  CHECK(runtime->read(memory).error().code == ESTALE);
}

TEST_CASE("texts of reasons are cut and cleaned") {
  FakeRuntime fake;
  const std::string longer(100, 'x');
  fake.reasons[1] = {"new\nline", 8};
  fake.reasons[2] = {longer.data(), 100};
  Memory memory(fake.self, true);
  const auto runtime = fake.attach(memory);
  REQUIRE(runtime);
  CHECK(runtime->wait_reason(1) == "reason 1");
  CHECK(runtime->wait_reason(2) == std::string(64, 'x'));
}

TEST_CASE("a list of goroutines that lies") {
  const auto at = [](std::uint64_t value) { return reinterpret_cast<const Goroutine*>(value); };
  for (const std::uint64_t bad : {std::uint64_t{0}, std::uint64_t{8}, ~std::uint64_t{0}, ~std::uint64_t{15}, std::uint64_t{1} << 47}) {
    FakeRuntime fake;
    fake.list[2] = at(bad);
    CHECK(fake.count(0, 0) == -1);
  }
  FakeRuntime fake;
  fake.list[1] = fake.list[0];  // twice the same, and one that begins within another
  fake.list[2] = at(address(fake.goroutines[3]) + 4);
  CHECK(fake.count(0, 0) == 5);
  fake.goroutines[4].status = 5;
  CHECK(fake.count(0, 0) == -1);
  fake.goroutines[4].status = 0xfffff;
  CHECK(fake.count(0, 0) == -1);
  fake.goroutines[4].status = 0;
  fake.all = nullptr;
  CHECK(fake.count(0, 0) == -1);
}

namespace {

/// The census of one program that has so many goroutines, all waiting to select.
struct Counted {
  FakeRuntime fake;
  Goroutines goroutines;

  explicit Counted(std::size_t number) {
    fake.goroutines.assign(number, Goroutine{0, 4, 1});
    fake.relist();
  }
  /// How many of them wait; -1: it is not told.
  int at(TimeBudget::Clock::time_point now) {
    Memory memory(fake.self, true);
    const auto runtime = fake.attach(memory);
    REQUIRE(runtime);
    Numbers numbers;
    numbers.all_goroutines = fake.goroutines.size();
    goroutines.count({{&fake.self, &*runtime, numbers}}, [this](const Process&) { return Memory(fake.self, true); }, now);
    if (!goroutines.trouble().empty()) return -1;
    const auto found = goroutines.kinds().find({"waiting", "select"});
    return found == goroutines.kinds().end() ? 0 : static_cast<int>(found->second);
  }
};

}  // namespace

TEST_CASE("a census of many goroutines keeps to its share of the time, whatever comes and goes") {
  using namespace std::chrono_literals;
  const auto start = TimeBudget::Clock::time_point(1h);
  Counted many(5000);
  CHECK(many.at(start) == 5000);
  many.fake.goroutines[0].reason = 2;
  CHECK(many.at(start) == 5000);
  CHECK(many.at(start + 1min) == 4999);
  CHECK(many.goroutines.age() == 0s);
  // Another program begins each time: what was counted of the one before says nothing of it.
  for (int i = 0; i < 3; ++i) {
    ++many.fake.begun;
    CHECK(many.at(start + 1min) == -1);
    CHECK(many.goroutines.trouble().find("not counted yet") == 0);
  }
  CHECK(many.at(start + 2min) == 4999);
  CHECK(many.goroutines.trouble().empty());
  // One that comes and goes beside it makes it old only.
  Memory memory(many.fake.self, true);
  FakeRuntime beside;
  ++beside.begun;
  const auto first = many.fake.attach(memory);
  const auto second = beside.attach(memory);
  Numbers numbers;
  numbers.all_goroutines = many.fake.goroutines.size();
  many.fake.goroutines[1].reason = 2;
  many.goroutines.count({{&many.fake.self, &*first, numbers}, {&beside.self, &*second, {}}},
                        [&](const Process& process) { return Memory(process, true); }, start + 2min);
  CHECK(many.goroutines.trouble().empty());
  CHECK(many.goroutines.kinds().at({"waiting", "select"}) == 4999);
  CHECK(many.at(start + 3min) == 4998);
}

TEST_CASE("a census that failed is not tried at every tick, unless there are few") {
  using namespace std::chrono_literals;
  const auto start = TimeBudget::Clock::time_point(1h);
  Counted many(5000);
  many.fake.all = nullptr;
  CHECK(many.at(start) == -1);
  many.fake.relist();
  CHECK(many.at(start) == -1);
  CHECK(many.goroutines.trouble().find("not counted yet") == std::string::npos);
  CHECK(many.at(start + 1min) == 5000);

  Counted few(Goroutines::kFew);
  few.fake.all = nullptr;
  CHECK(few.at(start) == -1);
  few.fake.relist();
  CHECK(few.at(start) == Goroutines::kFew);
  ++few.fake.begun;
  few.fake.goroutines[0].reason = 2;
  CHECK(few.at(start) == Goroutines::kFew - 1);
}

TEST_CASE("memory: what is not mapped, and too much") {
  const Process self = test::process_of(::getpid());
  for (const bool by_pid : {true, false}) {
    Memory memory(self, by_pid);
    std::string bytes;
    const std::uint64_t there = 42;
    const Memory::Piece half[] = {{address(there), 8}, {1, 8}};
    CHECK(memory.read(half, bytes).error().code == EFAULT);
    const Memory::Piece large{address(there), std::size_t{1} << 62};
    CHECK(memory.read({&large, 1}, bytes).error().code == EFBIG);
    const std::vector<Memory::Piece> many(3000, {address(there), 8});
    REQUIRE(memory.read(many, bytes));
    CHECK(number_in(bytes, 8 * 2999, 8) == 42);
  }
  test::Child child([] {});
  const Process process = test::process_of(child.pid());
  child.end();
  Memory memory(process, true);
  CHECK(memory.word(4096).error().code == ESRCH);
}

TEST_CASE("collections: each counts once, and what was counted stays") {
  GcTotals totals;
  totals.update(1, 300, std::vector<std::uint64_t>(255, 20000));
  totals.finish();
  CHECK(totals.cycles() == 300);
  CHECK(totals.missed() == 45);
  CHECK(totals.pauses().counts[1] == 255);
  totals.update(1, 302, {1, 2, 60000, 60000});
  totals.update(2, 1, {2000000});
  totals.finish();
  CHECK(totals.cycles() == 303);
  CHECK(totals.pauses().counts[2] == 2);
  CHECK(totals.pauses().counts[5] == 1);
  totals.keep(1);
  totals.finish();  // the second has ended
  totals.update(1, 302, {60000});
  totals.update(1, 5, {60000});  // a program whose count goes back tells nothing
  totals.update(2, 1, {2000000});
  CHECK(totals.cycles() == 304);
  CHECK(totals.pauses().counts[2] == 2);
  CHECK(totals.pauses().sum == doctest::Approx(255 * 20e-6 + 2 * 60e-6 + 2 * 2e-3));
}

TEST_CASE("the edges of the pauses are those of the pauses that applications send") {
  const auto& theirs = events::buckets_of(events::Timing::kGcPause).exported;
  REQUIRE(theirs.size() == std::size(kPauseSeconds));
  CHECK(std::equal(theirs.begin(), theirs.end(), std::begin(kPauseSeconds)));
}
