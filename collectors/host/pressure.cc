// SPDX-License-Identifier: MIT OR Apache-2.0
// How much the target is held up by CPU and memory: pressure stall information, throttling, limits.
#include <algorithm>
#include <array>
#include <optional>

#include "collectors/collector.h"
#include "collectors/host/group_limits.h"
#include "collectors/host/pressure_stall.h"
#include "collectors/host/reading.h"
#include "collectors/host/target_group.h"
#include "collectors/host/text.h"

namespace boxo {

extern const CollectorInfo pressure_collector;

namespace host {
namespace {

constexpr Metric kStalled{"boxo_resource_pressure_seconds_total",
                          MetricType::kCounter,
                          "seconds",
                          "resource,kind",
                          Source::kProc,
                          "Time in which some task, or all tasks (full), waited for the resource: of the "
                          "target's cgroup, or of the whole host "
                          "where the target has none; boxo_resource_pressure_info tells."};
constexpr Metric kScope{"boxo_resource_pressure_info",
                        MetricType::kGauge,
                        "",
                        "scope",
                        Source::kProc,
                        "Whose pressure boxo_resource_pressure_seconds_total tells: cgroup or host."};
constexpr Metric kCpuPressure{"boxo_resource_cpu_pressure",
                              MetricType::kGauge,
                              "ratio",
                              "",
                              Source::kProc,
                              "How much CPU holds the target up, 0 to 1. The greater of: share of the last "
                              "interval in which some task waited for a "
                              "CPU; share of the cgroup's periods that were throttled."};
constexpr Metric kMemoryPressure{"boxo_resource_memory_pressure",
                                 MetricType::kGauge,
                                 "ratio",
                                 "",
                                 Source::kProc,
                                 "How much memory holds the target up, 0 to 1. The greater of: share of the "
                                 "last interval in which some task waited for "
                                 "memory; working set over the memory limit of the cgroup, or without a "
                                 "limit the share of the host's memory that is "
                                 "not available."};
constexpr Metric kAll[] = {kStalled, kScope, kCpuPressure, kMemoryPressure};

class PressureCollector final : public Collector {
 public:
  PressureCollector(const Target& target, const CollectorOptions& options)
      : target_(target),
        group_(target, options.cgroup_root),
        stalls_{PressureStall("cpu"), PressureStall("memory"), PressureStall("io")} {}

  Result<> collect(Snapshot& out) override {
    group_.refresh();
    if (!target_.up() && !target_.is_cgroup()) {
      for (const Metric& metric : kAll) out.absent(metric.name, kNoTarget);
      last_throttling_.reset();
      return {};
    }
    for (PressureStall& stall : stalls_) stall.update(target_, group_);
    add_stalls(out);
    add_greatest(out, kCpuPressure, stalls_[0], throttled_share());
    add_greatest(out, kMemoryPressure, stalls_[1], memory_fill());
    return {};
  }

  std::vector<Capability> check() override {
    const char* scope = stalls_[0].scope();
    if (!target_.up() && !target_.is_cgroup()) return {{"stalls", false, kNoTarget}};
    return {{"stalls", scope != nullptr,
             scope == nullptr ? stalls_[0].trouble() : std::string("of the ") + scope}};
  }

 private:
  void add_stalls(Snapshot& out) {
    constexpr std::array<const char*, 3> kResources = {"cpu", "memory", "io"};
    for (std::size_t i = 0; i < stalls_.size(); ++i) {
      if (stalls_[i].scope() == nullptr) continue;
      out.add(kStalled, stalls_[i].some_seconds(), {{"resource", kResources[i]}, {"kind", "some"}});
      out.add(kStalled, stalls_[i].full_seconds(), {{"resource", kResources[i]}, {"kind", "full"}});
      if (i == 0) out.add(kScope, 1, {{"scope", stalls_[i].scope()}});
    }
    if (stalls_[0].scope() != nullptr) {
      const Source source =
          std::string_view(stalls_[0].scope()) == "cgroup" ? Source::kCgroup : Source::kProc;
      out.family(kStalled).source = source;
      out.family(kScope).source = source;
      return;
    }
    out.absent(kStalled.name, stalls_[0].trouble());
    out.absent(kScope.name, stalls_[0].trouble());
  }

  static void add_greatest(Snapshot& out, const Metric& metric, const PressureStall& stall,
                           std::optional<double> other) {
    const std::optional<double> share = stall.share();
    if (stall.scope() != nullptr && !share) return out.absent(metric.name, kFirstReading);
    if (!share && !other) return out.absent(metric.name, stall.trouble());
    out.add(metric, std::clamp(std::max(share.value_or(0), other.value_or(0)), 0.0, 1.0));
  }

  /// Of the periods that began since the last look, the share that was throttled.
  std::optional<double> throttled_share() {
    const CgroupView* view = group_.view("cpu");
    auto text = view == nullptr ? Result<std::string>(Error{}) : view->group().read("cpu.stat", 4096);
    const auto periods = text ? number_of(*text, "nr_periods ") : std::nullopt;
    const auto throttled = text ? number_of(*text, "nr_throttled ") : std::nullopt;
    if (!periods || !throttled) {
      last_throttling_.reset();
      return std::nullopt;
    }
    const Throttling now{TargetGroup::place(view->group()), *periods, *throttled};
    const std::optional<Throttling> before = std::exchange(last_throttling_, now);
    if (!before || before->place != now.place || now.periods < before->periods ||
        now.throttled < before->throttled)
      return std::nullopt;
    if (now.periods == before->periods) return 0;
    return static_cast<double>(now.throttled - before->throttled) /
           static_cast<double>(now.periods - before->periods);
  }

  std::optional<double> memory_fill() {
    std::optional<double> fill;
    if (const CgroupView* view = group_.view("memory")) {
      for (const Dir& level : view->levels) {
        const auto limit = memory_limit(view->version, level);
        const auto memory = limit ? group_memory(view->version, level) : std::nullopt;
        if (!memory) continue;
        const double here =
            *limit == 0 ? 1 : static_cast<double>(memory->working_set) / static_cast<double>(*limit);
        fill = std::max(fill.value_or(0), here);
      }
    }
    if (fill) return fill;
    auto text = target_.proc_root().read("meminfo", 65536);
    const auto total = text ? number_of(*text, "MemTotal:") : std::nullopt;
    const auto available = text ? number_of(*text, "MemAvailable:") : std::nullopt;
    if (!total || !available || *total == 0) return std::nullopt;
    return 1 - static_cast<double>(*available) / static_cast<double>(*total);
  }

  struct Throttling {
    std::uint64_t place = 0;
    std::uint64_t periods = 0;
    std::uint64_t throttled = 0;
  };

  const Target& target_;
  TargetGroup group_;
  std::array<PressureStall, 3> stalls_;
  std::optional<Throttling> last_throttling_;
};

}  // namespace
}  // namespace host

const CollectorInfo pressure_collector{
    "pressure", "pressure stall information and how near the limits the target is",
    [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::PressureCollector>(target, options);
    }};

}  // namespace boxo
