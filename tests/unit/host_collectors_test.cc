// SPDX-License-Identifier: MIT OR Apache-2.0
// The collectors by their public door: a fake /proc and cgroup tree in, a Snapshot out.
#include <doctest/doctest.h>

#include <ctime>
#include <optional>
#include <thread>

#include "collectors/host/thread_table.h"
#include "collectors/kernel_reader.h"
#include "collectors/reading.h"
#include "collectors/time_budget.h"
#include "tests/unit/fake_proc.h"
#include "tests/unit/host_helpers.h"
#include "tests/unit/host_run.h"

using namespace boxo;
using boxo::test::FakeProc;
using boxo::test::pid;
using boxo::test::Run;
using boxo::test::Tree;

namespace {

constexpr const char* kStallText =
    "some avg10=0.00 avg60=0.00 avg300=0.00 total=%\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=#\n";

std::string stall(const std::string& some, const std::string& full) {
  std::string text = kStallText;
  text.replace(text.find('%'), 1, some);
  text.replace(text.find('#'), 1, full);
  return text;
}

}  // namespace

TEST_CASE("every host collector without a target: all absent, all with a reason, no failure") {
  for (const char* name : {"process", "memory", "threads", "fds", "disk", "cgroup", "pressure", "sockets", "netns"}) {
    CAPTURE(name);
    Run run(name, {TargetSpec::Kind::kComm, 0, "no-such-program-here"});
    for (int i = 0; i < 2; ++i) run.tick();
  }
}

