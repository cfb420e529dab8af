// SPDX-License-Identifier: MIT OR Apache-2.0
// Processes that come to a target with a life of their own behind them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

#include "collectors/target.h"
#include "tests/unit/fake_proc.h"
#include "tests/unit/on_stderr.h"

using namespace boxo;
using boxo::test::FakeProc;
using boxo::test::on_stderr;
using boxo::test::Tree;
using Kind = TargetSpec::Kind;

namespace {

using Pids = std::vector<pid_t>;

std::uint64_t now = 0;  // ticks since boot

Result<Target> make(Kind kind, const FakeProc& proc, const std::string& name, const std::string& cgroups = "/nonexistent") {
  now = 0;
  return Target::make({kind, 0, name}, proc.path(), cgroups, [] { return now; });
}

Pids pids(const Target& target) {
  Pids out;
  for (const Process& process : target.processes()) out.push_back(process.id.pid);
  return out;
}

Pids after_refresh(Target& target) {
  target.refresh();
  return pids(target);
}

Pids ran_before(const Target& target) {
  Pids out;
  for (const Process& process : target.processes())
    if (process.ran_before) out.push_back(process.id.pid);
  return out;
}

}  // namespace

TEST_CASE("one that ran beside the target and takes its place has a life of its own behind it") {
  FakeProc proc{{1, 0, 1, "init"}, {200, 1, 10, "node"}, {300, 1, 20, "node"}, {301, 300, 30, "helper"}};
  auto target = make(Kind::kComm, proc, "node");
  REQUIRE(target);
  // What was there when the watch began is the target's from its own beginning.
  CHECK(pids(*target) == Pids{200});
  CHECK(ran_before(*target).empty());
  now = 1000;
  proc.add({201, 200, 990, "helper"});
  CHECK(after_refresh(*target) == Pids{200, 201});
  CHECK(ran_before(*target).empty());
  proc.end(200);
  now = 2000;
  CHECK(after_refresh(*target) == Pids{300, 301});
  CHECK(ran_before(*target) == Pids{300, 301});
  CHECK(target->restarts() == 0);
  // Not so those that its processes fork.
  now = 3000;
  proc.add({302, 300, 2500, "helper"});
  CHECK(after_refresh(*target) == Pids{300, 301, 302});
  CHECK(ran_before(*target) == Pids{300, 301});
  // One that was started again after the end, however long it is looked for, counts from its beginning.
  proc.end(300);
  now = 4000;
  CHECK(after_refresh(*target).empty());
  proc.add({400, 1, 3500, "sh"});
  now = 5000;
  CHECK(after_refresh(*target).empty());
  proc.put("400/stat", FakeProc::stat({400, 1, 3500, "node"}));
  proc.put("400/comm", "node\n");
  for (int looks = 0; looks < 4 && !target->up(); ++looks) now += 1000, target->refresh();
  CHECK(pids(*target) == Pids{400});
  CHECK(ran_before(*target).empty());
  CHECK(target->restarts() == 1);
}

TEST_CASE("the shell that makes calls of the program and then becomes the node counts from its beginning") {
  FakeProc proc{{1, 0, 1, "init"}, {200, 1, 10, "sh"}, {201, 200, 20, "node"}};
  auto target = make(Kind::kComm, proc, "node");
  REQUIRE(target);
  now = 100;
  REQUIRE(after_refresh(*target) == Pids{201});
  // Another call of it comes and ends meanwhile, and is taken too.
  proc.end(201);
  proc.add({202, 200, 150, "node"});
  now = 200;
  REQUIRE(after_refresh(*target) == Pids{202});
  CHECK(target->restarts() == 1);
  now = 300;
  REQUIRE(after_refresh(*target) == Pids{202});
  proc.end(202);
  proc.end(200);
  proc.add({200, 1, 10, "node"});
  now = 400;
  REQUIRE(after_refresh(*target) == Pids{200});
  CHECK(ran_before(*target).empty());
  CHECK(target->restarts() == 2);
}

TEST_CASE("of several that fit the log says which is taken, once") {
  FakeProc proc{{1, 0, 1, "init"}, {200, 1, 10, "node"}, {201, 200, 11, "node"}};
  const auto told = [&](const char* name) {
    std::string text = on_stderr([&] {
      auto target = make(Kind::kComm, proc, name);
      REQUIRE(target);
      target->refresh();
      target->refresh();
    });
    return text;
  };
  CHECK(told("node") == "");  // its own child
  proc.add({300, 1, 20, "node"});
  const std::string text = told("node");
  CHECK(text.find("2 processes are named node: watching the oldest, pid 200;") != std::string::npos);
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
}

TEST_CASE("one that is moved into the cgroup has a life of its own behind it") {
  FakeProc proc{{1, 0, 1}, {100, 1, 20}, {101, 1, 30}, {102, 1, 40}};
  Tree groups{{"cgroup.controllers", ""}, {"cgroup.procs", ""}, {"node/cgroup.procs", "100\n101\n"}};
  auto target = make(Kind::kCgroup, proc, "/node", groups.path());
  REQUIRE(target);
  CHECK(ran_before(*target).empty());
  now = 1000;
  target->refresh();
  // 102 was somewhere else; 103 began here since the last look; 104 a member has forked, as the kernel saw.
  auto handover = std::make_shared<Handover>();
  handover->born = [] { return std::vector<pid_t>{104}; };
  target->use(handover);
  proc.add({103, 1, 1500});
  proc.add({104, 100, 800});
  groups.put("node/cgroup.procs", "100\n101\n102\n103\n104\n");
  now = 2000;
  CHECK(after_refresh(*target) == Pids{100, 101, 102, 103, 104});
  CHECK(ran_before(*target) == Pids{102});
  // It leaves and comes back.
  groups.put("node/cgroup.procs", "100\n");
  now = 3000;
  target->refresh();
  groups.put("node/cgroup.procs", "100\n103\n");
  now = 4000;
  CHECK(after_refresh(*target) == Pids{100, 103});
  CHECK(ran_before(*target) == Pids{103});
  // Moved into the empty group: the main one now, but it was not started again.
  groups.put("node/cgroup.procs", "");
  now = 5000;
  CHECK(after_refresh(*target).empty());
  groups.put("node/cgroup.procs", "102\n");
  now = 6000;
  CHECK(after_refresh(*target) == Pids{102});
  CHECK(target->restarts() == 0);
  groups.put("node/cgroup.procs", "");
  now = 7000;
  CHECK(after_refresh(*target).empty());
  proc.add({105, 1, 7500});
  groups.put("node/cgroup.procs", "105\n");
  now = 8000;
  CHECK(after_refresh(*target) == Pids{105});
  CHECK(ran_before(*target).empty());
  CHECK(target->restarts() == 1);
  // Started again by something that takes its time to move it there: what it counted meanwhile is not the target's.
  groups.put("node/cgroup.procs", "");
  now = 9000;
  CHECK(after_refresh(*target).empty());
  proc.add({106, 1, 9500});
  now = 10000;
  CHECK(after_refresh(*target).empty());
  groups.put("node/cgroup.procs", "106\n");
  now = 11000;
  CHECK(after_refresh(*target) == Pids{106});
  CHECK(ran_before(*target) == Pids{106});
  CHECK(target->restarts() == 2);
}
