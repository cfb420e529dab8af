// SPDX-License-Identifier: MIT OR Apache-2.0
// How much the target is held up by CPU and memory: pressure stall information, throttling, limits.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "collectors/collector.h"
#include "collectors/contract.h"
#include "collectors/host/group_limits.h"
#include "collectors/host/pressure_stall.h"
#include "collectors/host/target_group.h"
#include "collectors/host/text.h"
#include "collectors/kernel_reader.h"
#include "collectors/reading.h"

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
                              "interval in which some task of its cgroup waited for a CPU, or where it has no cgroup "
                              "that tells, for which its own threads did (several at once: each, at most 1); share of "
                              "the periods that were throttled, of the cgroup or of one above it."};
constexpr Metric kMemoryPressure{"boxo_resource_memory_pressure",
                                 MetricType::kGauge,
                                 "ratio",
                                 "",
                                 Source::kProc,
                                 "How much memory holds the target up, 0 to 1. The greater of: share of the "
                                 "last interval in which some task waited for "
                                 "memory, of its cgroup or, as boxo_resource_pressure_info tells, of the whole "
                                 "host; working set over the memory limit of the cgroup, or without a "
                                 "limit the share of the host's memory that is "
                                 "not available."};
constexpr Metric kAll[] = {kStalled, kScope, kCpuPressure, kMemoryPressure};
constexpr Metric kListed[] = {kStalled,     kScope,          from(Source::kCgroup, kStalled), from(Source::kCgroup, kScope),
                              kCpuPressure, kMemoryPressure, from(Source::kCgroup, kCpuPressure),
                              from(Source::kKernel, kCpuPressure)};

class PressureCollector final : public Collector {
 public:
  PressureCollector(const Target& target, const CollectorOptions& options)
      : target_(target),
        handover_(options.handover),
        group_(target, options.cgroup_root),
        stalls_{PressureStall("cpu"), PressureStall("memory"), PressureStall("io")} {}

  Result<> collect(Snapshot& out) override {
    group_.refresh();
    if (!target_.up() && !target_.is_cgroup()) {
      for (const Metric& metric : kAll) out.absent(metric.name, kNoTarget);
      last_throttling_.clear();
      last_wait_.reset();
      return {};
    }
    for (PressureStall& stall : stalls_) stall.update(target_, group_);
    if (stalls_[0].scope() == nullptr) out.absent(kScope.name, stalls_[0].trouble());
    add_stalls(out);
    add_cpu(out);
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
    if (std::ranges::none_of(stalls_, [](const PressureStall& stall) { return stall.scope() != nullptr; }))
      return out.absent(kStalled.name, stalls_[0].trouble());
    for (std::size_t i = 0; i < stalls_.size(); ++i) {
      const Label resource{"resource", kResources[i]};
      if (stalls_[i].scope() == nullptr) {
        out.absent(with_labels(kStalled.name, {resource}), stalls_[i].trouble());
        continue;
      }
      out.add(kStalled, stalls_[i].some_seconds(), {resource, {"kind", "some"}});
      const Labels full{resource, {"kind", "full"}};
      if (const auto seconds = stalls_[i].full_seconds())
        out.add(kStalled, *seconds, full);
      else
        out.absent(with_labels(kStalled.name, full), "this kernel does not tell it: of cpu it does since Linux 5.13");
      if (i == 0) out.add(kScope, 1, {{"scope", stalls_[i].scope()}});
    }
    if (stalls_[0].scope() == nullptr) return;
    const Source source = std::string_view(stalls_[0].scope()) == "cgroup" ? Source::kCgroup : Source::kProc;
    out.family(kStalled).source = source;
    out.family(kScope).source = source;
  }

