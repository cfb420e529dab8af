// SPDX-License-Identifier: MIT OR Apache-2.0
// The collector of the target's cgroup: a fake /proc and cgroup tree in, a Snapshot out.
#include "collectors/host/group_io.h"
#include "tests/unit/fake_proc.h"
#include "tests/unit/host_run.h"

using namespace boxo;
using boxo::test::FakeProc;
using boxo::test::pid;
using boxo::test::Run;
using boxo::test::Tree;

TEST_CASE("cgroup version 2: limits, use, throttling, kills") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/pod/node\n"}};
  Tree cgroups{
      {"cgroup.controllers", "cpu io memory pids\n"},
      {"cgroup.procs", ""},
      {"cpu.stat", "usage_usec 1\n"},
      {"pod/cgroup.procs", ""},
      {"pod/cgroup.controllers", "cpu io memory pids\n"},
      {"pod/memory.max", "1000000\n"},
      {"pod/cpu.max", "300000 100000\n"},
      {"pod/pids.max", "max\n"},
      {"pod/node/cgroup.procs", "100\n"},
      {"pod/node/cgroup.controllers", "cpu io memory pids\n"},
      {"pod/node/memory.max", "2000000\n"},
      {"pod/node/memory.current", "500000\n"},
      {"pod/node/memory.stat",
       "anon 1\nfile 20\nkernel 3\nsock 4\nshmem 5\nfile_mapped 9\nfile_dirty 6\nfile_writeback 7\ninactive_file 100000\n"
       "workingset_refault_anon 8\nworkingset_refault_file 90\n"},
      {"pod/node/memory.swap.current", "4096\n"},
      {"pod/node/memory.events", "low 0\nhigh 1100\nmax 1200\noom 3\noom_kill 2\noom_group_kill 0\n"},
      {"pod/node/memory.events.local", "low 0\nhigh 11\nmax 120\noom 3\noom_kill 2\noom_group_kill 0\n"},
      {"pod/memory.events.local", "low 0\nhigh 110\nmax 12\noom 0\noom_kill 0\noom_group_kill 0\n"},
      {"pod/node/io.stat", "253:7 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=512 dios=3\n7:0\n"},
      {"pod/node/cpu.max", "150000 100000\n"},
      {"pod/node/cpu.stat",
       "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 100\nnr_throttled 40\nthrottled_usec 2500000\n"},
      {"pod/node/pids.max", "64\n"}};
  Run run("cgroup", pid(100), proc.path(), cgroups.path());
  run.tick();
  CHECK(run.value("memory_limit_bytes") == 1000000);
  CHECK(run.value("cgroup_memory_bytes", {"usage"}) == 500000);
  CHECK(run.value("cgroup_memory_bytes", {"working_set"}) == 400000);
  CHECK_FALSE(run.value("cgroup_memory_bytes", {"peak"}));
  for (const auto& kind : std::initializer_list<std::pair<std::string, double>>{
           {"anon", 1}, {"file", 20}, {"kernel", 3}, {"sock", 4}, {"shmem", 5}, {"mapped", 9}, {"dirty", 6}, {"writeback", 7}, {"swap", 4096}})
    CHECK_MESSAGE(run.value("cgroup_memory_bytes", {kind.first}) == kind.second, kind.first);
  CHECK(run.value("memory_refaults_total", {"anon"}) == 8);
  CHECK(run.value("memory_refaults_total", {"file"}) == 90);
  CHECK(run.value("memory_limit_hits_total", {"high"}) == 11);
  CHECK(run.value("memory_limit_hits_total", {"max"}) == 12);
  CHECK(run.value("cgroup_io_bytes_total", {"253:7", "write"}) == 8192);
  CHECK(run.value("cgroup_io_bytes_total", {"253:7", "discard"}) == 512);
  CHECK(run.value("cgroup_io_requests_total", {"253:7", "read"}) == 1);
  CHECK_FALSE(run.value("memory_usage_bytes"));
  CHECK(run.value("cpu_limit_cores") == 1.5);
  CHECK(run.value("cpu_throttled_seconds_total") == 2.5);
  CHECK(run.value("cpu_throttled_periods_total") == 40);
  CHECK(run.value("cpu_periods_total") == 100);
  CHECK(run.value("oom_kills_total") == 2);
  CHECK(run.value("max_threads") == 64);
  CHECK_FALSE(run.value("cpu_seconds_total", {"user"}));

  // The group is removed and made again: its counters begin anew, ours go on.
  cgroups.remove("pod/node");
  run.tick();
  CHECK_FALSE(run.value("oom_kills_total"));
  CHECK(run.absence("oom_kills_total") != "");
  for (const auto& [file, text] : std::initializer_list<std::pair<std::string, std::string>>{
           {"cgroup.procs", "100\n"},
           {"cgroup.controllers", "cpu memory pids\n"},
           {"memory.max", "max\n"},
           {"memory.events", "oom_kill 0\n"},
           {"cpu.max", "max 100000\n"},
           {"cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"}})
    cgroups.put("pod/node/" + file, text);
  run.tick();
  CHECK(run.value("memory_limit_bytes") == 1000000);
  CHECK(run.value("oom_kills_total") == 2);
  cgroups.put("pod/node/memory.events", "oom_kill 1\n");
  run.tick();
  CHECK(run.value("oom_kills_total") == 3);
  CHECK(run.absence("max_threads") != "");

  // The process ends by the killer: that is counted though there is no target any more.
  proc.end(100);
  cgroups.put("pod/node/memory.events", "oom_kill 2\n");
  run.tick();
  CHECK(run.value("oom_kills_total") == 4);
  CHECK_FALSE(run.value("memory_limit_bytes"));
  CHECK(run.absence("memory_limit_bytes") == "the target is not running");
}

