// SPDX-License-Identifier: MIT OR Apache-2.0
// Threads of the target by state, their context switches and their wait for a CPU, from /proc/PID/task.
#include <array>

#include "collectors/collector.h"
#include "collectors/host/reading.h"
#include "collectors/host/thread_table.h"

namespace boxo {

extern const CollectorInfo threads_collector;

namespace host {
namespace {

constexpr Metric kThreads{"boxo_resource_threads",
                          MetricType::kGauge,
                          "",
                          "state",
                          Source::kProc,
                          "Threads of the target by state; running means on a CPU or waiting for one."};
constexpr Metric kSwitches{
    "boxo_resource_context_switches_total",
    MetricType::kCounter,
    "",
    "type",
    Source::kProc,
    "Context switches of the target's threads: voluntary ones to wait, involuntary ones because "
    "another thread was given the CPU."};
constexpr Metric kCpuWait{"boxo_resource_cpu_wait_seconds_total",
                          MetricType::kCounter,
                          "seconds",
                          "",
                          Source::kProc,
                          "Time that the target's threads were ready to run and waited for a CPU."};
constexpr Metric kAll[] = {kThreads, kSwitches, kCpuWait};

class ThreadsCollector final : public Collector {
 public:
  ThreadsCollector(const Target& target, const CollectorOptions& options)
      : target_(target), handover_(options.handover) {}

  Result<> collect(Snapshot& out) override {
    table_.update(target_.processes(), handover_ ? handover_->reader : nullptr);
    trouble_ = table_.trouble();
    if (!trouble_.empty()) {
      for (const Metric& metric : kAll) out.absent(metric.name, trouble_);
      return {};
    }
    const ThreadTable::Totals& total = table_.totals();
    ever_ = ever_ || table_.size() > 0;
    if (ever_) {
      out.add(kSwitches, static_cast<double>(total.voluntary), {{"type", "voluntary"}});
      out.add(kSwitches, static_cast<double>(total.involuntary), {{"type", "involuntary"}});
      if (table_.has_schedstat())
        out.add(kCpuWait, static_cast<double>(total.wait_ns) * 1e-9);
      else
        out.absent(kCpuWait.name, "schedstat: this kernel does not have it");
    }
    if (table_.by_reader())
      for (const Metric* metric : {&kThreads, &kSwitches, &kCpuWait})
        out.family(*metric).source = Source::kKernel;
    if (table_.size() == 0) {
      out.absent(kThreads.name, kNoTarget);
      return {};
    }
    for (std::size_t i = 0; i < kThreadStates.size(); ++i)
      out.add(kThreads, static_cast<double>(table_.by_state()[i]), {{"state", kThreadStates[i]}});
    return {};
  }

  std::vector<Capability> check() override {
    const bool works = ever_ && trouble_.empty();
    const std::string how = table_.by_reader()       ? "BPF iterator"
                            : table_.has_schedstat() ? "/proc/PID/task/TID/status and schedstat"
                                                     : "/proc/PID/task/TID/status";
    return {{"threads", works, works ? how : trouble_.empty() ? kNoTarget : trouble_}};
  }

 private:
  const Target& target_;
  const std::shared_ptr<Handover> handover_;
  ThreadTable table_;
  std::string trouble_;
  bool ever_ = false;
};

}  // namespace
}  // namespace host

const CollectorInfo threads_collector{
    "threads", "threads by state, context switches, wait for a CPU",
    [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::ThreadsCollector>(target, options);
    }};

}  // namespace boxo
