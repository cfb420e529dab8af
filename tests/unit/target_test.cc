// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/target.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "collectors/members.h"
#include "collectors/process_table.h"
#include "tests/unit/fake_proc.h"
#include "tests/unit/host_helpers.h"

using namespace boxo;
using boxo::test::FakeProc;
using boxo::test::FakeProcess;
using boxo::test::Tree;
using Kind = TargetSpec::Kind;

namespace {

using Pids = std::vector<pid_t>;

Result<Target> make(Kind kind, const FakeProc& proc, pid_t pid = 0, const std::string& name = {},
                    const std::string& cgroups = "/nonexistent") {
  // At time 0 nobody has begun before.
  return Target::make({kind, pid, name}, proc.path(), cgroups, [] { return std::uint64_t{0}; });
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

}  // namespace

TEST_CASE("the stat line of a process with any name") {
  for (const std::string name : {"a b", "(", ")", ") R 1 1", "x) (y", "line\nbreak", "", "((((("}) {
    const auto stat = parse_proc_stat(FakeProc::stat({7, 3, 99, name, 'D', 12}));
    REQUIRE(stat);
    CHECK(stat->pid == 7);
    CHECK(stat->comm == name);
    CHECK(stat->state == 'D');
    CHECK(stat->parent == 3);
    CHECK(stat->threads == 12);
    CHECK(stat->start_ticks == 99);
    CHECK_FALSE(stat->kernel_thread);
  }
  CHECK(parse_proc_stat(FakeProc::stat({.pid = 2, .parent = 0, .start = 1, .flags = 0x00208040}))
            ->kernel_thread);
  CHECK(parse_proc_stat(FakeProc::stat({7, 3, 99, "z", 'Z', 1}))->ended());
  // The main thread has ended, others have not.
  CHECK_FALSE(parse_proc_stat(FakeProc::stat({7, 3, 99, "z", 'Z', 2}))->ended());
  const std::string whole = FakeProc::stat({7, 3, 99});
  for (std::size_t cut = 0; cut < whole.find(" 99 "); ++cut)
    CHECK_FALSE(parse_proc_stat(whole.substr(0, cut)));
  for (const char* bad : {"", "x", "1 (a", "1 a) S", ") (", "(a) S 1", "x (a) S 1 1 1 0 -1 0", "-1 (a) S 1"})
    CHECK_FALSE(parse_proc_stat(bad));
}

TEST_CASE("a pid and its descendants") {
  FakeProc proc{{1, 0, 1, "init"},
                {50, 1, 5, "other"},
                {60, 50, 6, "others child"},
                {100, 1, 10, "main (x) y"},
                {90, 100, 20},
                {101, 100, 11, "child\n"},
                {102, 101, 12},
                {103, 102, 13}};
  auto target = make(Kind::kPid, proc, 100);
  REQUIRE(target);
  CHECK(pids(*target) == Pids{100, 90, 101, 102, 103});
  CHECK(target->main()->comm == "main (x) y");
  CHECK(target->main()->id == ProcessId{100, 10});
  CHECK(target->main()->parent.pid == 0);
  CHECK(target->processes()[2].comm == "child\n");
  CHECK(target->processes()[3].parent == ProcessId{101, 11});
  CHECK(target->describe() == "pid 100 (main (x) y) and 4 others");
  CHECK(target->ended_fd() == -1);

  const auto generation = target->generation();
  target->refresh();
  CHECK(target->generation() == generation);

  proc.add({104, 103, 30});
  proc.add({70, 60, 30});
  CHECK(after_refresh(*target) == Pids{100, 90, 101, 102, 103, 104});
  CHECK(target->generation() > generation);
}

TEST_CASE("a grandchild stays when its parent has ended") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10}, {101, 100, 11}, {102, 101, 12}};
  auto target = make(Kind::kPid, proc, 100);
  REQUIRE(target);
  proc.end(101);
  proc.add({102, 1, 12});  // init's child now
  proc.add({103, 102, 13});
  CHECK(after_refresh(*target) == Pids{100, 102, 103});
  CHECK(target->processes()[1].parent.pid == 0);
  CHECK(target->processes()[2].parent.pid == 102);
  proc.end(103);
  CHECK(after_refresh(*target) == Pids{100, 102});
  CHECK(target->restarts() == 0);
}

