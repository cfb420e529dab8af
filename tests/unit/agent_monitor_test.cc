// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "agent/exporter.h"
#include "agent/monitor.h"
#include "tests/unit/on_stderr.h"

using namespace boxo;

namespace {

constexpr Metric kFromProc{"boxo_network_active_connections", MetricType::kGauge, "", "", Source::kProc, "Sockets."};
constexpr Metric kFromApp{"boxo_network_active_connections", MetricType::kGauge, "", "", Source::kApp, "Peers."};
constexpr Metric kTime{"boxo_test_seconds", MetricType::kHistogram, "seconds", "kind", Source::kProc, "Times."};
constexpr Metric kCount{"boxo_test_total", MetricType::kCounter, "", "", Source::kProc, "Things\nand \\ more."};

class Scripted : public Collector {
 public:
  explicit Scripted(std::function<Result<>(Snapshot&)> script) : script_(std::move(script)) {}
  Result<> collect(Snapshot& out) override { return script_(out); }

 private:
  std::function<Result<>(Snapshot&)> script_;
};

struct Fixture {
  Target target = *Target::make({TargetSpec::Kind::kComm, 0, "no-such-program"});
  std::unique_ptr<PerformanceMonitor> monitor = *PerformanceMonitor::make(target);

  void add(const char* name, std::function<Result<>(Snapshot&)> script,
           std::chrono::nanoseconds every = std::chrono::nanoseconds(0)) {
    monitor->register_collector(name, std::make_unique<Scripted>(std::move(script)), every);
  }
  std::string page(Labels constant = {}) { return *Exporter(*monitor, std::move(constant)).page(); }
};

bool has_line(const std::string& page, const std::string& line) {
  return ("\n" + page).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("monitor: a collector that fails spoils nobody else's metrics, and what it had stays out") {
  Fixture f;
  f.add("broken", [](Snapshot&) -> Result<> { return Error{"no such file", "make one"}; });
  f.add("good", [](Snapshot& out) -> Result<> {
    out.add(kCount, 7);
    return {};
  });
  f.monitor->collect_metrics();
  const std::string page = f.page();
  CHECK(has_line(page, "boxo_test_total 7"));
  CHECK(has_line(page, "boxo_agent_collector_success{collector=\"broken\"} 0"));
  CHECK(has_line(page, "boxo_agent_collector_success{collector=\"good\"} 1"));
  CHECK(f.monitor->statuses()[0].error == "no such file: make one");
}

TEST_CASE("monitor: a collector that flaps fills no log") {
  Fixture f;
  int run = 0;
  f.add("flapping", [&](Snapshot&) -> Result<> {
    if (++run % 2 == 0) return {};
    return Error{"failure number " + std::to_string(run)};
  });
  const std::string log = test::on_stderr([&] {
    for (int i = 0; i < 8; ++i) f.monitor->collect_metrics();
  });
  CHECK(log == "boxo-agent: warn: collector flapping: failure number 1\n");
}

TEST_CASE("monitor: of several sources the best is shown, and said") {
  Fixture f;
  bool app = false;
  f.add("app", [&](Snapshot& out) -> Result<> {
    if (app) out.add(kFromApp, 3);
    return {};
  });
  f.add("proc", [](Snapshot& out) -> Result<> {
    out.add(kFromProc, 9);
    return {};
  });
  f.monitor->collect_metrics();
  CHECK(has_line(f.page(), "boxo_network_active_connections 9"));
  CHECK(has_line(f.page(),
                 "boxo_agent_metric_source_info{metric=\"boxo_network_active_connections\",source=\"proc\"} 1"));
  app = true;
  f.monitor->collect_metrics();
  CHECK(has_line(f.page(), "boxo_network_active_connections 3"));
  CHECK_FALSE(has_line(f.page(), "boxo_network_active_connections 9"));
  CHECK(
      has_line(f.page(), "boxo_agent_metric_source_info{metric=\"boxo_network_active_connections\",source=\"app\"} 1"));
}

TEST_CASE("monitor: what counts goes on to a better source, and never back to a worse one") {
  Fixture f;
  static constexpr Metric kAppCount{"boxo_test_total", MetricType::kCounter, "", "", Source::kApp, "Things."};
  bool app = false;
  bool fails = false;
  f.add("app", [&](Snapshot& out) -> Result<> {
    if (fails) return Error{"no answer"};
    if (app) {
      out.add(kAppCount, 3);
      out.add(kFromApp, 3);
    }
    return {};
  });
  f.add("proc", [](Snapshot& out) -> Result<> {
    out.add(kCount, 9);
    out.add(kFromProc, 9);
    return {};
  });
  f.monitor->collect_metrics();
  CHECK(has_line(f.page(), "boxo_test_total 9"));
  app = true;
  f.monitor->collect_metrics();
  CHECK(has_line(f.page(), "boxo_test_total 3"));
  fails = true;
  f.monitor->collect_metrics();
  // A gauge is true whoever tells it; another counter's 9 would be six things that did not happen.
  CHECK(has_line(f.page(), "boxo_network_active_connections 9"));
  CHECK(f.page().find("\nboxo_test_total") == std::string::npos);
  CHECK(has_line(f.page(),
                 "boxo_agent_metric_absent_info{metric=\"boxo_test_total\",reason=\"counted by source app so far, which tells nothing now\"} 1"));
  fails = false;
  f.monitor->collect_metrics();
  CHECK(has_line(f.page(), "boxo_test_total 3"));
}

TEST_CASE("monitor: what is absent is told with its reason unless another source has it") {
  Fixture f;
  f.add("proc", [](Snapshot& out) -> Result<> {
    out.absent("boxo_resource_disk_read_bytes_total", "io: Permission denied");
    out.absent("boxo_test_total", "not here");
    return {};
  });
  f.add("other", [](Snapshot& out) -> Result<> {
    out.add(kCount, 1);
    return {};
  });
  f.monitor->collect_metrics();
  const std::string page = f.page();
  CHECK(has_line(page, "boxo_agent_metric_absent_info{metric=\"boxo_resource_disk_read_bytes_total\","
                       "reason=\"io: Permission denied\"} 1"));
  CHECK(page.find("not here") == std::string::npos);
  CHECK(page.find("\nboxo_resource_disk_read_bytes_total") == std::string::npos);
}

TEST_CASE("monitor: what is absent of a metric that is there is told with its labels") {
  Fixture f;
  f.add("x", [](Snapshot& out) -> Result<> {
    out.add(kCount, 1, {{"kind", "a"}});
    out.absent("boxo_test_total{kind=\"b\"}", "not here");
    return {};
  });
  f.monitor->collect_metrics();
  CHECK(has_line(f.page(), "boxo_agent_metric_absent_info{metric=\"boxo_test_total{kind=\\\"b\\\"}\",reason=\"not here\"} 1"));
}

TEST_CASE("monitor: the source is told of every name that several can fill") {
  static constexpr Metric kThreads{"boxo_resource_threads", MetricType::kGauge, "", "state", Source::kProc, "Threads."};
  static constexpr Metric kKills{"boxo_resource_oom_kills_total", MetricType::kCounter, "", "", Source::kCgroup, "Kills."};
  static constexpr Metric kUsed{"boxo_resource_memory_usage_bytes", MetricType::kGauge, "", "", Source::kCgroup, "Used."};
  Fixture f;
  f.add("x", [](Snapshot& out) -> Result<> {
    out.add(kThreads, 1, {{"state", "running"}});
    out.family(kThreads).source = Source::kKernel;
    out.add(kKills, 1);
    out.add(kUsed, 1);
    out.add(kCount, 1);
    return {};
  });
  f.monitor->collect_metrics();
  const std::string page = f.page();
  const auto told = [&](const std::string& name, const std::string& source) {
    return has_line(page, "boxo_agent_metric_source_info{metric=\"" + name + "\",source=\"" + source + "\"} 1");
  };
  CHECK(told("boxo_resource_threads", "kernel"));
  CHECK(told("boxo_resource_oom_kills_total", "cgroup"));
  CHECK(told("boxo_resource_memory_usage_bytes", "proc"));  // dashboards know no cgroup there
  CHECK(page.find("metric_source_info{metric=\"boxo_test_total") == std::string::npos);
}

TEST_CASE("monitor: a collector with a clock of its own keeps its metrics in between") {
  Fixture f;
  int runs = 0;
  f.add(
      "slow",
      [&](Snapshot& out) -> Result<> {
        out.add(kCount, ++runs);
        return {};
      },
      std::chrono::hours(1));
  for (int i = 0; i < 3; ++i) f.monitor->collect_metrics();
  CHECK(runs == 1);
  CHECK(has_line(f.page(), "boxo_test_total 1"));
}

TEST_CASE("exporter: cumulative buckets, escaped text, constant labels that do not overwrite") {
  Fixture f;
  f.add("x", [](Snapshot& out) -> Result<> {
    out.add(kTime, Histogram{{0.001, 0.5}, {2, 3, 1}, 1.25}, {{"kind", "a\"b\n\\"}});
    out.add(kCount, 1);
    return {};
  });
  f.monitor->collect_metrics();
  const std::string page = f.page({{"kind", "constant"}, {"node", "n1"}});
  const std::string labels = "kind=\"a\\\"b\\n\\\\\",node=\"n1\"";
  CHECK(has_line(page, "boxo_test_seconds_count{" + labels + "} 6"));
  CHECK(has_line(page, "boxo_test_seconds_sum{" + labels + "} 1.25"));
  CHECK(has_line(page, "boxo_test_seconds_bucket{" + labels + ",le=\"0.001\"} 2"));
  CHECK(has_line(page, "boxo_test_seconds_bucket{" + labels + ",le=\"0.5\"} 5"));
  CHECK(has_line(page, "boxo_test_seconds_bucket{" + labels + ",le=\"+Inf\"} 6"));
  CHECK(has_line(page, "boxo_test_total{kind=\"constant\",node=\"n1\"} 1"));
  CHECK(has_line(page, "# HELP boxo_test_total Things\\nand \\\\ more."));
}

TEST_CASE("exporter: what is not UTF-8 spoils no page") {
  Fixture f;
  f.add("x", [](Snapshot& out) -> Result<> {
    out.add(kCount, 1, {{"kind", "gr\u00fc\xdf\xff"}});
    return {};
  });
  f.monitor->collect_metrics();
  const std::string page = f.page({{"node", "\xc0\xaf"}});
  CHECK(has_line(page, "boxo_test_total{kind=\"gr\u00fc\\\\xdf\\\\xff\",node=\"\\\\xc0\\\\xaf\"} 1"));
}

TEST_CASE("exporter: no page before the first collection, the same one until the next") {
  Fixture f;
  f.add("x", [](Snapshot&) -> Result<> { return {}; });
  const Exporter exporter(*f.monitor, {});
  CHECK(exporter.page()->empty());
  f.monitor->collect_metrics();
  const auto first = exporter.page();
  CHECK(exporter.page() == first);
  f.monitor->collect_metrics();
  CHECK(exporter.page() != first);
}

TEST_CASE("monitor: ticks until it is stopped from another thread, while others read") {
  Fixture f;
  std::atomic<int> runs = 0;
  f.add("x", [&](Snapshot& out) -> Result<> {
    out.add(kCount, ++runs);
    return {};
  });
  const Exporter exporter(*f.monitor, {});
  std::thread scraper([&] {
    while (runs < 10) CHECK(exporter.page() != nullptr);
    f.monitor->stop_collection();
  });
  CHECK(f.monitor->start_collection(std::chrono::milliseconds(5)));
  scraper.join();
  CHECK(runs >= 10);
}

TEST_CASE("monitor: a tick that takes too long is counted as missed ones") {
  Fixture f;
  int runs = 0;
  f.add("slow", [&](Snapshot&) -> Result<> {
    if (++runs == 2) std::this_thread::sleep_for(std::chrono::milliseconds(105));
    if (runs == 3) f.monitor->stop_collection();
    return {};
  });
  const auto begin = std::chrono::steady_clock::now();
  CHECK(f.monitor->start_collection(std::chrono::milliseconds(20)));
  const auto took = std::chrono::steady_clock::now() - begin;  // longer than asked for on a busy machine
  CHECK(f.monitor->missed_ticks() >= 3);
  CHECK(f.monitor->missed_ticks() <= static_cast<std::uint64_t>(took / std::chrono::milliseconds(20)));
}