TEST_CASE("an agent without a descriptor to spare says so, and counts nothing twice when it has one again") {
  const auto burn = [] {
    while (std::clock() < CLOCKS_PER_SEC / 5) {
    }
  };
  const test::Child child([&] {
    int done[2];
    if (::pipe(done) != 0) std::abort();
    if (::fork() == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      burn();
      (void)!::write(done[1], "d", 1);
      for (;;) ::pause();
    }
    burn();
    char byte = 0;
    (void)!::read(done[0], &byte, 1);
  });
  ::usleep(50'000);
  for (const char* name : {"process", "memory", "sockets", "threads", "fds"}) {
    CAPTURE(name);
    Run run(name, pid(child.pid()));
    run.tick();
    run.tick();
    const auto cpu = [&run] {
      return run.value("cpu_seconds_total", {"user"}).value_or(0) +
             run.value("cpu_seconds_total", {"system"}).value_or(0);
    };
    const double before = cpu();
    if (std::string_view(name) == "process") CHECK(before > 0.2);
    const auto faults = run.value("page_faults_total", {"minor"});
    for (int i = 0; i < 2; ++i) {
      {
        const test::NoDescriptors none;
        run.tick();
      }
      if (std::string_view(name) == "process") {
        CHECK(run.absence("cpu_seconds_total").find("Too many open files") != std::string::npos);
        CHECK_FALSE(run.value("cpu_seconds_total", {"user"}));
        CHECK_FALSE(run.value("disk_read_bytes_total", {}));
      }
      if (std::string_view(name) == "memory") CHECK_FALSE(run.value("memory_bytes", {"rss"}));
      run.tick();
      CHECK(cpu() <= before + 0.02);
      if (faults) CHECK(*run.value("page_faults_total", {"minor"}) == *faults);
    }
  }
}

TEST_CASE("pss that could not be read is read at the next tick, not when it is due") {
  if (::geteuid() != 0) {
    MESSAGE("skipped: needs root");
    return;
  }
  const test::Child child([] {});
  Run run("memory", pid(child.pid()));
  TimeBudget::Clock::duration cost{};
  {
    const test::SomebodyElse without_rights;
    const auto begin = TimeBudget::cpu_time();
    run.tick();
    cost = TimeBudget::cpu_time() - begin;
  }
  CHECK(run.value("memory_bytes", {"rss"}));
  CHECK_FALSE(run.value("memory_bytes", {"pss"}));
  CHECK(run.absence("memory_bytes{type=\"pss\"}").find("Permission denied") != std::string::npos);
  std::this_thread::sleep_for(3 * cost);
  run.tick();
  CHECK(run.value("memory_bytes", {"pss"}));
}

TEST_CASE("many threads that could not be read once are read again at the next tick, not when they are due") {
  // Of a thread that has run since it was seen last a file is opened.
  const test::Child child([] { test::start_threads(1200, test::turn_over); });
  Run run("threads", pid(child.pid()));
  const auto threads = [&run] {
    double sum = 0;
    for (const char* state : host::kThreadStates) sum += run.value("threads", {state}).value_or(0);
    return sum;
  };
  run.tick();
  run.tick();
  const double all = threads();
  REQUIRE(all >= 1201);  // a sanitizer adds one of its own
  TimeBudget::Clock::duration cost{};
  for (int i = 0; i < 100 && run.absence("threads").empty(); ++i) {
    ::usleep(100'000);
    const test::NoDescriptors none;
    const auto begin = TimeBudget::cpu_time();
    run.tick();
    cost = TimeBudget::cpu_time() - begin;
  }
  CHECK(run.absence("threads").find("Too many open files") != std::string::npos);
  CHECK(threads() == 0);
  CHECK_FALSE(run.value("context_switches_total", {"voluntary"}));
  std::this_thread::sleep_for(3 * cost);
  run.tick();
  CHECK(threads() == all);
  CHECK(run.value("context_switches_total", {"voluntary"}));
}

TEST_CASE("pressure: of the cgroup, else of the host, never back and never a jump") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/x\n"}};
  for (const char* resource : {"cpu", "memory", "io"})
    proc.put(std::string("pressure/") + resource, stall("7000000000", "1000000"));
  proc.put("meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n");
  Tree cgroups{{"cgroup.controllers", "cpu memory\n"},
               {"cgroup.procs", ""},
               {"x/cgroup.procs", "100\n"},
               {"x/cgroup.controllers", "cpu memory\n"},
               {"x/cpu.stat", "nr_periods 10\nnr_throttled 0\nthrottled_usec 0\n"},
               {"x/cpu.pressure", stall("2000000", "500000")},
               {"x/memory.pressure", stall("3000000", "0")},
               {"x/io.pressure", stall("4000000", "0")}};
  Run run("pressure", pid(100), proc.path(), cgroups.path());
  run.tick();
  CHECK(run.value("pressure_seconds_total", {"cpu", "some"}) == 2);
  CHECK(run.value("pressure_seconds_total", {"cpu", "full"}) == 0.5);
  CHECK(run.value("pressure_seconds_total", {"io", "some"}) == 4);
  CHECK(run.value("pressure_info", {"cgroup"}) == 1);
  CHECK(run.source("pressure_seconds_total") == Source::kCgroup);
  CHECK(run.absence("cpu_pressure") == "needs two readings");

  // 3 of 4 periods were throttled since; memory has no limit, so the host's is what counts.
  cgroups.put("x/cpu.stat", "nr_periods 14\nnr_throttled 3\nthrottled_usec 9\n");
  run.tick();
  CHECK(run.value("cpu_pressure") == 0.75);
  CHECK(run.value("memory_pressure") == 0.75);
  cgroups.put("x/memory.max", "1000\n");
  cgroups.put("x/memory.current", "900\n");
  cgroups.put("x/memory.stat", "inactive_file 400\n");
  run.tick();
  CHECK(run.value("memory_pressure") == 0.5);

  // A stall longer than the interval cannot be; the share stays a share.
  cgroups.put("x/cpu.pressure", stall("9000000000", "500000"));
  run.tick();
  CHECK(run.value("cpu_pressure") == 1);
  CHECK(run.value("pressure_seconds_total", {"cpu", "some"}) == 9000);

  cgroups.remove("x/cpu.pressure");
  run.tick();
  CHECK(run.value("pressure_seconds_total", {"cpu", "some"}) == 9000);
  CHECK(run.value("pressure_info", {"host"}) == 1);
  proc.put("pressure/cpu", stall("7001000000", "1000000"));
  run.tick();
  CHECK(run.value("pressure_seconds_total", {"cpu", "some"}) == 9001);

  proc.remove("pressure");
  cgroups.remove("x/memory.pressure");
  cgroups.remove("x/io.pressure");
  run.tick();
  CHECK(run.absence("pressure_seconds_total").find("psi=1") != std::string::npos);
  CHECK(run.value("memory_pressure") == 0.5);
}

TEST_CASE("cpu pressure: without a cgroup of its own by what the target has waited, not by the host") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/\n"}};
  Tree cgroups{{"cgroup.controllers", "cpu memory\n"}, {"cgroup.procs", ""}};
  proc.put("pressure/cpu", stall("1000000", "0"));
  Run run("pressure", pid(100), proc.path(), cgroups.path());
  run.tick();
  CHECK(run.absence("cpu_pressure") != "");
  const auto begin = std::chrono::steady_clock::now();
  const auto waited = [&](double seconds, int after, bool by_kernel) {
    run.handover().cpu_wait = CpuWait{seconds, begin + std::chrono::seconds(after), by_kernel};
    proc.put("pressure/cpu", stall(std::to_string(9 + after) + "000000000", "0"));
    run.tick();
  };
  waited(5, 0, false);
  CHECK(run.absence("cpu_pressure") == "needs two readings");
  waited(6, 4, false);
  CHECK(run.value("cpu_pressure") == 0.25);
  CHECK(run.source("cpu_pressure") == Source::kProc);
  CHECK(run.value("pressure_info", {"host"}) == 1);
  // The threads were not read anew.
  waited(6, 4, false);
  CHECK(run.value("cpu_pressure") == 0.25);
  waited(6, 5, true);
  CHECK(run.value("cpu_pressure") == 0);
  CHECK(run.source("cpu_pressure") == Source::kKernel);
  waited(16, 6, true);
  CHECK(run.value("cpu_pressure") == 1);
}