TEST_CASE("cgroup version 1: limits, throttling, kills; the group counts the time of a group target") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "5:blkio:/x\n4:memory:/x\n2:cpuacct:/x\n1:cpu:/x\n"}};
  Tree cgroups{{"memory/cgroup.procs", ""},
               {"memory/x/cgroup.procs", "100\n"},
               {"memory/x/memory.limit_in_bytes", "9223372036854771712\n"},
               {"memory/x/memory.usage_in_bytes", "700\n"},
               {"memory/x/memory.max_usage_in_bytes", "900\n"},
               {"memory/x/memory.stat",
                "cache 1\nworkingset_refault_file 1\ntotal_cache 20\ntotal_rss 30\ntotal_workingset_refault_file 40\n"
                "total_inactive_file 200\n"},
               {"memory/x/memory.failcnt", "6\n"},
               {"blkio/cgroup.procs", ""},
               {"blkio/x/cgroup.procs", "100\n"},
               {"blkio/x/blkio.throttle.io_service_bytes_recursive",
                "253:7 Read 4096\n253:7 Write 0\n253:7 Sync 4096\n253:7 Discard 0\n253:7 Total 4096\nTotal 4096\n"},
               {"blkio/x/blkio.throttle.io_serviced_recursive", "253:7 Read 2\n253:7 Total 2\nTotal 2\n"},
               {"memory/x/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"},
               {"cpu/cgroup.procs", ""},
               {"cpu/x/cgroup.procs", "100\n"},
               {"cpu/x/cpu.cfs_quota_us", "50000\n"},
               {"cpu/x/cpu.cfs_period_us", "100000\n"},
               {"cpu/x/cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 1500000000\n"},
               {"cpuacct/cgroup.procs", ""},
               {"cpuacct/x/cgroup.procs", "100\n"},
               {"cpuacct/x/cpuacct.usage", "8000000000\n"},
               {"cpuacct/x/cpuacct.usage_user", "3000000000\n"},
               {"cpuacct/x/cpuacct.usage_sys", "1000000000\n"}};
  Run run("cgroup", {TargetSpec::Kind::kCgroup, 0, "/x"}, proc.path(), cgroups.path());
  run.tick();
  CHECK(run.absence("memory_limit_bytes") == "the cgroup has no memory limit");
  CHECK(run.value("memory_usage_bytes") == 700);
  CHECK(run.source("memory_usage_bytes") == Source::kCgroup);
  CHECK(run.value("cgroup_memory_bytes", {"working_set"}) == 500);
  CHECK(run.value("cgroup_memory_bytes", {"peak"}) == 900);
  CHECK(run.value("cgroup_memory_bytes", {"anon"}) == 30);
  CHECK(run.value("cgroup_memory_bytes", {"file"}) == 20);
  CHECK_FALSE(run.value("cgroup_memory_bytes", {"kernel"}));
  CHECK(run.value("memory_refaults_total", {"file"}) == 40);
  CHECK_FALSE(run.value("memory_refaults_total", {"anon"}));
  CHECK(run.value("memory_limit_hits_total", {"max"}) == 6);
  CHECK_FALSE(run.value("memory_limit_hits_total", {"high"}));
  CHECK(run.value("cgroup_io_bytes_total", {"253:7", "read"}) == 4096);
  CHECK(run.value("cgroup_io_requests_total", {"253:7", "read"}) == 2);
  CHECK(run.value("oom_kills_total") == 5);
  CHECK(run.value("cpu_limit_cores") == 0.5);
  CHECK(run.value("cpu_throttled_seconds_total") == 1.5);
  // The sum is exact; the kernel only samples the modes.
  CHECK(run.value("cpu_seconds_total", {"user"}) == 6);
  CHECK(run.value("cpu_seconds_total", {"system"}) == 2);
  CHECK_FALSE(run.value("cpu_usage_percent"));
  cgroups.put("cpuacct/x/cpuacct.usage", "8400000000\n");  // too short for a sample
  run.tick();
  CHECK(*run.value("cpu_usage_percent") > 0);
  CHECK(run.value("cpu_seconds_total", {"user"}) == doctest::Approx(6.3));
  CHECK(run.value("cpu_seconds_total", {"system"}) == doctest::Approx(2.1));
  cgroups.put("cpuacct/x/cpuacct.usage", "9400000000\n");
  cgroups.put("cpuacct/x/cpuacct.usage_sys", "1400000000\n");  // all that was sampled, here and before
  run.tick();
  CHECK(run.value("cpu_seconds_total", {"user"}) == doctest::Approx(6.3));
  CHECK(run.value("cpu_seconds_total", {"system"}) == doctest::Approx(3.1));
}