TEST_CASE("several generations born between two looks") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10}};
  auto target = make(Kind::kPid, proc, 100);
  REQUIRE(target);
  proc.add({30, 20, 40});  // its parent's pid is greater or smaller: pids wrap
  proc.add({20, 200, 30});
  proc.add({200, 100, 20});
  CHECK(after_refresh(*target) == Pids{100, 20, 30, 200});
}

TEST_CASE("a pid used again is another process") {
  FakeProc proc{{1, 0, 1}, {50, 1, 5}, {100, 1, 10}, {101, 100, 11}};
  auto target = make(Kind::kPid, proc, 100);
  REQUIRE(target);
  CHECK(pids(*target) == Pids{100, 101});

  SUBCASE("a stranger's pid comes to a child of the target") {
    proc.end(50);
    proc.add({50, 100, 40});
    CHECK(after_refresh(*target) == Pids{100, 50, 101});
  }
  SUBCASE("a member's pid comes to a stranger") {
    proc.end(101);
    proc.add({101, 1, 40});
    CHECK(after_refresh(*target) == Pids{100});
  }
  SUBCASE("a member's pid comes to another member") {
    proc.end(101);
    proc.add({101, 100, 40});
    CHECK(after_refresh(*target) == Pids{100, 101});
    CHECK(target->processes()[1].id.start_ticks == 40);
  }
  SUBCASE("the main process's pid comes to a stranger") {
    proc.end(100);
    proc.add({100, 1, 40});
    CHECK(after_refresh(*target).empty());
    CHECK(after_refresh(*target).empty());
    CHECK_FALSE(target->up());
    CHECK(target->main() == nullptr);
    CHECK(target->describe() == "pid 100 has ended");
    CHECK(target->restarts() == 0);
  }
  SUBCASE("what names a younger process as its parent is no child") {
    proc.add({102, 101, 3});
    CHECK(after_refresh(*target) == Pids{100, 101});
  }
}

TEST_CASE("zombies") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10}, {101, 100, 11}};
  auto target = make(Kind::kPid, proc, 100);
  REQUIRE(target);
  SUBCASE("a child as a zombie is a process with nothing in it") {
    proc.put("101/stat", FakeProc::stat({101, 100, 11, "prog", 'Z', 1}));
    CHECK(after_refresh(*target) == Pids{100, 101});
  }
  SUBCASE("the main one as a zombie has ended") {
    proc.put("100/stat", FakeProc::stat({100, 1, 10, "prog", 'Z', 1}));
    CHECK(after_refresh(*target).empty());
    CHECK(make(Kind::kPid, proc, 100)->describe() == "pid 100 has ended");
  }
  SUBCASE("only its main thread has ended") {
    proc.put("100/stat", FakeProc::stat({100, 1, 10, "prog", 'Z', 3}));
    CHECK(after_refresh(*target) == Pids{100, 101});
  }
}

