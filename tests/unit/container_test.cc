// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/container.h"

#include <doctest/doctest.h>

#include "agent/monitor.h"
#include "collectors/group.h"
#include "collectors/log.h"
#include "collectors/process_table.h"
#include "collectors/target.h"
#include "tests/unit/fake_proc.h"
#include "tests/unit/on_stderr.h"

using namespace boxo;
using boxo::test::FakeProc;
using boxo::test::on_stderr;
using boxo::test::Tree;

namespace {

std::string id(const std::string& begin) { return begin + std::string(64 - begin.size(), '0'); }

Result<Target> make(const FakeProc& proc, const Tree& groups, const std::string& name) {
  // At time 0 nobody has begun before.
  return Target::make({TargetSpec::Kind::kContainer, 0, name}, proc.path(), groups.path(), [] { return std::uint64_t{0}; });
}

}  // namespace

TEST_CASE("container ids as the runtimes write them") {
  const std::string hex = id("0123abcd");
  for (const std::string& component :
       {hex, "docker-" + hex + ".scope", "cri-containerd-" + hex + ".scope", "crio-" + hex + ".scope",
        "crio-" + hex, "libpod-" + hex + ".scope", "libpod-" + hex,
        "kubepods-burstable-pod1.slice:cri-containerd:" + hex})
    CHECK(container_id(component) == hex);
  for (const std::string& component :
       {hex.substr(1), hex + "0", "crio-conmon-" + hex + ".scope", "libpod-conmon-" + hex + ".scope",
        "docker-" + hex + ".slice", "user-" + hex + ".scope", id("xyz"), id("ABCD"), std::string(),
        std::string(".scope")})
    CHECK(container_id(component).empty());
  CHECK(path_to_container("/a/docker-" + hex + ".scope/init", hex) == "/a/docker-" + hex + ".scope");
  CHECK(path_to_container("/a/b", hex).empty());
  CHECK(ContainerName("containerd://" + hex).text == hex);
}

TEST_CASE("a container by id or prefix, v1 and v2") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10, "node"}, {101, 100, 11}, {200, 1, 20}};
  Tree v1{{"memory/cgroup.procs", ""},
          {"memory/docker/cgroup.procs", ""},
          {"memory/docker/" + id("abcd12") + "/cgroup.procs", "100\n"},
          {"memory/docker/" + id("abcd12") + "/sub/cgroup.procs", "101\n"},
          {"memory/docker/" + id("abcd34") + "/cgroup.procs", "200\n"},
          {"cpu/cgroup.procs", ""},
          {"cpu/docker/" + id("abcd12") + "/cgroup.procs", "101\n100\n"},
          {"pids/cgroup.procs", ""}};
  const std::string pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7.slice/";
  Tree v2{{"cgroup.controllers", "memory cpu\n"},
          {"cgroup.procs", ""},
          {pod + "cri-containerd-" + id("abcd12") + ".scope/cgroup.procs", "100\n101\n"},
          {pod + "cri-containerd-" + id("abcd34") + ".scope/cgroup.procs", "200\n"}};
  for (const Tree* groups : {&v1, &v2}) {
    for (const std::string& name : {id("abcd12"), std::string("abcd1"), "docker://" + id("abcd12")}) {
      auto target = make(proc, *groups, name);
      REQUIRE(target);
      REQUIRE(target->processes().size() == 2);
      CHECK(target->main()->id.pid == 100);
      CHECK(target->is_cgroup());
      CHECK(target->describe() == "container abcd12000000: pid 100 (node) and 1 other");
    }
    auto both = make(proc, *groups, "abcd");
    REQUIRE_FALSE(both);
    CHECK(both.error().text() ==
          "container abcd is ambiguous: " + id("abcd12") + ", " + id("abcd34") + ": give more of the id");
  }
  auto target = make(proc, v1, "abcd12");
  REQUIRE(target);
  CHECK(target->cgroup_path("memory") == "/docker/" + id("abcd12"));
  CHECK(target->cgroup_path("pids").empty());
  CHECK(target->cgroup_path("").empty());
}

TEST_CASE("names that are no container ids") {
  FakeProc proc;
  Tree groups;
  for (const char* name : {"", "abc", "docker://ab", "my-node", "ABCDEF"})
    CHECK_FALSE(make(proc, groups, name));
}

TEST_CASE("a container is waited for, and found again when it is started again") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10}};
  Tree groups{{"cgroup.controllers", "\n"}, {"cgroup.procs", ""}};
  auto target = make(proc, groups, "beef");
  REQUIRE(target);
  CHECK_FALSE(target->up());
  CHECK(target->describe() == "no container beef yet");
  const std::string dir = "docker/" + id("beef1") + "/cgroup.procs";
  groups.put(dir, "100\n");
  target->refresh();
  CHECK(target->up());
  // Another one with the same beginning does not matter any more.
  groups.put("docker/" + id("beef2") + "/cgroup.procs", "1\n");
  proc.end(100);
  groups.remove("docker/" + id("beef1"));
  target->refresh();
  CHECK_FALSE(target->up());
  proc.add({300, 1, 30});
  groups.put(dir, "300\n");
  target->refresh();
  REQUIRE(target->up());
  CHECK(target->main()->id.pid == 300);
  CHECK(target->restarts() == 1);
}