TEST_CASE("cgroup version 2: throttling is counted where the least limit is; the pressure is that where it is greatest") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/pod/node\n"}};
  Tree cgroups{{"cgroup.controllers", "cpu\n"},
               {"cgroup.procs", ""},
               {"pod/cgroup.procs", ""},
               {"pod/cpu.max", "50000 100000\n"},
               {"pod/cpu.stat", "nr_periods 10\nnr_throttled 5\nthrottled_usec 1000000\n"},
               {"pod/node/cgroup.procs", "100\n"},
               {"pod/node/cpu.max", "400000 100000\n"},
               {"pod/node/cpu.stat", "nr_periods 10\nnr_throttled 0\nthrottled_usec 0\n"}};
  Run run("cgroup", pid(100), proc.path(), cgroups.path());
  Run pressure("pressure", pid(100), proc.path(), cgroups.path());
  run.tick();
  pressure.tick();
  CHECK(run.value("cpu_limit_cores") == 0.5);
  CHECK(run.value("cpu_throttled_periods_total") == 5);
  cgroups.put("pod/cpu.stat", "nr_periods 20\nnr_throttled 14\nthrottled_usec 1000000\n");
  pressure.tick();
  CHECK(pressure.value("cpu_pressure") == doctest::Approx(0.9));
  cgroups.put("pod/node/cpu.stat", "nr_periods 14\nnr_throttled 3\nthrottled_usec 1000000\n");
  pressure.tick();
  CHECK(pressure.value("cpu_pressure") == doctest::Approx(0.75));
}