TEST_CASE("a main thread that has ended while others go on: what they share is read of one of these") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10}, {101, 100, 11}};
  const auto headless = [&](int pid) {
    const std::string tasks = std::to_string(pid) + "/task/" + std::to_string(pid);
    proc.put(std::to_string(pid) + "/stat", FakeProc::stat({pid, 1, static_cast<std::uint64_t>(pid - 90), "prog", 'Z', 2}));
    proc.put(tasks + "/stat", FakeProc::stat({pid, 1, static_cast<std::uint64_t>(pid - 90), "prog", 'Z', 2}));
    proc.put(tasks + "5/stat", FakeProc::stat({10 * pid + 5, 1, 20, "prog", 'S', 2}));
    proc.put(tasks + "5/environ", "of " + std::to_string(pid));
  };
  proc.put("100/environ", "of its own");
  auto target = make(Kind::kPid, proc, 100);
  REQUIRE(target);
  CHECK(*target->main()->shared().read("environ") == "of its own");
  proc.put("100/environ", "");
  for (const int pid : {100, 101}) headless(pid);
  const std::uint64_t before = target->generation();
  CHECK(after_refresh(*target) == Pids{100, 101});
  CHECK(target->generation() != before);
  for (const Process& process : target->processes()) {
    CHECK(process.survivor == ProcessId{10 * process.id.pid + 5, 20});
    CHECK(*process.shared().read("environ") == "of " + std::to_string(process.id.pid));
  }
  // It ends too, and another one is there; then nobody.
  proc.put("100/task/1005/stat", FakeProc::stat({1005, 1, 20, "prog", 'X', 2}));
  proc.put("100/task/1007/stat", FakeProc::stat({1007, 1, 21, "prog", 'S', 2}));
  target->refresh();
  CHECK(target->main()->survivor == ProcessId{1007, 21});
  CHECK(target->restarts() == 0);
  for (const char* file : {"101/stat", "101/task/101/stat"}) proc.put(file, FakeProc::stat({101, 100, 11, "prog", 'Z', 1}));
  target->refresh();
  CHECK(target->processes()[1].survivor == ProcessId{});
  CHECK(target->processes()[1].shared().fd() == target->processes()[1].proc.fd());
}

TEST_CASE("a name stays with a process whose main thread has ended") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10, "node"}};
  proc.put("100/exe", "->/bin/node");
  auto target = make(Kind::kComm, proc, 0, "node");
  REQUIRE(target);
  REQUIRE(target->up());
  proc.remove("100/exe");
  proc.put("100/stat", FakeProc::stat({100, 1, 10, "node", 'Z', 2}));
  proc.put("100/task/105/stat", FakeProc::stat({105, 1, 20, "other", 'S', 2}));
  proc.put("100/task/105/exe", "->/bin/node");
  for (int i = 0; i < 3; ++i) CHECK(after_refresh(*target) == Pids{100});
  CHECK(target->restarts() == 0);
}

TEST_CASE("a pid that names no process") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10}};
  proc.put("100/status", "Name:\tprog\nTgid:\t100\nPid:\t100\n");
  CHECK(make(Kind::kPid, proc, 100));
  auto none = make(Kind::kPid, proc, 4711);
  REQUIRE_FALSE(none);
  CHECK(none.error().code == ESRCH);
  CHECK(none.error().text().find("4711") != std::string::npos);
  proc.add({105, 1, 10});
  proc.put("105/status", "Name:\tprog\nTgid:\t100\nPid:\t105\n");
  auto thread = make(Kind::kPid, proc, 105);
  REQUIRE_FALSE(thread);
  CHECK(thread.error().code == ESRCH);
  CHECK(thread.error().text() == "pid 105 is a thread: give the pid of its process, 100");
  CHECK_FALSE(Target::make({Kind::kPid, 1, {}}, proc.path("missing")));
}

TEST_CASE("an exec keeps the process and changes the generation") {
  FakeProc proc{{1, 0, 1}, {100, 1, 10, "sh"}};
  proc.put("100/exe", "->/bin/sh");
  auto target = make(Kind::kPid, proc, 100);
  REQUIRE(target);
  const auto generation = target->generation();
  proc.add({100, 1, 10, "node"});
  proc.put("100/exe", "->/bin/node");
  CHECK(after_refresh(*target) == Pids{100});
  CHECK(target->main()->comm == "node");
  CHECK(target->generation() > generation);
  CHECK(target->restarts() == 0);
}

