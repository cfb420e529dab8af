// SPDX-License-Identifier: MIT OR Apache-2.0
// Threads of the target by state, their context switches and their wait for a CPU, from /proc/PID/task.
#include <array>
#include <chrono>

#include "collectors/collector.h"
#include "collectors/contract.h"
#include "collectors/host/pace.h"
#include "collectors/host/thread_table.h"
#include "collectors/reading.h"

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
    "another thread was given the CPU. Of threads and children that have ended all is in it where the probe readers is "
    "attached; otherwise not what one did after it was last seen, and nothing of those that lived between two "
    "collections."};
constexpr Metric kCpuWait{"boxo_resource_cpu_wait_seconds_total",
                          MetricType::kCounter,
                          "seconds",
                          "",
                          Source::kProc,
                          "Time that the target's threads were ready to run and waited for a CPU; of those that have ended as in "
                          "boxo_resource_context_switches_total."};
constexpr Metric kWaiting{"boxo_resource_waiting_threads",
                          MetricType::kGauge,
                          "",
                          "reason",
                          Source::kKernel,
                          "Threads of the target that wait at this moment, by what for. Idle threads wait for futex, poll "
                          "or sleep; all in futex while no CPU time is used may be a deadlock."};
constexpr Metric kLongestWait{"boxo_resource_longest_wait_seconds",
                              MetricType::kGauge,
                              "seconds",
                              "reason",
                              Source::kKernel,
                              "For how long the thread has been waiting that waits longest at this moment, by what for; 0 "
                              "if none does. Seconds in block_io, fsync, page_fault, memory, kernel or stopped are trouble; "
                              "futex, poll, socket, pipe, sleep and child may be idleness."};
constexpr Metric kAll[] = {kThreads, kSwitches, kCpuWait, kWaiting, kLongestWait};
constexpr Metric kListed[] = {kThreads,
                              kWaiting,
                              kLongestWait,
                              kSwitches,
                              kCpuWait,
                              from(Source::kKernel, kThreads),
                              from(Source::kKernel, kSwitches),
                              from(Source::kKernel, kCpuWait)};

class ThreadsCollector final : public Collector {
 public:
  ThreadsCollector(const Target& target, const CollectorOptions& options)
      : target_(target), handover_(options.handover) {}

  Result<> collect(Snapshot& out) override {
    const auto begin = TimeBudget::cpu_time();
    KernelReader* const reader = handover_ ? handover_->reader : nullptr;
    const auto subject = subject_of(target_, reader);
    age_ = {};
    if (const auto now = Pace::Clock::now(); pace_.rests(subject, now)) {
      age_ = now - pace_.read_at();
      out = pace_.last();
      return {};
    }
    table_.update(target_.processes(), reader);
    add(out);
    hand_over();
    const auto end = Pace::Clock::now();
    const auto cost = TimeBudget::cpu_time() - begin;
    if (trouble_.empty())
      pace_.took(subject, table_.size(), end, cost, out);
    else
      pace_.failed(subject, table_.size(), end, cost, out);
    return {};
  }

  std::chrono::nanoseconds age() const override { return age_; }

  std::vector<Capability> check() override {
    const bool works = ever_ && trouble_.empty();
    const std::string how = table_.by_reader()       ? "BPF iterator"
                            : table_.has_schedstat() ? "/proc/PID/task/TID/status and schedstat"
                                                     : "/proc/PID/task/TID/status";
    return {{"threads", works, works ? how : trouble_.empty() ? kNoTarget : trouble_}};
  }

 private:
  void hand_over() {
    if (!handover_) return;
    handover_->cpu_wait.reset();
    if (trouble_.empty() && table_.size() > 0 && table_.has_schedstat())
      handover_->cpu_wait = CpuWait{static_cast<double>(table_.totals().wait_ns) * 1e-9, std::chrono::steady_clock::now(),
                                    table_.by_reader()};
  }

  void add(Snapshot& out) {
    trouble_ = table_.trouble().empty() ? target_.shortage() : table_.trouble();
    if (!trouble_.empty()) {
      for (const Metric& metric : kAll) out.absent(metric.name, trouble_);
      return;
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
      for (const Metric& metric : {kThreads, kWaiting, kLongestWait}) out.absent(metric.name, kNoTarget);
      return;
    }
    for (std::size_t i = 0; i < kThreadStates.size(); ++i)
      out.add(kThreads, static_cast<double>(table_.by_state()[i]), {{"state", kThreadStates[i]}});
    add_waiting(out);
  }

  void add_waiting(Snapshot& out) const {
    if (!table_.by_reader()) {
      for (const Metric& metric : {kWaiting, kLongestWait})
        out.absent(metric.name, "only the probe readers tells it: boxo_agent_probe_info says why it does not");
      return;
    }
    for (std::size_t i = 0; i < kWaitReasons.size(); ++i) {
      const Labels labels{{"reason", kWaitReasons[i]}};
      out.add(kWaiting, static_cast<double>(table_.waiting()[i].threads), labels);
      out.add(kLongestWait, static_cast<double>(table_.waiting()[i].longest_ns) * 1e-9, labels);
    }
  }

  const Target& target_;
  const std::shared_ptr<Handover> handover_;
  ThreadTable table_;
  Pace pace_;
  std::chrono::nanoseconds age_{};
  std::string trouble_;
  bool ever_ = false;
};

}  // namespace
}  // namespace host

const CollectorInfo threads_collector{
    "threads", "threads by state, context switches, wait for a CPU",
    [] { return std::span<const Metric>(host::kListed); },
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::ThreadsCollector>(target, options);
    }};

}  // namespace boxo