TEST_CASE("cgroup version 2: hits are counted where the least limit is, of each kind, and not at those below") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/pod/node\n"}};
  Tree cgroups{{"cgroup.controllers", "memory\n"},
               {"cgroup.procs", ""},
               {"pod/cgroup.procs", ""},
               {"pod/memory.max", "1000\n"},
               {"pod/memory.high", "900\n"},
               {"pod/memory.events", "high 70\nmax 80\n"},
               {"pod/memory.events.local", "high 7\nmax 8\n"},
               {"pod/node/cgroup.procs", "100\n"},
               {"pod/node/memory.max", "2000\n"},
               {"pod/node/memory.high", "800\n"},
               {"pod/node/memory.events", "high 30\nmax 40\noom_kill 2\n"},
               {"pod/node/memory.events.local", "high 3\nmax 4\noom_kill 1\n"}};
  Run run("cgroup", pid(100), proc.path(), cgroups.path());
  run.tick();
  CHECK(run.value("memory_limit_bytes") == 1000);
  CHECK(run.value("memory_limit_hits_total", {"max"}) == 8);
  CHECK(run.value("memory_limit_hits_total", {"high"}) == 3);
  CHECK(run.value("oom_kills_total") == 2);
  // Another one holds from now on: what it has counted before was nothing that was held back from the target.
  cgroups.put("pod/node/memory.max", "500\n");
  cgroups.put("pod/node/memory.high", "max\n");
  run.tick();
  CHECK(run.value("memory_limit_bytes") == 500);
  CHECK(run.value("memory_limit_hits_total", {"max"}) == 8);
  cgroups.put("pod/node/memory.events.local", "high 3\nmax 6\n");
  cgroups.put("pod/memory.events.local", "high 9\nmax 9\n");
  run.tick();
  CHECK(run.value("memory_limit_hits_total", {"max"}) == 10);
  CHECK(run.value("memory_limit_hits_total", {"high"}) == 5);
}

TEST_CASE("cgroup version 1: hits are counted where the least limit is, without one at the target's own group") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "4:memory:/pod/node\n"}};
  Tree cgroups{{"memory/cgroup.procs", ""},
               {"memory/memory.failcnt", "0\n"},
               {"memory/memory.limit_in_bytes", "9223372036854771712\n"},
               {"memory/pod/cgroup.procs", ""},
               {"memory/pod/memory.failcnt", "7\n"},
               {"memory/pod/memory.limit_in_bytes", "4096\n"},
               {"memory/pod/node/cgroup.procs", "100\n"},
               {"memory/pod/node/memory.failcnt", "2\n"},
               {"memory/pod/node/memory.limit_in_bytes", "8192\n"}};
  Run run("cgroup", pid(100), proc.path(), cgroups.path());
  run.tick();
  CHECK(run.value("memory_limit_bytes") == 4096);
  CHECK(run.value("memory_limit_hits_total", {"max"}) == 7);
  for (const char* group : {"pod", "pod/node"})
    cgroups.put("memory/" + std::string(group) + "/memory.limit_in_bytes", "9223372036854771712\n");
  Run unlimited("cgroup", pid(100), proc.path(), cgroups.path());
  unlimited.tick();
  CHECK_FALSE(unlimited.value("memory_limit_bytes"));
  CHECK(unlimited.value("memory_limit_hits_total", {"max"}) == 2);
}

TEST_CASE("cgroup version 1: limits above a group that does not count what is below it do not hold") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "4:memory:/pod/in/node\n"}};
  Tree cgroups{{"memory/cgroup.procs", ""},
               {"memory/pod/cgroup.procs", ""},
               {"memory/pod/memory.failcnt", "7\n"},
               {"memory/pod/memory.limit_in_bytes", "4096\n"},
               {"memory/pod/memory.use_hierarchy", "0\n"},
               {"memory/pod/in/cgroup.procs", ""},
               {"memory/pod/in/memory.failcnt", "5\n"},
               {"memory/pod/in/memory.limit_in_bytes", "8192\n"},
               {"memory/pod/in/memory.use_hierarchy", "1\n"},
               {"memory/pod/in/node/cgroup.procs", "100\n"},
               {"memory/pod/in/node/memory.failcnt", "2\n"},
               {"memory/pod/in/node/memory.limit_in_bytes", "16384\n"},
               {"memory/pod/in/node/memory.use_hierarchy", "1\n"}};
  const auto limit_and_hits = [&] {
    Run run("cgroup", pid(100), proc.path(), cgroups.path());
    run.tick();
    return std::pair(run.value("memory_limit_bytes"), run.value("memory_limit_hits_total", {"max"}));
  };
  CHECK(limit_and_hits() == std::pair(std::optional(8192.0), std::optional(5.0)));
  // What the target's own group does with those below it does not matter, what the group above it does.
  cgroups.put("memory/pod/in/memory.use_hierarchy", "0\n");
  CHECK(limit_and_hits() == std::pair(std::optional(16384.0), std::optional(2.0)));
  cgroups.put("memory/pod/in/memory.use_hierarchy", "1\n");
  cgroups.put("memory/pod/in/node/memory.use_hierarchy", "0\n");
  CHECK(limit_and_hits() == std::pair(std::optional(8192.0), std::optional(5.0)));
  // Since Linux 5.11 every group counts what is below it.
  cgroups.put("memory/pod/memory.use_hierarchy", "1\n");
  CHECK(limit_and_hits() == std::pair(std::optional(4096.0), std::optional(7.0)));
  cgroups.remove("memory/pod/memory.use_hierarchy");
  CHECK(limit_and_hits() == std::pair(std::optional(4096.0), std::optional(7.0)));
}