TEST_CASE("a name is waited for, and found again after a restart") {
  FakeProc proc{{1, 0, 1, "init"}, {100, 1, 10, "other"}};
  auto target = make(Kind::kComm, proc, 0, "node");
  REQUIRE(target);
  CHECK_FALSE(target->up());
  CHECK(target->describe() == "no process named node yet");
  proc.add({200, 1, 20, "node"});
  proc.add({201, 200, 21, "helper"});
  CHECK(after_refresh(*target) == Pids{200, 201});
  CHECK(target->restarts() == 0);

  proc.end(200);
  CHECK(after_refresh(*target).empty());
  CHECK(target->describe() == "no process named node any more");
  CHECK(target->restarts() == 0);
  proc.add({300, 1, 30, "node"});
  CHECK(after_refresh(*target) == Pids{300});
  CHECK(target->restarts() == 1);

  // Down and up between two looks, under the same pid.
  proc.end(300);
  proc.add({300, 1, 40, "node"});
  CHECK(after_refresh(*target) == Pids{300});
  CHECK(target->main()->id.start_ticks == 40);
  CHECK(target->restarts() == 2);
}

TEST_CASE("of several with the name the oldest that is no child of another") {
  FakeProc proc{{1, 0, 1, "init"}, {300, 1, 10, "node"}, {200, 300, 10, "node"}, {250, 1, 30, "node"}};
  auto target = make(Kind::kComm, proc, 0, "node");
  REQUIRE(target);
  CHECK(pids(*target) == Pids{300, 200});
  proc.end(300);
  CHECK(after_refresh(*target) == Pids{200});
  CHECK(target->restarts() == 1);
}

TEST_CASE("names longer than the kernel keeps") {
  FakeProc proc{{1, 0, 1, "init"}, {100, 1, 10, "a-very-long-pro"}, {200, 1, 20, "a-very-long-pro"}};
  proc.put("100/exe", "->/opt/a-very-long-proxy");
  proc.put("100/cmdline", std::string("/opt/a-very-long-proxy\0-x", 25));
  proc.put("200/exe", "->/opt/a-very-long-program");
  CHECK(pids(*make(Kind::kComm, proc, 0, "a-very-long-program")) == Pids{200});
  CHECK(pids(*make(Kind::kComm, proc, 0, "a-very-long-proxy")) == Pids{100});
  CHECK(pids(*make(Kind::kComm, proc, 0, "a-very-long-pro")) == Pids{100});
  CHECK_FALSE(make(Kind::kComm, proc, 0, "a-very-long-prometheus")->up());
  // A script is known by its path in the arguments.
  proc.put("200/exe", "->/bin/bash");
  proc.put("200/cmdline", std::string("/bin/bash\0/opt/a-very-long-program\0", 35));
  CHECK(pids(*make(Kind::kComm, proc, 0, "a-very-long-program")) == Pids{200});
}

TEST_CASE("a name is lost by exec, not by a new title") {
  FakeProc proc{{1, 0, 1, "init"}, {100, 1, 10, "node"}};
  proc.put("100/exe", "->/bin/node");
  auto target = make(Kind::kComm, proc, 0, "node");
  REQUIRE(target);
  proc.add({100, 1, 10, "title"});
  CHECK(after_refresh(*target) == Pids{100});
  proc.put("100/exe", "->/bin/other");
  CHECK(after_refresh(*target).empty());
  proc.add({100, 1, 10, "node"});
  CHECK(after_refresh(*target) == Pids{100});
  CHECK(target->restarts() == 1);
}

TEST_CASE("a process that takes the name long after it was born is found") {
  FakeProc proc{{1, 0, 1, "init"}};
  for (int pid = 100; pid < 700; ++pid) proc.add({pid, 1, 10, "sh"});
  auto target = make(Kind::kComm, proc, 0, "node");
  REQUIRE(target);
  CHECK_FALSE(target->up());
  proc.add({600, 1, 10, "node"});
  int looks = 0;
  for (; looks < 4 && !target->up(); ++looks) target->refresh();
  CHECK(pids(*target) == Pids{600});
}