TEST_CASE("memory pressure: a limit above is filled by all that are below it") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/pod/node\n"}};
  Tree cgroups{{"cgroup.controllers", "cpu memory\n"},
               {"cgroup.procs", ""},
               {"pod/cgroup.procs", ""},
               {"pod/memory.max", "1000\n"},
               {"pod/memory.current", "900\n"},
               {"pod/memory.stat", "inactive_file 100\n"},
               {"pod/node/cgroup.procs", "100\n"},
               {"pod/node/memory.max", "max\n"},
               {"pod/node/memory.current", "4\n"},
               {"pod/node/memory.stat", "inactive_file 0\n"}};
  Run run("pressure", pid(100), proc.path(), cgroups.path());
  run.tick();
  CHECK(run.value("memory_pressure") == 0.8);
}

TEST_CASE("pressure: what the kernel does not tell of one resource is absent, not 0") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/\n"}};
  Tree cgroups{{"cgroup.controllers", "cpu memory\n"}, {"cgroup.procs", ""}};
  proc.put("pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=3000000\n");  // before Linux 5.13
  proc.put("pressure/memory", stall("2000000", "1000000"));
  Run run("pressure", pid(100), proc.path(), cgroups.path());
  run.tick();
  CHECK(run.value("pressure_seconds_total", {"cpu", "some"}) == 3);
  CHECK_FALSE(run.value("pressure_seconds_total", {"cpu", "full"}));
  CHECK(run.absence("pressure_seconds_total{resource=\"cpu\",kind=\"full\"}") != "");
  CHECK(run.value("pressure_seconds_total", {"memory", "full"}) == 1);
  CHECK(run.absence("pressure_seconds_total{resource=\"io\"}").find("psi=1") != std::string::npos);
}