TEST_CASE("cgroup version 2 counts the time of a group target without the cpu controller too") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/x\n"}};
  Tree cgroups{{"cgroup.controllers", "memory pids\n"},
               {"cgroup.procs", ""},
               {"x/cgroup.procs", "100\n"},
               {"x/cgroup.events", "populated 1\n"},
               {"x/cpu.stat", "usage_usec 4000000\nuser_usec 3000000\nsystem_usec 1000000\n"}};
  Run run("cgroup", {TargetSpec::Kind::kCgroup, 0, "/x"}, proc.path(), cgroups.path());
  run.tick();
  CHECK(run.value("cpu_seconds_total", {"user"}) == 3);
  CHECK(run.value("cpu_seconds_total", {"system"}) == 1);
  CHECK(run.source("cpu_seconds_total") == Source::kCgroup);
}

TEST_CASE("a process in the root of the hierarchies has no cgroup of its own") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/\n"}};
  Tree cgroups{
      {"cgroup.controllers", "cpu memory pids\n"}, {"cgroup.procs", ""}, {"cpu.stat", "usage_usec 1\n"}};
  Run run("cgroup", pid(100), proc.path(), cgroups.path());
  run.tick();
  for (const char* name :
       {"memory_limit_bytes", "cpu_limit_cores", "oom_kills_total", "cpu_throttled_seconds_total",
        "memory_refaults_total", "memory_limit_hits_total", "cgroup_io_bytes_total"}) {
    CHECK_FALSE(run.value(name));
    CHECK(run.absence(name) != "");
  }
}

TEST_CASE("cgroup I/O: of more than 64 devices the rest is one row, which never goes back") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/x\n"}};
  Tree cgroups{{"cgroup.controllers", "io\n"}, {"cgroup.procs", ""}, {"x/cgroup.procs", "100\n"}};
  // Numbers that no host has names for.
  const auto stat = [&cgroups](int first, int end, int bytes) {
    std::string text;
    for (int i = first; i < end; ++i)
      text += "4000:" + std::to_string(100 + i) + " rbytes=" + std::to_string(bytes) + " wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n";
    cgroups.put("x/io.stat", text);
  };
  Run run("cgroup", pid(100), proc.path(), cgroups.path());
  stat(0, 64, 1000);
  run.tick();
  CHECK(run.value("cgroup_io_bytes_total", {"4000:163", "read"}) == 1000);
  CHECK_FALSE(run.value("cgroup_io_bytes_total", {"other", "read"}));
  stat(0, 70, 1000);
  run.tick();
  CHECK(run.value("cgroup_io_bytes_total", {"other", "read"}) == 6000);
  CHECK(run.value("cgroup_io_requests_total", {"other", "read"}) == 6);
  CHECK_FALSE(run.value("cgroup_io_bytes_total", {"4000:164", "read"}));
  stat(0, 66, 1001);
  run.tick();
  CHECK(run.value("cgroup_io_bytes_total", {"other", "read"}) == 6002);
  stat(66, 67, 10);
  run.tick();
  CHECK(run.value("cgroup_io_bytes_total", {"other", "read"}) == 6012);
  CHECK(run.value("cgroup_io_bytes_total", {"4000:100", "read"}) == 1001);
}

