// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <array>
#include <ctime>

#include "collectors/host/thread_table.h"
#include "tests/unit/host_helpers.h"
#include "tests/unit/tree.h"

using namespace boxo;
using namespace boxo::host;
using boxo::test::Child;
using boxo::test::only;
using boxo::test::process_of;
using boxo::test::sleep_for_ever;
using boxo::test::start_threads;
using boxo::test::Tree;

namespace {

std::uint64_t state(const ThreadTable& table, const std::string& name) {
  for (std::size_t i = 0; i < kThreadStates.size(); ++i)
    if (name == kThreadStates[i]) return table.by_state()[i];
  return ~0ULL;
}

void* nap(void*) {
  for (int i = 0; i < 300; ++i) ::usleep(1000);
  return nullptr;
}

/// What `status` says of a process's only thread.
std::pair<std::uint64_t, std::uint64_t> switches_of(const Process& process) {
  const std::string text = *process.proc.read("status");
  const auto after = [&text](const std::string& key) {
    return std::strtoull(text.c_str() + text.find("\n" + key) + key.size() + 1, nullptr, 10);
  };
  return {after("voluntary_ctxt_switches:"), after("nonvoluntary_ctxt_switches:")};
}

}  // namespace

TEST_CASE("threads: the letter of /proc names one of six states") {
  const std::string letters = "RSDTtZXIPKW?";
  const std::string expected = "012334455200";
  for (std::size_t i = 0; i < letters.size(); ++i)
    CHECK(thread_state(letters[i]) == static_cast<std::size_t>(expected[i] - '0'));
}