  /// The host's stalls would be somebody else's: without those of its own cgroup, what the target itself has waited.
  void add_cpu(Snapshot& out) {
    const std::optional<double> throttled = throttled_share();
    update_waited();
    if (stalls_[0].scope() != nullptr && std::string_view(stalls_[0].scope()) == "cgroup") {
      add_greatest(out, kCpuPressure, stalls_[0], throttled);
      out.family(kCpuPressure).source = Source::kCgroup;
      return;
    }
    if (last_wait_ && !waited_) return out.absent(kCpuPressure.name, kFirstReading);
    if (!waited_ && !throttled)
      return out.absent(kCpuPressure.name, "neither its cgroup nor the collector threads tells how long it waited");
    out.add(kCpuPressure, std::clamp(std::max(waited_.value_or(0), throttled.value_or(0)), 0.0, 1.0));
    if (last_wait_ && last_wait_->by_kernel) out.family(kCpuPressure).source = Source::kKernel;
  }

  /// Threads are not read at each tick where there are many: the share stays that between the last two readings.
  void update_waited() {
    const std::optional<CpuWait> now = handover_ ? handover_->cpu_wait : std::nullopt;
    if (now && last_wait_ && now->at == last_wait_->at) return;
    waited_.reset();
    if (now && last_wait_ && now->at > last_wait_->at)
      waited_ = std::max(0.0, now->seconds - last_wait_->seconds) /
                std::chrono::duration<double>(now->at - last_wait_->at).count();
    last_wait_ = now;
  }

  static void add_greatest(Snapshot& out, const Metric& metric, const PressureStall& stall,
                           std::optional<double> other) {
    const std::optional<double> share = stall.share();
    if (stall.scope() != nullptr && !share) return out.absent(metric.name, kFirstReading);
    if (!share && !other) return out.absent(metric.name, stall.trouble());
    out.add(metric, std::clamp(std::max(share.value_or(0), other.value_or(0)), 0.0, 1.0));
  }

  /// Of the periods that began since the last look, the share that was throttled: of the target's group and those above it,
  /// where it is greatest.
  std::optional<double> throttled_share() {
    std::vector<Throttling> now;
    std::optional<double> greatest;
    if (const CgroupView* view = group_.view("cpu")) {
      for (const Dir& level : view->levels) {
        auto text = level.read("cpu.stat", 4096);
        const auto periods = text ? number_of(*text, "nr_periods ") : std::nullopt;
        const auto throttled = text ? number_of(*text, "nr_throttled ") : std::nullopt;
        if (!periods || !throttled) continue;
        now.push_back({TargetGroup::place(level), *periods, *throttled});
        const auto before = std::ranges::find(last_throttling_, now.back().place, &Throttling::place);
        if (before == last_throttling_.end()) continue;
        if (const auto share = share_of(*before, now.back())) greatest = std::max(greatest.value_or(0), *share);
      }
    }
    last_throttling_ = std::move(now);
    return greatest;
  }

  std::optional<double> memory_fill() {
    std::optional<double> fill;
    if (const CgroupView* view = group_.view("memory")) {
      for (const Dir& level : view->levels) {
        const auto limit = memory_limit(view->version, level);
        const auto memory = limit ? memory_use(view->version, level) : std::nullopt;
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

  static std::optional<double> share_of(const Throttling& before, const Throttling& now) {
    if (now.periods < before.periods || now.throttled < before.throttled) return std::nullopt;
    if (now.periods == before.periods) return 0;
    return static_cast<double>(now.throttled - before.throttled) / static_cast<double>(now.periods - before.periods);
  }

  const Target& target_;
  const std::shared_ptr<Handover> handover_;
  TargetGroup group_;
  std::array<PressureStall, 3> stalls_;
  std::vector<Throttling> last_throttling_;  ///< a cgroup each
  std::optional<CpuWait> last_wait_;
  std::optional<double> waited_;  ///< thread seconds a second
};

}  // namespace
}  // namespace host

const CollectorInfo pressure_collector{
    "pressure", "pressure stall information and how near the limits the target is",
    [] { return std::span<const Metric>(host::kListed); },
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::PressureCollector>(target, options);
    }};

}  // namespace boxo