TEST_CASE("cgroup I/O: a device keeps its name when it is gone, also if another one gets its number") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/x\n"}};
  Tree cgroups{{"cgroup.controllers", "io\n"}, {"cgroup.procs", ""}, {"x/cgroup.procs", "100\n"}};
  Tree names{{"259:0", "->../../devices/pci/nvme0n1"}, {"8:0", "->../../devices/pci/sda"}};
  auto target = Target::make(pid(100), proc.path(), cgroups.path());
  REQUIRE(target);
  host::TargetGroup group(*target, cgroups.path());
  host::GroupIo io(names.path());
  using Rows = std::map<std::string, double>;
  const auto read = [&](const std::string& stat) {
    cgroups.put("x/io.stat", stat);
    group.refresh();
    Snapshot out;
    io.add(out, group);
    Rows rows;
    for (const Sample& sample : out.find("boxo_resource_cgroup_io_bytes_total")->samples)
      if (sample.labels[1].value == "read") rows[sample.labels[0].value] += std::get<double>(sample.value);
    return rows;
  };
  CHECK(read("259:0 rbytes=100\n8:0 rbytes=7\n9:9 rbytes=3\n") == Rows{{"nvme0n1", 100}, {"sda", 7}, {"9:9", 3}});
  // Its link is gone before its counts are.
  names.remove("259:0");
  CHECK(read("259:0 rbytes=110\n8:0 rbytes=7\n9:9 rbytes=3\n") == Rows{{"nvme0n1", 110}, {"sda", 7}, {"9:9", 3}});
  CHECK(read("8:0 rbytes=8\n") == Rows{{"nvme0n1", 110}, {"sda", 8}, {"9:9", 3}});
  names.put("259:0", "->../../devices/pci/nvme1n1");
  CHECK(read("259:0 rbytes=5\n") == Rows{{"nvme0n1", 110}, {"nvme1n1", 5}, {"sda", 8}, {"9:9", 3}});
}

TEST_CASE("cgroup memory: what happened is absent while its file cannot be read, and goes on after") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/x\n"}};
  const std::pair<const char*, const char*> files[] = {
      {"memory.current", "5\n"},
      {"memory.stat", "inactive_file 1\nworkingset_refault_anon 3\nworkingset_refault_file 4\n"},
      {"memory.events", "oom_kill 2\n"},
      {"memory.events.local", "high 5\nmax 6\n"}};
  Tree cgroups{{"cgroup.controllers", "memory\n"}, {"cgroup.procs", ""}, {"x/cgroup.procs", "100\n"}};
  const auto put = [&] {
    for (const auto& [file, text] : files) cgroups.put(std::string("x/") + file, text);
  };
  put();
  Run run("cgroup", pid(100), proc.path(), cgroups.path());
  const auto check_all = [&run] {
    CHECK(run.value("oom_kills_total") == 2);
    CHECK(run.value("memory_limit_hits_total", {"max"}) == 6);
    CHECK(run.value("memory_limit_hits_total", {"high"}) == 5);
    CHECK(run.value("memory_refaults_total", {"anon"}) == 3);
  };
  run.tick();
  check_all();
  // One file of them.
  cgroups.remove("x/memory.events.local");
  run.tick();
  CHECK(run.value("oom_kills_total") == 2);
  CHECK_FALSE(run.value("memory_limit_hits_total", {"max"}));
  CHECK(run.absence("memory_limit_hits_total").find("No such file") != std::string::npos);
  // The controller is taken away.
  for (const auto& [file, text] : files) cgroups.remove(std::string("x/") + file);
  run.tick();
  for (const char* name : {"oom_kills_total", "memory_limit_hits_total", "memory_refaults_total"})
    CHECK_MESSAGE(run.absence(name) == "the memory controller is off in this cgroup", name);
  CHECK_FALSE(run.value("memory_refaults_total", {"anon"}));
  put();
  run.tick();
  check_all();
  // Without a group what was counted stays.
  proc.end(100);
  cgroups.remove("x");
  run.tick();
  check_all();
}

TEST_CASE("cgroup memory: of hits the row is absent whose file cannot be read") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/pod/x\n"}};
  Tree cgroups{{"cgroup.controllers", "memory\n"},
               {"cgroup.procs", ""},
               {"pod/cgroup.procs", ""},
               {"pod/memory.max", "10\n"},
               {"pod/memory.events.local", "max 3\n"},
               {"pod/x/cgroup.procs", "100\n"},
               {"pod/x/memory.high", "5\n"}};
  Run run("cgroup", pid(100), proc.path(), cgroups.path());
  run.tick();
  CHECK(run.value("memory_limit_hits_total", {"max"}) == 3);
  CHECK(run.absence("memory_limit_hits_total") == "");
  CHECK(run.absence("memory_limit_hits_total{limit=\"high\"}") == "the memory controller is off in this cgroup");
}
