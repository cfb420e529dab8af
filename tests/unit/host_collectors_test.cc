// SPDX-License-Identifier: MIT OR Apache-2.0
// The collectors by their public door: a fake /proc and cgroup tree in, a Snapshot out.
#include <doctest/doctest.h>

#include <ctime>
#include <optional>

#include "collectors/catalogue.h"
#include "tests/unit/fake_proc.h"
#include "tests/unit/host_helpers.h"

using namespace boxo;
using boxo::test::FakeProc;
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

/// One collector over one target, tick by tick.
class Run {
 public:
  Run(const char* name, TargetSpec spec, const std::string& proc = "/proc",
      const std::string& cgroups = "/sys/fs/cgroup")
      : target_(*Target::make(std::move(spec), proc, cgroups)) {
    options_.cgroup_root = cgroups;
    for (const CollectorInfo* info : catalogue())
      if (info->name == name) {
        collector_ = info->make(target_, options_);
        for (const Metric& metric : info->metrics()) described_.push_back(&metric);
      }
    REQUIRE(collector_);
  }
  void tick() {
    target_.refresh();
    out_ = Snapshot();
    const auto done = collector_->collect(out_);
    CHECK_MESSAGE(done, (done ? "" : done.error().text()));
    check_described();
  }
  /// The value of the sample with these label values, in order; nothing if there is none.
  std::optional<double> value(const std::string& name, const std::vector<std::string>& labels = {}) const {
    const Family* family = out_.find("boxo_resource_" + name);
    if (family == nullptr) return std::nullopt;
    for (const Sample& sample : family->samples) {
      std::vector<std::string> values;
      for (const Label& label : sample.labels) values.push_back(label.value);
      if (values == labels) return std::get<double>(sample.value);
    }
    return std::nullopt;
  }
  std::string absence(const std::string& name) const {
    for (const Absence& absence : out_.absences())
      if (absence.metric == "boxo_resource_" + name) return absence.reason;
    return "";
  }
  Source source(const std::string& name) const { return out_.find("boxo_resource_" + name)->source; }
  Target& target() { return target_; }

 private:
  /// Everything that comes out is in the catalogue, with the labels that are told there.
  void check_described() const {
    for (const Family& family : out_.families()) {
      const auto it = std::find_if(described_.begin(), described_.end(),
                                   [&](const Metric* metric) { return metric->name == family.metric->name; });
      REQUIRE(it != described_.end());
      for (const Sample& sample : family.samples) {
        std::string labels;
        for (const Label& label : sample.labels) labels += (labels.empty() ? "" : ",") + label.name;
        CHECK(labels == (*it)->labels);
      }
    }
    for (const Absence& absence : out_.absences())
      CHECK(std::any_of(described_.begin(), described_.end(),
                        [&](const Metric* metric) { return metric->name == absence.metric; }));
  }

  Target target_;
  CollectorOptions options_;
  std::unique_ptr<Collector> collector_;
  std::vector<const Metric*> described_;
  Snapshot out_;
};

TargetSpec pid(pid_t pid) { return {TargetSpec::Kind::kPid, pid, ""}; }

}  // namespace

TEST_CASE("every host collector without a target: all absent, all with a reason, no failure") {
  for (const char* name : {"process", "memory", "threads", "fds", "disk", "cgroup", "pressure", "sockets"}) {
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

TEST_CASE("cgroup version 2: limits, use, throttling, kills") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/pod/node\n"}};
  Tree cgroups{
      {"cgroup.controllers", "cpu memory pids\n"},
      {"cgroup.procs", ""},
      {"cpu.stat", "usage_usec 1\n"},
      {"pod/cgroup.procs", ""},
      {"pod/cgroup.controllers", "cpu memory pids\n"},
      {"pod/memory.max", "1000000\n"},
      {"pod/cpu.max", "300000 100000\n"},
      {"pod/pids.max", "max\n"},
      {"pod/node/cgroup.procs", "100\n"},
      {"pod/node/cgroup.controllers", "cpu memory pids\n"},
      {"pod/node/memory.max", "2000000\n"},
      {"pod/node/memory.current", "500000\n"},
      {"pod/node/memory.stat", "anon 1\ninactive_file 100000\n"},
      {"pod/node/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"},
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
  CHECK(run.value("oom_kills_total") == 2);
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
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "4:memory:/x\n2:cpuacct:/x\n1:cpu:/x\n"}};
  Tree cgroups{{"memory/cgroup.procs", ""},
               {"memory/x/cgroup.procs", "100\n"},
               {"memory/x/memory.limit_in_bytes", "9223372036854771712\n"},
               {"memory/x/memory.usage_in_bytes", "700\n"},
               {"memory/x/memory.max_usage_in_bytes", "900\n"},
               {"memory/x/memory.stat", "total_inactive_file 200\n"},
               {"memory/x/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"},
               {"cpu/cgroup.procs", ""},
               {"cpu/x/cgroup.procs", "100\n"},
               {"cpu/x/cpu.cfs_quota_us", "50000\n"},
               {"cpu/x/cpu.cfs_period_us", "100000\n"},
               {"cpu/x/cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 1500000000\n"},
               {"cpuacct/cgroup.procs", ""},
               {"cpuacct/x/cgroup.procs", "100\n"},
               {"cpuacct/x/cpuacct.usage_user", "3000000000\n"},
               {"cpuacct/x/cpuacct.usage_sys", "1000000000\n"}};
  Run run("cgroup", {TargetSpec::Kind::kCgroup, 0, "/x"}, proc.path(), cgroups.path());
  run.tick();
  CHECK(run.absence("memory_limit_bytes") == "the cgroup has no memory limit");
  CHECK(run.value("memory_usage_bytes") == 700);
  CHECK(run.source("memory_usage_bytes") == Source::kCgroup);
  CHECK(run.value("cgroup_memory_bytes", {"working_set"}) == 500);
  CHECK(run.value("cgroup_memory_bytes", {"peak"}) == 900);
  CHECK(run.value("oom_kills_total") == 5);
  CHECK(run.value("cpu_limit_cores") == 0.5);
  CHECK(run.value("cpu_throttled_seconds_total") == 1.5);
  CHECK(run.value("cpu_seconds_total", {"user"}) == 3);
  CHECK(run.value("cpu_seconds_total", {"system"}) == 1);
  CHECK_FALSE(run.value("cpu_usage_percent"));
  cgroups.put("cpuacct/x/cpuacct.usage_user", "3000000001\n");
  run.tick();
  CHECK(*run.value("cpu_usage_percent") > 0);
}

TEST_CASE("a process in the root of the hierarchies has no cgroup of its own") {
  FakeProc proc{{.pid = 100, .parent = 1, .start = 10, .cgroup = "0::/\n"}};
  Tree cgroups{
      {"cgroup.controllers", "cpu memory pids\n"}, {"cgroup.procs", ""}, {"cpu.stat", "usage_usec 1\n"}};
  Run run("cgroup", pid(100), proc.path(), cgroups.path());
  run.tick();
  for (const char* name :
       {"memory_limit_bytes", "cpu_limit_cores", "oom_kills_total", "cpu_throttled_seconds_total"}) {
    CHECK_FALSE(run.value(name));
    CHECK(run.absence(name) != "");
  }
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
