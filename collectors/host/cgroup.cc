// SPDX-License-Identifier: MIT OR Apache-2.0
// What the target's cgroup tells: memory and I/O, CPU time, limits, and what happened at them.
#include <chrono>
#include <optional>
#include <span>
#include <vector>

#include "collectors/collector.h"
#include "collectors/host/continued.h"
#include "collectors/host/cpu_modes.h"
#include "collectors/host/group_io.h"
#include "collectors/host/group_limits.h"
#include "collectors/host/group_memory.h"
#include "collectors/host/target_group.h"
#include "collectors/host/text.h"
#include "collectors/reading.h"

namespace boxo {

extern const CollectorInfo cgroup_collector;

namespace host {
namespace {

using Clock = std::chrono::steady_clock;

constexpr Metric kCpuSeconds{
    "boxo_resource_cpu_seconds_total",
    MetricType::kCounter,
    "seconds",
    "mode",
    Source::kCgroup,
    "CPU time of the target's processes, those that have ended included, by mode."};
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
    "Time in which the target's cgroup, or the one above it that has a lower CPU limit, had used that up; added up over "
    "CPUs."};
constexpr Metric kThrottledPeriods{"boxo_resource_cpu_throttled_periods_total",
                                   MetricType::kCounter,
                                   "",
                                   "",
                                   Source::kCgroup,
                                   "Periods in which the target's cgroup, or the one above it that has a lower CPU limit, had "
                                   "used that up."};
constexpr Metric kPeriods{"boxo_resource_cpu_periods_total",
                          MetricType::kCounter,
                          "",
                          "",
                          Source::kCgroup,
                          "Periods in which that cgroup, which has the lowest CPU limit, had something to run."};
constexpr Metric kMaxThreads{
    "boxo_resource_max_threads",
    MetricType::kGauge,
    "",
    "",
    Source::kCgroup,
    "How many threads the target's cgroup may have: the least limit along the groups above it."};
constexpr Metric kOwn[] = {kCpuSeconds, kCpuPercent, kCpuLimit, kThrottledSeconds, kThrottledPeriods, kPeriods, kMaxThreads};

class CgroupCollector final : public Collector {
 public:
  CgroupCollector(const Target& target, const CollectorOptions& options)
      : target_(target), group_(target, options.cgroup_root) {}

  Result<> collect(Snapshot& out) override {
    group_.refresh();
    // What happened in the group of a process that has ended still counts; its limits are nobody's any more.
    here_ = target_.up() || target_.is_cgroup();
    memory_.add(out, group_, target_);
    io_.add(out, group_);
    add_cpu(out);
    if (target_.is_cgroup()) add_cpu_time(out);
    add_threads(out);
    return {};
  }

  std::vector<Capability> check() override {
    std::vector<Capability> rows;
    for (const char* controller : {"memory", "cpu", "pids", "io"}) {
      const CgroupView* view = group_.view(controller);
      const std::string where =
          view == nullptr ? "" : view->path + " (version " + std::to_string(view->version) + ")";
      rows.push_back({controller, view != nullptr, view == nullptr ? group_.trouble() : printable(where)});
    }
    return rows;
  }

 private:
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

  /// From the group whose limit holds.
  void read_throttling(const CgroupView& view) {
    const Dir& holder = limit_holder(view, cpu_limit);
    auto text = holder.read("cpu.stat", 4096);
    if (!text) return;
    const auto periods = number_of(*text, "nr_periods ");
    const auto throttled = number_of(*text, "nr_throttled ");
    const auto time = number_of(*text, view.version == 2 ? "throttled_usec " : "throttled_time ");
    if (!periods || !throttled || !time) return;
    throttled_.update(TargetGroup::place(holder),
                      {*time * (view.version == 2 ? 1000 : 1), *throttled, *periods});
  }

  /// The group counts processes that ended as well, however short they lived.
  void add_cpu_time(Snapshot& out) {
    const CgroupView* view = group_.view("cpuacct");
    // Version 2 counts these also where the controller is off.
    if (view == nullptr) view = group_.view("");
    if (view != nullptr) {
      std::optional<std::uint64_t> total;
      std::optional<std::uint64_t> user;
      std::optional<std::uint64_t> system;
      if (view->version == 2) {
        if (auto text = view->group().read("cpu.stat", 4096)) {
          user = number_of(*text, "user_usec ");
          system = number_of(*text, "system_usec ");
        }
        if (user) *user *= 1000;
        if (system) *system *= 1000;
        if (user && system) total = *user + *system;
      } else {
        total = number_in(view->group(), "cpuacct.usage");
        user = number_in(view->group(), "cpuacct.usage_user");
        system = number_in(view->group(), "cpuacct.usage_sys");
      }
      if (total && user && system) time_.update(TargetGroup::place(view->group()), {*total, *user, *system});
    }
    if (!time_.ever()) return;
    const auto now = Clock::now();
    const auto& time = time_.total();
    modes_.update(time[0], time[1], time[2]);
    out.add(kCpuSeconds, static_cast<double>(modes_.user()) * 1e-9, {{"mode", "user"}});
    out.add(kCpuSeconds, static_cast<double>(modes_.system()) * 1e-9, {{"mode", "system"}});
    const double used = static_cast<double>(time[0]);
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
  GroupMemory memory_;
  GroupIo io_;
  Continued<3> throttled_;
  Continued<3> time_;  ///< in all, user, system
  CpuModes modes_;
  std::optional<Usage> last_;
};

std::span<const Metric> all_metrics() {
  static const std::vector<Metric> all = [] {
    std::vector<Metric> list;
    for (const auto part : {GroupMemory::metrics(), GroupIo::metrics(), std::span<const Metric>(kOwn)})
      list.insert(list.end(), part.begin(), part.end());
    return list;
  }();
  return all;
}

}  // namespace
}  // namespace host

const CollectorInfo cgroup_collector{
    "cgroup", "limits, memory, I/O, throttling and out-of-memory kills of the target's cgroup",
    host::all_metrics,
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::CgroupCollector>(target, options);
    }};

}  // namespace boxo