TEST_CASE("disk pressure: what is known of waiting counts though the room is not known") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/\n"}};
  Tree cgroups{{"cgroup.controllers", "cpu memory\n"}, {"cgroup.procs", ""}};
  proc.put("pressure/io", stall("2000000", "1000000"));
  Run run("disk", pid(100), proc.path(), cgroups.path());
  run.tick();
  CHECK(run.absence("disk_usage_bytes") != "");
  CHECK(run.absence("disk_pressure") == "needs two readings");
  proc.put("pressure/io", stall("9000000000", "1000000"));
  run.tick();
  CHECK(run.value("disk_pressure") == 1);
  CHECK(run.absence("disk_usage_bytes") != "");
  proc.remove("pressure");
  run.tick();
  CHECK_FALSE(run.value("disk_pressure"));
  CHECK(run.absence("disk_pressure") == run.absence("disk_usage_bytes"));
}

TEST_CASE("a path that is not there is no fault of the kernel") {
  CHECK(boxo::reason({"/nowhere/x: No such file or directory", "", ENOENT}) == "/nowhere/x: No such file or directory");
  CHECK(boxo::reason({"cgroup /x in /sys/fs/cgroup: No such file or directory", "", ENOENT}).find("kernel") == std::string::npos);
  CHECK(boxo::reason({"the target has no cgroup for memory", "", ENOENT}) == "the target has no cgroup for memory");
  CHECK(boxo::reason({"oom_score_adj: No such file or directory", "", ENOENT}) ==
        "oom_score_adj: No such file or directory: this kernel does not have it");
}

TEST_CASE("descriptors: summed over processes; one that cannot be read hides the sum and says why") {
  FakeProc proc{{100, 1, 10}, {101, 100, 11}};
  constexpr const char* kLimits =
      "Limit                     Soft Limit           Hard Limit           Units     \n"
      "Max open files            %                 4096                 files     \n";
  const auto limits = [&](const std::string& soft) {
    std::string text = kLimits;
    return text.replace(text.find('%'), 1, soft);
  };
  for (const char* fd : {"100/fd/0", "100/fd/1", "100/fd/notanumber", "101/fd/0"}) proc.put(fd);
  proc.put("100/limits", limits("100"));
  proc.put("101/limits", limits("10"));
  Run run("fds", pid(100), proc.path());
  run.tick();
  CHECK(run.value("open_fds") == 3);
  CHECK(run.value("max_fds") == 110);
  CHECK(run.value("fd_usage_ratio") == 0.1);
  proc.put("101/limits", "nonsense\n");
  run.tick();
  CHECK(run.value("open_fds") == 3);
  CHECK(run.absence("max_fds") == "limits: not of the known form");
  // The child ends in the middle of a tick: what is left is the parent's.
  proc.remove("101/fd");
  proc.remove("101/limits");
  proc.remove("101/stat");
  run.tick();
  CHECK(run.value("open_fds") == 2);
  CHECK(run.value("max_fds") == 100);
}

TEST_CASE("counters of the process collector: the test itself against its own /proc/self/io") {
  const test::Child child([] {});
  Run run("process", pid(child.pid()));
  run.tick();
  const Process process = test::process_of(child.pid());
  const std::string io = *process.proc.read("io");
  const auto of = [&io](const std::string& key) {
    return std::strtod(io.c_str() + io.find("\n" + key) + key.size() + 1, nullptr);
  };
  CHECK(run.value("io_bytes_total", {"write"}) == of("wchar:"));
  CHECK(run.value("io_syscalls_total", {"read"}) == of("syscr:"));
  CHECK(run.value("disk_write_bytes_total") == of("write_bytes:"));
  CHECK(run.value("oom_score_adj") == std::strtod(process.proc.read("oom_score_adj")->c_str(), nullptr));
  CHECK(run.absence("cpu_usage_percent") == "needs two readings");
  run.tick();
  CHECK(run.value("cpu_usage_percent") >= 0);
}