TEST_CASE("a cgroup: every process in it, wherever it comes from") {
  FakeProc proc{{1, 0, 1}, {100, 1, 20, "b"}, {101, 100, 21}, {102, 1, 10, "a"}, {103, 1, 30}};
  Tree groups{{"memory/cgroup.procs", ""},
              {"memory/node/cgroup.procs", "100\n102\n"},
              {"memory/node/sub/cgroup.procs", "101\n"},
              {"cpu/cgroup.procs", ""},
              {"unified/cgroup.controllers", ""},
              {"unified/cgroup.procs", "1\n"},
              {"unified/node/cgroup.procs", ""}};
  for (const char* name : {"/node", "node/", "absolute"}) {
    const std::string path = name == std::string("absolute") ? groups.path("memory/node") : name;
    auto target = make(Kind::kCgroup, proc, 0, path, groups.path());
    REQUIRE(target);
    CHECK(pids(*target) == Pids{102, 100, 101});  // the oldest is the main one
    CHECK(target->is_cgroup());
    CHECK(target->cgroup_path("memory") == "/node");
    CHECK(target->processes()[2].parent.pid == 100);
  }
  auto target = make(Kind::kCgroup, proc, 0, "/node", groups.path());
  REQUIRE(target);
  const auto generation = target->generation();
  target->refresh();
  CHECK(target->generation() == generation);

  groups.put("memory/node/cgroup.procs", "102\n103\n");
  groups.put("memory/node/sub/cgroup.procs", "");
  CHECK(after_refresh(*target) == Pids{102, 103});
  // The oldest leaves: another one that was there is no restart.
  groups.put("memory/node/cgroup.procs", "103\n");
  CHECK(after_refresh(*target) == Pids{103});
  CHECK(target->restarts() == 0);
  groups.put("memory/node/cgroup.procs", "100\n");
  CHECK(after_refresh(*target) == Pids{100});
  CHECK(target->restarts() == 1);
  // A pid that was used again.
  proc.end(100);
  proc.add({100, 1, 77});
  CHECK(after_refresh(*target) == Pids{100});
  CHECK(target->main()->id.start_ticks == 77);
  CHECK(target->restarts() == 2);
  // A pid of the list that is gone, and a zombie.
  proc.put("101/stat", FakeProc::stat({101, 100, 21, "z", 'Z', 1}));
  groups.put("memory/node/cgroup.procs", "101\n4711\n");
  CHECK(after_refresh(*target).empty());
  CHECK(target->describe() == "cgroup /node has no process");
}

TEST_CASE("a cgroup by a path through a link beside its hierarchy") {
  FakeProc proc{{100, 1, 10}};
  Tree groups{{"cpu,cpuacct/cgroup.procs", ""},
              {"cpu,cpuacct/node/cgroup.procs", "100\n"},
              {"cpuacct", "->cpu,cpuacct"},
              {"memory/cgroup.procs", ""}};
  auto target = make(Kind::kCgroup, proc, 0, groups.path("cpuacct/node"), groups.path());
  REQUIRE(target);
  CHECK(pids(*target) == Pids{100});
  CHECK(target->cgroup_path("cpuacct") == "/node");
}

