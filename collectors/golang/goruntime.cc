// SPDX-License-Identifier: MIT OR Apache-2.0
// The Go runtime of the target as its memory shows it: goroutines by what they do, garbage collections, the heap. The target
// need not know of it, is not stopped and not written to.
#include <cstdint>

#include "collectors/collector.h"
#include "collectors/golang/goroutines.h"
#include "collectors/golang/reader.h"
#include "collectors/reading.h"

namespace boxo {

extern const CollectorInfo goruntime_collector;

namespace golang {
namespace {

// The first four have the words of what an application may send.
constexpr Metric kTotal{"boxo_resource_goroutines_total",
                        MetricType::kGauge,
                        "",
                        "",
                        Source::kProc,
                        "Goroutines (a gauge in spite of its name)."};
constexpr Metric kCycles{"boxo_resource_gc_cycles_total", MetricType::kCounter, "", "", Source::kProc, "Garbage collections."};
constexpr Metric kPauses{"boxo_resource_gc_pause_seconds",
                         MetricType::kHistogram,
                         "seconds",
                         "",
                         Source::kProc,
                         "Time for which garbage collection stopped the program."};
constexpr Metric kHeap{"boxo_resource_heap_bytes", MetricType::kGauge, "bytes", "", Source::kProc, "Bytes of the heap in use."};
constexpr Metric kKinds{"boxo_resource_goroutines",
                        MetricType::kGauge,
                        "",
                        "status,wait_reason",
                        Source::kProc,
                        "Goroutines by status and, of those that wait, by what for, in the words of the target's Go runtime. The "
                        "runtime's own are among them, unlike in boxo_resource_goroutines_total."};
constexpr Metric kLive{"boxo_resource_heap_live_bytes",
                       MetricType::kGauge,
                       "bytes",
                       "",
                       Source::kProc,
                       "Bytes of the heap that the last garbage collection found to be in use."};
constexpr Metric kMaxProcs{"boxo_resource_gomaxprocs",
                           MetricType::kGauge,
                           "",
                           "",
                           Source::kProc,
                           "How many threads may run Go code at a time (GOMAXPROCS)."};
constexpr Metric kLimit{"boxo_resource_gomemlimit_bytes",
                        MetricType::kGauge,
                        "bytes",
                        "",
                        Source::kProc,
                        "Memory that the Go runtime tries not to exceed (GOMEMLIMIT); absent without such a limit."};
constexpr Metric kAll[] = {kTotal, kCycles, kPauses, kHeap, kKinds, kLive, kMaxProcs, kLimit};
constexpr const Metric* kCounted[] = {&kCycles, &kPauses};
constexpr const Metric* kLevels[] = {&kTotal, &kHeap, &kKinds, &kLive, &kMaxProcs, &kLimit};

class GoRuntimeCollector final : public Collector {
 public:
  explicit GoRuntimeCollector(const Target& target) : target_(target), reader_(target) {}

  Result<> collect(Snapshot& out) override {
    age_ = {};
    reader_.read();
    trouble_ = reader_.trouble().empty() ? target_.shortage() : reader_.trouble();
    std::string uncounted = reader_.uncounted().empty() ? target_.shortage() : reader_.uncounted();
    ever_ = ever_ || !reader_.running().empty();
    // What was counted stays while the target is down, has just begun or runs something else.
    const bool counted = ever_ && uncounted.empty();
    if (!target_.up())
      trouble_ = kNoTarget;
    else if (trouble_.empty() && reader_.running().empty())
      trouble_ = "no process of the target is a Go program";
    if (counted) {
      out.add(kCycles, static_cast<double>(reader_.collections().cycles()));
      out.add(kPauses, reader_.collections().pauses());
    } else {
      if (!target_.up() || uncounted.empty()) uncounted = trouble_;
      for (const Metric* metric : kCounted) out.absent(metric->name, uncounted);
    }
    if (trouble_.empty())
      add_levels(out);
    else
      for (const Metric* metric : kLevels) out.absent(metric->name, trouble_);
    return {};
  }

  std::chrono::nanoseconds age() const override { return age_; }

  std::vector<std::string> debug_lines() override {
    const std::uint64_t missed = reader_.collections().missed();
    if (missed == told_missed_) return {};
    const std::uint64_t fresh = missed - told_missed_;
    told_missed_ = missed;
    return {"goruntime: " + std::to_string(fresh) + " pauses of garbage collection that the runtime did not remember any more"};
  }

  std::vector<Capability> check() override {
    const bool census = trouble_.empty() && goroutines_.trouble().empty();
    return {{"runtime", trouble_.empty(), trouble_.empty() ? reader_.how() : trouble_},
            {"census", census, census ? reader_.how() : trouble_.empty() ? goroutines_.trouble() : trouble_}};
  }

 private:
  void add_levels(Snapshot& out) {
    Numbers sum;
    bool limited = true;
    double limit = 0;
    for (const Reader::Running& one : reader_.running()) {
      sum.goroutines += one.numbers.goroutines;
      sum.heap_bytes += one.numbers.heap_bytes;
      sum.heap_live_bytes += one.numbers.heap_live_bytes;
      sum.max_processors += one.numbers.max_processors;
      limited = limited && one.numbers.memory_limit != INT64_MAX;
      limit += static_cast<double>(one.numbers.memory_limit);
    }
    out.add(kTotal, static_cast<double>(sum.goroutines));
    out.add(kHeap, static_cast<double>(sum.heap_bytes));
    out.add(kLive, static_cast<double>(sum.heap_live_bytes));
    out.add(kMaxProcs, static_cast<double>(sum.max_processors));
    if (limited)
      out.add(kLimit, limit);
    else
      out.absent(kLimit.name, "no limit is set (GOMEMLIMIT)");
    goroutines_.count(reader_.running(), [this](const Process& process) { return reader_.memory_of(process); },
                      TimeBudget::Clock::now());
    age_ = goroutines_.age();
    if (!goroutines_.trouble().empty()) {
      out.absent(kKinds.name, goroutines_.trouble());
      return;
    }
    for (const auto& [kind, number] : goroutines_.kinds())
      out.add(kKinds, static_cast<double>(number), {{"status", std::string(kind.first)}, {"wait_reason", kind.second}});
  }

  const Target& target_;
  Reader reader_;
  Goroutines goroutines_;
  std::chrono::nanoseconds age_{};
  std::string trouble_;
  std::uint64_t told_missed_ = 0;
  bool ever_ = false;
};

}  // namespace
}  // namespace golang

const CollectorInfo goruntime_collector{
    "goruntime", "goroutines, garbage collections and heap of a Go program, from its memory",
    [] { return std::span<const Metric>(golang::kAll); },
    [](const Target& target, const CollectorOptions&) -> std::unique_ptr<Collector> {
      return std::make_unique<golang::GoRuntimeCollector>(target);
    }};

}  // namespace boxo