TEST_CASE("two containers fit before one was found") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10}};
  Tree groups{{"cgroup.controllers", "\n"}, {"cgroup.procs", ""}};
  auto target = make(proc, groups, "beef");
  REQUIRE(target);
  groups.put("docker/" + id("beef1") + "/cgroup.procs", "100\n");
  groups.put("docker/" + id("beef2") + "/cgroup.procs", "1\n");
  target->refresh();
  CHECK_FALSE(target->up());
  CHECK(target->describe() ==
        "container beef is ambiguous: " + id("beef1") + ", " + id("beef2") + ": give more of the id");
  target->refresh();
  CHECK_FALSE(target->up());
  // One is left, and stays the one whatever else begins like it.
  groups.remove("docker/" + id("beef2"));
  target->refresh();
  CHECK(target->describe() == "container beef10000000: pid 100 (prog)");
  groups.put("docker/" + id("beef3") + "/cgroup.procs", "1\n");
  target->refresh();
  CHECK(target->describe() == "container beef10000000: pid 100 (prog)");
}

TEST_CASE("two containers fit before one was found: the log says so once") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10}};
  Tree groups{{"cgroup.controllers", "\n"}, {"cgroup.procs", ""}};
  auto target = make(proc, groups, "beef");
  REQUIRE(target);
  auto monitor = PerformanceMonitor::make(*target);
  REQUIRE(monitor);
  const std::string log = on_stderr([&] {
    (*monitor)->collect_metrics();
    groups.put("docker/" + id("beef1") + "/cgroup.procs", "100\n");
    groups.put("docker/" + id("beef2") + "/cgroup.procs", "1\n");
    for (int i = 0; i < 3; ++i) (*monitor)->collect_metrics();
  });
  CHECK(log == "boxo-agent: waiting: container beef is ambiguous: " + id("beef1") + ", " + id("beef2") +
                   ": give more of the id\n");
  CHECK((*monitor)->latest()->target == target->describe());
}

TEST_CASE("a second container that fits while one is watched: the log says so once, by a look around each minute") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10}};
  Tree groups{{"cgroup.controllers", "\n"}, {"cgroup.procs", ""}, {"docker/" + id("beef1") + "/cgroup.procs", "100\n"}};
  auto cgroups = Cgroups::find(groups.path());
  auto dir = Dir::open(proc.path());
  REQUIRE(cgroups);
  REQUIRE(dir);
  ProcessTable table(*dir);
  const auto start = Group::Clock::time_point(std::chrono::hours(1));
  const auto lines = [&](const std::string& name) {
    const TargetSpec spec{TargetSpec::Kind::kContainer, 0, name};
    groups.remove("docker/" + id("beef2"));
    auto group = Group::make(spec, *cgroups, *dir, table);
    REQUIRE(group);
    return on_stderr([&] {
      for (int minute = 0; minute < 10; ++minute) {
        if (minute == 3) groups.put("docker/" + id("beef2") + "/cgroup.procs", "1\n");
        // Ten ticks, none of them a minute after the last look but the first.
        for (int tick = 0; tick < 10; ++tick) {
          std::vector<pid_t> pids;
          group->list(pids, start + std::chrono::minutes(minute) + std::chrono::seconds(tick));
          CHECK(pids == std::vector<pid_t>{100});
        }
        if (minute == 2) log_info("so far nothing");
      }
    });
  };
  CHECK(lines("docker://beef") == "boxo-agent: so far nothing\nboxo-agent: warn: container beef is ambiguous by now: " + id("beef1") +
                                      " is watched, " + id("beef2") + " fits too: give more of the id, or the next start fails\n");
  // With more of the id, or all of it, there is nothing to tell.
  for (const std::string& name : {std::string("beef1"), id("beef1")}) CHECK(lines(name) == "boxo-agent: so far nothing\n");
}

TEST_CASE("a container that no mount here shows is known by its processes") {
  const std::string a = "0::/../cri-containerd-" + id("abcd12") + ".scope\n";
  const std::string b = "0::/../cri-containerd-" + id("abcd34") + ".scope/inner\n";
  FakeProc proc{{1, 0, 1},
                {.pid = 100, .parent = 1, .start = 10, .cgroup = a},
                {.pid = 200, .parent = 1, .start = 20, .cgroup = b},
                {.pid = 201, .parent = 200, .start = 21, .cgroup = b}};
  Tree groups{{"cgroup.controllers", "memory\n"}, {"cgroup.procs", "1\n"}};
  CHECK_FALSE(make(proc, groups, "abcd"));
  auto target = make(proc, groups, "abcd3");
  REQUIRE(target);
  REQUIRE(target->processes().size() == 2);
  CHECK(target->main()->id.pid == 200);
  CHECK(target->cgroup_path("memory") == "/../cri-containerd-" + id("abcd34") + ".scope");
  proc.add({.pid = 202, .parent = 201, .start = 22, .cgroup = b});
  proc.add({.pid = 203, .parent = 1, .start = 23, .cgroup = b});
  proc.add({.pid = 204, .parent = 1, .start = 24, .cgroup = a});
  target->refresh();
  CHECK(target->processes().size() == 4);
  for (const int pid : {200, 201, 202, 203}) proc.end(pid);
  target->refresh();
  CHECK_FALSE(target->up());
  proc.add({.pid = 300, .parent = 1, .start = 30, .cgroup = b});
  target->refresh();
  CHECK(target->up());
  CHECK(target->restarts() == 1);

  auto by_path = Target::make({TargetSpec::Kind::kCgroup, 0, "/../cri-containerd-" + id("abcd12") + ".scope"},
                              proc.path(), groups.path());
  REQUIRE(by_path);
  REQUIRE(by_path->processes().size() == 2);
  CHECK(by_path->main()->id.pid == 100);
}