TEST_CASE("a cgroup that is removed and made again") {
  FakeProc proc{{1, 0, 1}, {100, 1, 20}, {200, 1, 30}};
  Tree groups{{"cgroup.controllers", "memory\n"}, {"cgroup.procs", ""}};
  auto target = make(Kind::kCgroup, proc, 0, "/a/node", groups.path());
  REQUIRE(target);
  CHECK_FALSE(target->up());
  CHECK(target->describe() == "no cgroup /a/node yet");
  CHECK(target->cgroup_path("memory").empty());
  groups.put("a/node/cgroup.procs", "100\n");
  CHECK(after_refresh(*target) == Pids{100});
  CHECK(target->cgroup_path("memory") == "/a/node");
  CHECK(target->cgroup_path("cpu").empty());
  proc.end(100);
  groups.remove("a/node");
  CHECK(after_refresh(*target).empty());
  groups.put("a/node/cgroup.procs", "200\n");
  CHECK(after_refresh(*target) == Pids{200});
  CHECK(target->restarts() == 1);
  // Made again between two looks.
  proc.end(200);
  groups.remove("a/node");
  proc.add({200, 1, 40});
  groups.put("a/node/cgroup.procs", "200\n");
  CHECK(after_refresh(*target) == Pids{200});
  CHECK(target->restarts() == 2);
}

TEST_CASE("the group of a process tree") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 5, .cgroup = "4:memory:/m/n\n0::/u\n"}};
  Tree groups{{"memory/cgroup.procs", ""},        {"memory/m/limit", "7"},
              {"memory/m/n/limit", "9"},          {"unified/cgroup.procs", ""},
              {"unified/cgroup.controllers", ""}, {"memory/release_agent", ""}};
  auto target = make(Kind::kPid, proc, 100, {}, groups.path());
  REQUIRE(target);
  CHECK_FALSE(target->is_cgroup());
  CHECK(target->cgroup_path("memory") == "/m/n");
  CHECK(target->cgroup_path("") == "/u");
  CHECK(target->cgroup_path("pids").empty());
  auto view = target->cgroup("memory");
  REQUIRE(view);
  REQUIRE(view->levels.size() == 3);
  CHECK(*view->levels[1].read("limit") == "7");
  proc.put("100/cgroup", "4:memory:/\n");  // moved
  target->refresh();
  CHECK(target->cgroup_path("memory") == "/");
  CHECK_FALSE(target->cgroup(""));
  CHECK_FALSE(target->cgroup("pids"));
}

TEST_CASE("where the kernel follows the target, others are looked at only when it forks") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10}, {.pid = 101, .parent = 100, .start = 11}};
  auto target = *Target::make({TargetSpec::Kind::kPid, 100, ""}, proc.path());
  auto handover = std::make_shared<Handover>();
  std::optional<Forks> forks;
  handover->forks = [&forks] { return forks; };
  target.use(handover);
  target.refresh();
  REQUIRE(target.processes().size() == 2);

  // Told to the kernel after the last look: whatever was forked in between is found by one more.
  forks = Forks{7, target.generation()};
  proc.add({.pid = 102, .parent = 100, .start = 12});
  target.refresh();
  REQUIRE(target.processes().size() == 3);
  // It was not known to the kernel when the kernel was told: one more again.
  forks->generation = target.generation();
  proc.add({.pid = 103, .parent = 102, .start = 13});
  target.refresh();
  REQUIRE(target.processes().size() == 4);
  forks->generation = target.generation();
  target.refresh();

  // Nothing forked, so nobody is looked at.
  proc.add({.pid = 104, .parent = 100, .start = 14});
  target.refresh();
  CHECK(target.processes().size() == 4);
  // What ends is seen all the same.
  proc.end(101);
  target.refresh();
  CHECK(target.processes().size() == 3);
  forks->generation = target.generation();
  target.refresh();
  CHECK(target.processes().size() == 3);
  forks->count = 8;
  target.refresh();
  CHECK(target.processes().size() == 4);

  // One whose parent came and went meanwhile, and a stranger that is as new.
  Pids born{106, 103, 999};
  handover->born = [&born] { return born; };
  forks = Forks{9, target.generation()};
  proc.add({.pid = 106, .parent = 1, .start = 16});
  proc.add({.pid = 107, .parent = 1, .start = 16});
  target.refresh();
  CHECK(pids(target) == Pids{100, 102, 103, 104, 106});
  CHECK(target.processes().back().parent.pid == 0);
  // The kernel follows another set than this one: what was born to that says nothing.
  forks->count = 10;
  born = {107};
  target.refresh();
  CHECK(target.processes().size() == 5);

  // No word of the kernel any more.
  forks.reset();
  proc.add({.pid = 105, .parent = 100, .start = 15});
  target.refresh();
  CHECK(target.processes().size() == 6);
}

