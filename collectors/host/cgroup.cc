// SPDX-License-Identifier: MIT OR Apache-2.0
// Limits of the target's cgroup, its use of them, and what happened at them: throttling, out-of-memory kills.
#include <chrono>
#include <optional>

#include "collectors/collector.h"
#include "collectors/host/continued.h"
#include "collectors/host/group_limits.h"
#include "collectors/host/reading.h"
#include "collectors/host/target_group.h"
#include "collectors/host/text.h"

namespace boxo {

extern const CollectorInfo cgroup_collector;

namespace host {
namespace {

using Clock = std::chrono::steady_clock;

constexpr Metric kMemoryLimit{
    "boxo_resource_memory_limit_bytes",
    MetricType::kGauge,
    "bytes",
    "",
    Source::kCgroup,
    "Memory limit of the target's cgroup: the least one along the groups above it."};
constexpr Metric kMemoryUsage{
    "boxo_resource_memory_usage_bytes",
    MetricType::kGauge,
    "bytes",
    "",
    Source::kCgroup,
    "Memory in use: of the cgroup (page cache included) if the target is a cgroup, else the "
    "resident memory of its processes."};
constexpr Metric kGroupMemory{"boxo_resource_cgroup_memory_bytes",
                              MetricType::kGauge,
                              "bytes",
                              "type",
                              Source::kCgroup,
                              "Memory that the target's cgroup is charged for: usage, working_set (usage "
                              "without page cache that can be dropped at "
                              "once) and peak (the highest usage so far)."};
constexpr Metric kCpuSeconds{
    "boxo_resource_cpu_seconds_total",
    MetricType::kCounter,
    "seconds",
    "mode",
    Source::kCgroup,
    "CPU time of the target's processes and of the children they waited for, by mode."};
constexpr Metric kCpuPercent{"boxo_resource_cpu_usage_percent",
                             MetricType::kGauge,
                             "percent",
                             "",
                             Source::kCgroup,
                             "CPU time over the last interval, in percent of one CPU."};
constexpr Metric kCpuLimit{
    "boxo_resource_cpu_limit_cores",
    MetricType::kGauge,
    "cores",
    "",
    Source::kCgroup,
    "CPU limit of the target's cgroup in CPUs: the least one along the groups above it."};
constexpr Metric kThrottledSeconds{
    "boxo_resource_cpu_throttled_seconds_total",
    MetricType::kCounter,
    "seconds",
    "",
    Source::kCgroup,
    "Time in which the target's cgroup had used up its CPU limit, added up over CPUs."};
constexpr Metric kThrottledPeriods{"boxo_resource_cpu_throttled_periods_total",
                                   MetricType::kCounter,
                                   "",
                                   "",
                                   Source::kCgroup,
                                   "Periods in which the target's cgroup had used up its CPU limit."};
constexpr Metric kPeriods{"boxo_resource_cpu_periods_total",
                          MetricType::kCounter,
                          "",
                          "",
                          Source::kCgroup,
                          "Periods in which the target's cgroup had something to run and a CPU limit."};
constexpr Metric kOomKills{"boxo_resource_oom_kills_total",
                           MetricType::kCounter,
                           "",
                           "",
                           Source::kCgroup,
                           "Processes of the target, or of its cgroup, that the out-of-memory killer ended."};
constexpr Metric kMaxThreads{
    "boxo_resource_max_threads",
    MetricType::kGauge,
    "",
    "",
    Source::kCgroup,
    "How many threads the target's cgroup may have: the least limit along the groups above it."};
constexpr Metric kAll[] = {kMemoryLimit, kMemoryUsage, kGroupMemory,      kCpuSeconds,
                           kCpuPercent,  kCpuLimit,    kThrottledSeconds, kThrottledPeriods,
                           kPeriods,     kOomKills,    kMaxThreads};

class CgroupCollector final : public Collector {
 public:
  CgroupCollector(const Target& target, const CollectorOptions& options)
      : target_(target), group_(target, options.cgroup_root) {}

  Result<> collect(Snapshot& out) override {
    group_.refresh();
    // What happened in the group of a process that has ended still counts; its limits are nobody's any more.
    here_ = target_.up() || target_.is_cgroup();
    add_memory(out);
    add_cpu(out);
    if (target_.is_cgroup()) add_cpu_time(out);
    add_threads(out);
    return {};
  }

  std::vector<Capability> check() override {
    std::vector<Capability> rows;
    for (const char* controller : {"memory", "cpu", "pids"}) {
      const CgroupView* view = group_.view(controller);
      const std::string where =
          view == nullptr ? "" : view->path + " (version " + std::to_string(view->version) + ")";
      rows.push_back({controller, view != nullptr, view == nullptr ? group_.trouble() : printable(where)});
    }
    return rows;
  }

 private:
  void add_memory(Snapshot& out) {
    const CgroupView* view = group_.view("memory");
    if (view == nullptr || !here_) {
      const std::string why = here_ ? group_.trouble() : kNoTarget;
      for (const Metric& metric : {kMemoryLimit, kGroupMemory}) out.absent(metric.name, why);
    } else {
      add_memory(out, *view);
    }
    if (view != nullptr) {
      auto text = view->group().read(view->version == 2 ? "memory.events" : "memory.oom_control", 4096);
      const auto kills = text ? number_of(*text, "oom_kill ") : std::nullopt;
      if (kills) oom_kills_.update(TargetGroup::place(view->group()), {*kills});
    }
    add_oom_kills(out);
  }