TEST_CASE("threads: counted exactly, few and many") {
  for (const int count : {5, 300}) {
    Child child([count] { start_threads(count, sleep_for_ever); });
    const auto list = only(child.pid());
    ThreadTable table;
    // On a busy machine a thread that has been made may still wait for its first turn on a CPU.
    for (int tries = 0; tries < 500 && state(table, "sleeping") != static_cast<std::size_t>(count) + 1;
         ++tries) {
      ::usleep(20'000);
      table.update(list);
    }
    for (int round = 0; round < 3; ++round) {
      table.update(list);
      CHECK(table.trouble() == "");
      CHECK(table.size() == static_cast<std::size_t>(count) + 1);
      CHECK(state(table, "sleeping") == static_cast<std::size_t>(count) + 1);
    }
    ::kill(child.pid(), SIGSTOP);
    for (int tries = 0; tries < 500 && state(table, "stopped") != static_cast<std::size_t>(count) + 1; ++tries) {
      ::usleep(20'000);
      table.update(list);
    }
    CHECK(state(table, "stopped") == static_cast<std::size_t>(count) + 1);
    CHECK(table.size() == static_cast<std::size_t>(count) + 1);
    child.kill();
    table.update(list);
    CHECK(state(table, "zombie") == 1);
    CHECK(table.size() == 1);
    child.end();
    table.update(list);
    CHECK(table.size() == 0);
    CHECK(table.trouble() == "");
  }
}

TEST_CASE("threads: context switches equal what the kernel says, and stay when threads and processes end") {
  Child child([] {
    for (int i = 0; i < 50; ++i) ::usleep(100);
  });
  const auto list = only(child.pid());
  ThreadTable table;
  table.update(list);
  const auto [voluntary, involuntary] = switches_of(list[0]);
  CHECK(voluntary >= 50);
  CHECK(table.totals().voluntary == voluntary);
  CHECK(table.totals().involuntary == involuntary);
  child.end();
  table.update(list);
  table.update({});
  CHECK(table.totals().voluntary == voluntary);
  CHECK(table.totals().involuntary == involuntary);
}

TEST_CASE("threads: what those of a process that ran before it came had counted is left out") {
  const Child main([] {
    for (int i = 0; i < 50; ++i) ::usleep(100);
  });
  const Child late([] {
    start_threads(3, sleep_for_ever);
    ::signal(SIGUSR1, [](int) {});
    for (int i = 0; i < 500; ++i) ::usleep(100);
  });
  auto list = only(main.pid());
  ThreadTable table;
  table.update(list);
  const auto [voluntary, involuntary] = switches_of(list[0]);
  list.push_back(process_of(late.pid()));
  list.back().ran_before = true;
  for (int round = 0; round < 2; ++round) {
    table.update(list);
    CHECK(table.size() == 5);
    CHECK(table.totals().voluntary == voluntary);
    CHECK(table.totals().involuntary == involuntary);
  }
  const auto before = switches_of(list[1]).first;
  ::kill(late.pid(), SIGUSR1);
  auto after = before;
  for (int tries = 0; tries < 500 && after == before; ++tries) {
    ::usleep(20'000);
    after = switches_of(list[1]).first;
  }
  REQUIRE(after > before);
  table.update(list);
  CHECK(table.totals().voluntary == voluntary + (after - before));
}

TEST_CASE("threads: those that end between keep what they had") {
  Child child([] { start_threads(3, nap); });
  const auto list = only(child.pid());
  ThreadTable table;
  std::uint64_t last = 0;
  for (int round = 0; round < 60 || (table.size() > 1 && round < 1000); ++round) {
    table.update(list);
    CHECK(table.totals().voluntary >= last);
    last = table.totals().voluntary;
    ::usleep(10'000);
  }
  CHECK(table.size() == 1);
  CHECK(last >= 3 * 50);
}

TEST_CASE("threads: one that runs among many that sleep is seen running") {
  Child child([] {
    start_threads(100, sleep_for_ever);
    start_threads(1, [](void*) -> void* {
      for (;;) (void)std::clock();
    });
  });
  const auto list = only(child.pid());
  ThreadTable table;
  // Until the others have fallen asleep.
  for (int round = 0; round < 1000 && (table.size() < 102 || state(table, "running") != 1); ++round) {
    table.update(list);
    ::usleep(10'000);
  }
  for (int round = 0; round < 5; ++round) {
    table.update(list);
    CHECK(table.size() == 102);
    CHECK(state(table, "running") == 1);
    ::usleep(20'000);
  }
  CHECK(table.totals().wait_ns > 0);
}

TEST_CASE("threads: those that cannot be read for a while are not counted anew") {
  for (const int count : {3, 100}) {
    Child child([count] { start_threads(count, nap); });
    const auto list = only(child.pid());
    ThreadTable table;
    // All naps over but one's: the threads have ended, the numbers stand.
    for (int round = 0; (round < 40 || table.size() > 1) && round < 1000; ++round) {
      table.update(list);
      ::usleep(10'000);
    }
    const auto before = table.totals();
    CHECK(before.voluntary >= static_cast<std::uint64_t>(count) * 50);
    for (int round = 0; round < 2; ++round) {
      {
        const test::NoDescriptors none;
        table.update(list);
      }
      CHECK(table.trouble().find("Too many open files") != std::string::npos);
      CHECK(table.totals().voluntary == before.voluntary);
      table.update(list);
      CHECK(table.trouble() == "");
      CHECK(table.size() == 1);
      CHECK(table.totals().voluntary == before.voluntary);
      CHECK(table.totals().involuntary == before.involuntary);
      CHECK(table.totals().wait_ns == before.wait_ns);
    }
  }
}

TEST_CASE("threads: a status that cannot be read is no end, a missing one is") {
  const std::string good =
      "State:\tS (sleeping)\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";
  Tree tree({{"9/stat", ""}, {"9/task/9/status", good}, {"9/task/10/status", good}});
  std::vector<Process> list;
  list.push_back({{9, 1}, {}, "x", *Dir::open(tree.path("9"))});
  ThreadTable table;
  table.update(list);
  CHECK(table.totals().voluntary == 14);
  // A link to itself: ELOOP, for root as well.
  tree.put("9/task/10/status", "->status");
  table.update(list);
  CHECK(table.trouble() != "");
  tree.put("9/task/10/status", good);
  table.update(list);
  CHECK(table.trouble() == "");
  CHECK(table.totals().voluntary == 14);
  tree.remove("9/task/10");
  table.update(list);
  CHECK(table.trouble() == "");
  CHECK(table.size() == 1);
  CHECK(table.totals().voluntary == 14);
}

TEST_CASE("threads: a kernel without schedstat, and hostile text") {
  const std::string good =
      "Name:\tx\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";
  Tree tree({{"9/stat", ""},
             {"9/task/9/status", good},
             {"9/task/10/status", good},
             {"9/task/notanumber/status", good}});
  std::vector<Process> list;
  list.push_back({{9, 1}, {}, "x", *Dir::open(tree.path("9"))});
  ThreadTable table;
  table.update(list);
  CHECK(table.trouble() == "");
  CHECK_FALSE(table.has_schedstat());
  CHECK(table.size() == 2);
  CHECK(table.totals().voluntary == 14);
  CHECK(table.totals().involuntary == 4);

  tree.put("9/task/10/status", "State:\n\nvoluntary_ctxt_switches:\t99999999999999999999999\n");
  table.update(list);
  CHECK(table.trouble() != "");
  CHECK(table.totals().voluntary == 14);
}

namespace {

class FakeReader final : public KernelReader {
 public:
  Result<> threads(pid_t, std::vector<ThreadReading>& out) override {
    out = told;
    return works ? Result<>() : Result<>(Error{"no"});
  }
  Result<> sockets(pid_t, std::vector<Socket>&) override { return Error{"no"}; }
  ThreadCounts ended_threads() const override { return ended; }

  std::vector<ThreadReading> told;
  ThreadCounts ended;
  bool works = true;
};

}  // namespace

TEST_CASE("threads: read by the kernel's iterator, by files, and by the iterator again, nothing counts twice") {
  const std::string seven =
      "State:\tS (sleeping)\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";
  Tree tree({{"9/stat", ""}, {"9/task/9/status", seven}, {"9/task/10/status", seven}});
  for (const char* tid : {"9", "10"}) tree.put(std::string("9/task/") + tid + "/schedstat", "100 50 3\n");
  std::vector<Process> list;
  list.push_back({{9, 1}, {}, "x", *Dir::open(tree.path("9"))});
  FakeReader reader;
  ThreadTable table;
  table.update(list, nullptr);
  CHECK_FALSE(table.by_reader());
  CHECK(table.totals().voluntary == 14);
  CHECK(table.totals().wait_ns == 100);

  reader.told = {{9, 'R', 500, 110, 60, 4, 8, 2}, {10, 'D', 600, 100, 50, 3, 7, 2}, {11, 'S', 700, 1, 1, 1, 3, 0}};
  for (int i = 0; i < 2; ++i) table.update(list, &reader);
  CHECK(table.by_reader());
  CHECK(table.totals().voluntary == 18);
  CHECK(table.totals().wait_ns == 111);
  CHECK(state(table, "running") == 1);
  CHECK(state(table, "disk_sleep") == 1);
  CHECK(state(table, "sleeping") == 1);

  // The iterator fails: the files, where nothing has moved.
  reader.works = false;
  table.update(list, &reader);
  CHECK_FALSE(table.by_reader());
  CHECK(table.trouble() == "");
  CHECK(table.size() == 2);
  CHECK(table.totals().voluntary == 18);

  // Thread 10 has ended and another one got its number.
  reader.works = true;
  reader.told = {{9, 'R', 500, 110, 60, 4, 9, 2}, {10, 'S', 601, 1, 1, 1, 2, 0}};
  table.update(list, &reader);
  reader.told[1].started_at = 602;
  table.update(list, &reader);
  CHECK(table.totals().voluntary == 18 + 1 + 2 + 2);
  CHECK(table.size() == 2);
}

TEST_CASE("threads: what ended ones had counted that nobody saw is added, from when the iterator has told of all") {
  Tree tree({{"9/stat", ""}, {"9/task/9/status", "State:\tS (sleeping)\nvoluntary_ctxt_switches:\t7\n"}});
  std::vector<Process> list;
  list.push_back({{9, 1}, {}, "x", *Dir::open(tree.path("9"))});
  FakeReader reader;
  reader.told = {{9, 'S', 500, 10, 10, 3, 7, 2, 0xa1}};
  reader.ended = {1000, 100, 10};
  ThreadTable table;
  const auto totals = [&] {
    return std::array{table.totals().voluntary, table.totals().involuntary, table.totals().wait_ns};
  };
  table.update(list, &reader);
  CHECK(totals() == std::array<std::uint64_t, 3>{7, 2, 10});
  reader.ended = {1003, 102, 11};
  table.update(list, &reader);
  table.update(list, &reader);
  CHECK(totals() == std::array<std::uint64_t, 3>{10, 4, 11});

  // Read from files in between: the iterator may not know what these told.
  reader.works = false;
  table.update(list, &reader);
  reader.ended = {1100, 200, 100};
  reader.works = true;
  table.update(list, &reader);
  CHECK(totals() == std::array<std::uint64_t, 3>{10, 4, 11});
  reader.ended.voluntary += 5;
  table.update(list, &reader);
  CHECK(totals() == std::array<std::uint64_t, 3>{15, 4, 11});
}

TEST_CASE("threads: a process that ends while it is read counts once") {
  Tree tree({{"9/stat", ""}});
  std::vector<Process> list;
  list.push_back({{9, 5}, {}, "x", *Dir::open(tree.path("9"))});
  FakeReader reader;
  reader.told = {{9, 'S', 50'000'000, 10, 10, 3, 7, 2, 0xa1}};
  ThreadTable table;
  table.update(list, &reader);
  reader.told[0].voluntary = 9;  // told before it went: no one else counts it
  tree.remove("9/stat");
  table.update(list, &reader);
  CHECK(table.by_reader());
  CHECK(table.totals().voluntary == 9);
  reader.told[0].started_at = 60'000'000;  // another process
  reader.ended.voluntary = 4;
  table.update(list, &reader);
  CHECK(table.by_reader());
  CHECK(table.size() == 0);
  CHECK(table.totals().voluntary == 9 + 4);
}

TEST_CASE("threads: one that calls exec has the main one's number and start time, and goes on with its own counts") {
  Tree tree({{"9/stat", ""}});
  std::vector<Process> list;
  list.push_back({{9, 1}, {}, "x", *Dir::open(tree.path("9"))});
  FakeReader reader;
  ThreadTable table;
  reader.told = {{9, 'S', 500, 10, 10, 3, 100, 2, 0xa1}, {10, 'S', 600, 90, 50, 3, 5000, 7, 0xa2}};
  table.update(list, &reader);
  reader.told = {{9, 'R', 500, 95, 60, 4, 5003, 7, 0xa2}};
  table.update(list, &reader);
  CHECK(table.totals().voluntary == 100 + 5003);
  CHECK(table.totals().involuntary == 9);
  CHECK(table.totals().wait_ns == 70);
  // One that has less than the main one, and one that was not seen before.
  reader.told.push_back({11, 'S', 700, 1, 1, 1, 10, 0, 0xa3});
  table.update(list, &reader);
  reader.told = {{9, 'R', 500, 2, 2, 1, 14, 0, 0xa3}};
  table.update(list, &reader);
  CHECK(table.totals().voluntary == 100 + 5003 + 14);
  reader.told = {{9, 'R', 500, 1, 1, 1, 5, 0, 0xa4}};
  table.update(list, &reader);
  CHECK(table.totals().voluntary == 100 + 5003 + 14 + 5);
}

TEST_CASE("threads: without the kernel's names of them, the counts tell which one called exec") {
  const auto status = [](int voluntary) {
    return "State:\tS (sleeping)\nvoluntary_ctxt_switches:\t" + std::to_string(voluntary) +
           "\nnonvoluntary_ctxt_switches:\t0\n";
  };
  // The stack's address is field 28.
  const auto stat = [](int stack) {
    std::string text = "9 (x) y) S";
    for (int field = 4; field < 28; ++field) text += " 1";
    return text + " " + std::to_string(stack) + " 0\n";
  };
  for (const auto& [main, now, total] : {std::array{100, 5003, 5103}, std::array{7000, 5003, 12003},
                                         std::array{4000, 4002, 9002}, std::array{6000, 30, 11030}}) {
    Tree tree({{"9/stat", ""},
               {"9/task/9/stat", stat(70)},
               {"9/task/9/status", status(main)},
               {"9/task/10/status", status(5000)}});
    std::vector<Process> list;
    list.push_back({{9, 1}, {}, "x", *Dir::open(tree.path("9"))});
    ThreadTable table;
    for (int i = 0; i < 2; ++i) table.update(list);
    CHECK(table.totals().voluntary == static_cast<std::uint64_t>(main) + 5000);
    tree.remove("9/task/10");
    tree.put("9/task/9/status", status(now));
    tree.put("9/task/9/stat", stat(80));
    for (int i = 0; i < 2; ++i) table.update(list);
    CHECK(table.trouble() == "");
    CHECK(table.totals().voluntary == static_cast<std::uint64_t>(total));
  }
}