TEST_CASE("new processes are found by their pids, and threads are none") {
  if (!std::filesystem::exists("/proc/sys/kernel/ns_last_pid")) {
    MESSAGE("skipped: this kernel does not tell the last pid");
    return;
  }
  auto target = *Target::make({Kind::kPid, ::getpid(), ""});
  target.refresh();
  target.refresh();
  const std::size_t before = target.processes().size();
  for (int round = 0; round < 3; ++round) {
    const auto generation = target.generation();
    std::thread([&] { target.refresh(); }).join();
    CHECK(target.generation() == generation);
    boxo::test::Child child([] {
      ::signal(SIGCHLD, SIG_IGN);  // its child is gone when it has ended
      (void)!::fork();             // and waits to be killed as well
    });
    target.refresh();
    REQUIRE(target.processes().size() == before + 2);
    boxo::test::Child gone([] {});
    gone.end();
    target.refresh();
    CHECK(target.processes().size() == before + 2);
    const Process* grandchild = nullptr;
    for (const Process& process : target.processes())
      if (process.parent.pid == child.pid()) grandchild = &process;
    REQUIRE(grandchild != nullptr);
    ::kill(grandchild->id.pid, SIGKILL);
    while (is_there(*grandchild)) ::usleep(1000);
    CHECK(after_refresh(target).size() == before + 1);
    child.end();
    CHECK(after_refresh(target).size() == before);
  }
}

TEST_CASE("a look at members and what is new does not list the others") {
  if (!std::filesystem::exists("/proc/sys/kernel/ns_last_pid")) {
    MESSAGE("skipped: this kernel does not tell the last pid");
    return;
  }
  const auto proc = *Dir::open("/proc");
  const auto alive = [](const ProcessTable::Row&) { return true; };
  // Where more processes are begun meanwhile than there are, all are listed: then once more.
  bool seen = false;
  for (int i = 0; i < 50 && !seen; ++i) {
    ProcessTable table(proc);
    boxo::test::Child stranger([] {});
    REQUIRE(table.look(alive));
    REQUIRE(table.look(alive));
    const pid_t pid = stranger.pid();
    stranger.end();
    const boxo::test::Child fresh([] {});
    REQUIRE(table.look(alive, ProcessTable::Scope::kMembersNew));
    REQUIRE(table.find(fresh.pid()) != nullptr);
    CHECK(std::any_of(table.fresh().begin(), table.fresh().end(),
                      [&](std::size_t at) { return table.rows()[at].pid == fresh.pid(); }));
    CHECK(table.find(fresh.pid())->parent == ::getpid());
    seen = table.find(pid) != nullptr;  // nobody has looked whether it is still there
    REQUIRE(table.look(alive));
    CHECK(table.find(pid) == nullptr);
    CHECK(table.find(fresh.pid()) != nullptr);
    CHECK(table.fresh().size() < table.rows().size());
  }
  CHECK(seen);
}

TEST_CASE("more processes than there are descriptors for") {
  FakeProc proc{{100, 1, 10}};
  for (pid_t pid = 101; pid <= 200; ++pid) proc.add({pid, 100, 11});
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const rlimit few{240, before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &few);
  auto target = make(Kind::kPid, proc, 100);
  REQUIRE(target);
  // A twelfth: with what collectors open for each that is half of all.
  CHECK(target->processes().size() == 20);
  CHECK(after_refresh(*target).size() == 20);
  ::setrlimit(RLIMIT_NOFILE, &before);
  CHECK(after_refresh(*target).size() == 101);
}