  void add_memory(Snapshot& out, const CgroupView& view) {
    if (const auto limit = least(view, memory_limit))
      out.add(kMemoryLimit, static_cast<double>(*limit));
    else
      out.absent(kMemoryLimit.name, "the cgroup has no memory limit");
    const auto memory = group_memory(view.version, view.group());
    if (!memory) return out.absent(kGroupMemory.name, "the memory controller is off in this cgroup");
    out.add(kGroupMemory, static_cast<double>(memory->usage), {{"type", "usage"}});
    out.add(kGroupMemory, static_cast<double>(memory->working_set), {{"type", "working_set"}});
    if (memory->peak) out.add(kGroupMemory, static_cast<double>(*memory->peak), {{"type", "peak"}});
    if (target_.is_cgroup()) out.add(kMemoryUsage, static_cast<double>(memory->usage));
  }

  void add_oom_kills(Snapshot& out) const {
    if (oom_kills_.ever())
      out.add(kOomKills, static_cast<double>(oom_kills_.total()[0]));
    else
      out.absent(kOomKills.name,
                 group_.trouble().empty() ? "this kernel does not count them by cgroup" : group_.trouble());
  }

  void add_cpu(Snapshot& out) {
    const CgroupView* view = group_.view("cpu");
    const auto limit = view == nullptr ? std::nullopt : least(*view, cpu_limit);
    if (limit && here_)
      out.add(kCpuLimit, *limit);
    else
      out.absent(kCpuLimit.name, !here_            ? kNoTarget
                                 : view == nullptr ? group_.trouble()
                                                   : "the cgroup has no CPU limit");
    if (view != nullptr) read_throttling(*view);
    if (!throttled_.ever()) {
      for (const Metric& metric : {kThrottledSeconds, kThrottledPeriods, kPeriods})
        out.absent(metric.name,
                   view == nullptr ? group_.trouble() : "the cpu controller is off in this cgroup");
      return;
    }
    out.add(kThrottledSeconds, static_cast<double>(throttled_.total()[0]) * 1e-9);
    out.add(kThrottledPeriods, static_cast<double>(throttled_.total()[1]));
    out.add(kPeriods, static_cast<double>(throttled_.total()[2]));
  }

  /// From the group whose limit holds: the nearest one that has one.
  void read_throttling(const CgroupView& view) {
    const Dir* holder = &view.group();
    for (const Dir& level : view.levels) {
      if (!cpu_limit(view.version, level)) continue;
      holder = &level;
      break;
    }
    auto text = holder->read("cpu.stat", 4096);
    if (!text) return;
    const auto periods = number_of(*text, "nr_periods ");
    const auto throttled = number_of(*text, "nr_throttled ");
    const auto time = number_of(*text, view.version == 2 ? "throttled_usec " : "throttled_time ");
    if (!periods || !throttled || !time) return;
    throttled_.update(TargetGroup::place(*holder),
                      {*time * (view.version == 2 ? 1000 : 1), *throttled, *periods});
  }

  /// The group counts processes that ended as well, however short they lived.
  void add_cpu_time(Snapshot& out) {
    if (const CgroupView* view = group_.view("cpuacct")) {
      std::optional<std::uint64_t> user;
      std::optional<std::uint64_t> system;
      if (view->version == 2) {
        if (auto text = view->group().read("cpu.stat", 4096)) {
          user = number_of(*text, "user_usec ");
          system = number_of(*text, "system_usec ");
        }
        if (user) *user *= 1000;
        if (system) *system *= 1000;
      } else {
        user = number_in(view->group(), "cpuacct.usage_user");
        system = number_in(view->group(), "cpuacct.usage_sys");
      }
      if (user && system) time_.update(TargetGroup::place(view->group()), {*user, *system});
    }
    if (!time_.ever()) return;
    const auto now = Clock::now();
    const auto& total = time_.total();
    out.add(kCpuSeconds, static_cast<double>(total[0]) * 1e-9, {{"mode", "user"}});
    out.add(kCpuSeconds, static_cast<double>(total[1]) * 1e-9, {{"mode", "system"}});
    const double used = static_cast<double>(total[0] + total[1]);
    if (last_ && now > last_->at)
      out.add(kCpuPercent,
              100 * (used - last_->used) / std::chrono::duration<double, std::nano>(now - last_->at).count());
    last_ = Usage{used, now};
  }

  void add_threads(Snapshot& out) {
    const CgroupView* view = group_.view("pids");
    const auto limit = view == nullptr
                           ? std::nullopt
                           : least(*view, [](int, const Dir& level) { return number_in(level, "pids.max"); });
    if (limit && here_)
      out.add(kMaxThreads, static_cast<double>(*limit));
    else
      out.absent(kMaxThreads.name, !here_            ? kNoTarget
                                   : view == nullptr ? group_.trouble()
                                                     : "the cgroup has no limit of threads");
  }

  struct Usage {
    double used = 0;
    Clock::time_point at;
  };

  const Target& target_;
  TargetGroup group_;
  bool here_ = false;
  Continued<1> oom_kills_;
  Continued<3> throttled_;
  Continued<2> time_;
  std::optional<Usage> last_;
};

}  // namespace
}  // namespace host

const CollectorInfo cgroup_collector{
    "cgroup", "limits, use, throttling and out-of-memory kills of the target's cgroup",
    [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::CgroupCollector>(target, options);
    }};

}  // namespace boxo
