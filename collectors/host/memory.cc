// SPDX-License-Identifier: MIT OR Apache-2.0
// Memory of the target's processes, from /proc/PID/status and, on a slower clock, /proc/PID/smaps_rollup.
#include <algorithm>
#include <chrono>
#include <optional>

#include "collectors/collector.h"
#include "collectors/host/procps.h"
#include "collectors/host/text.h"
#include "collectors/members.h"
#include "collectors/reading.h"
#include "collectors/time_budget.h"

namespace boxo {

extern const CollectorInfo memory_collector;

namespace host {
namespace {

constexpr Metric kMemory{"boxo_resource_memory_bytes",
                         MetricType::kGauge,
                         "bytes",
                         "type",
                         Source::kProc,
                         "Memory of the target's processes: rss (resident: anon, file and shmem together), "
                         "swap, virtual (address space), and "
                         "pss (resident, where each shared page is divided among those who share it; "
                         "refreshed about once a minute). A page "
                         "that several of the processes share counts once for each, except in pss."};
constexpr Metric kUsage{
    "boxo_resource_memory_usage_bytes",
    MetricType::kGauge,
    "bytes",
    "",
    Source::kProc,
    "Memory in use: of the cgroup (page cache included) if the target is a cgroup, else the resident "
    "memory of its processes."};
constexpr Metric kAll[] = {kMemory, kUsage};

// Reading smaps_rollup walks the page tables and holds the process's memory lock meanwhile (about 15 ms per
// GiB): rarely, at most a thousandth of the time, and not at all where one walk would be felt by the target.
constexpr auto kPssEvery = std::chrono::seconds(60);
constexpr int kPssShare = 1000;
constexpr std::uint64_t kPssLimit = std::uint64_t{4} << 30;

class MemoryCollector final : public Collector {
 public:
  explicit MemoryCollector(const Target& target) : target_(target) {}

  Result<> collect(Snapshot& out) override {
    if (!procps_) {
      auto opened = Procps::open();
      if (!opened) return opened.error();
      procps_.emplace(std::move(*opened));
    }
    auto memory = procps_->memory(target_.processes());
    if (!memory) return memory.error();
    works_ = !memory->empty();
    trouble_ = target_.shortage();
    for (const Process& process : target_.processes()) {
      const auto found = memory->find(process.id);
      const bool unread = found == memory->end() ? is_there(process) : found->second.mapped == 0 && runs_headless(process);
      if (unread) trouble_ = "status: could not be read for a moment";
    }
    if (!trouble_.empty()) {
      out.absent(kMemory.name, trouble_);
      out.absent(kUsage.name, trouble_);
      return {};
    }
    if (memory->empty()) {
      out.absent(kMemory.name, kNoTarget);
      out.absent(kUsage.name, kNoTarget);
      pss_.reset();
      pss_trouble_ = kNoTarget;
      pss_failed_ = false;
      return {};
    }
    ProcessMemory sum;
    for (const auto& [id, one] : *memory) {
      sum.resident += one.resident;
      sum.anonymous += one.anonymous;
      sum.file += one.file;
      sum.shared += one.shared;
      sum.swapped += one.swapped;
      sum.mapped += one.mapped;
    }
    const auto add = [&out](const char* type, std::uint64_t bytes) {
      out.add(kMemory, static_cast<double>(bytes), {{"type", type}});
    };
    add("rss", sum.resident);
    add("anon", sum.anonymous);
    add("file", sum.file);
    add("shmem", sum.shared);
    add("swap", sum.swapped);
    add("virtual", sum.mapped);
    out.add(kUsage, static_cast<double>(sum.resident));

    refresh_pss(sum.resident);
    if (pss_)
      add("pss", *pss_);
    else
      out.absent(with_labels(kMemory.name, {{"type", "pss"}}), pss_trouble_);
    return {};
  }

  std::vector<Capability> check() override {
    return {{"memory", works_ && trouble_.empty(),
             !trouble_.empty() ? trouble_
             : works_          ? "/proc/PID/status by libproc2"
                               : kNoTarget},
            {"pss", pss_.has_value(), pss_ ? "/proc/PID/smaps_rollup" : pss_trouble_}};
  }

 private:
  void refresh_pss(std::uint64_t resident) {
    const auto now = TimeBudget::Clock::now();
    const bool stale = pss_generation_ != target_.generation();
    if (resident > kPssLimit && (stale || !pss_ || now >= pss_budget_.last() + kPssEvery)) {
      // Costs nothing: looked at again at the next tick.
      pss_.reset();
      pss_trouble_ = "not read above 4 GiB of resident memory, because reading it delays the target";
      return;
    }
    if (!pss_budget_.allows(now) || (pss_ && !stale && now < pss_budget_.last() + kPssEvery)) {
      if (!pss_ && !pss_failed_) pss_trouble_ = "not read again yet, because reading it delays the target";
      return;
    }
    const auto begin = TimeBudget::cpu_time();
    pss_generation_ = target_.generation();
    pss_trouble_.clear();
    pss_ = read_pss();
    pss_failed_ = !pss_;
    const auto cost = TimeBudget::cpu_time() - begin;
    if (pss_failed_)
      pss_budget_.failed(TimeBudget::Clock::now(), cost, kPssEvery);
    else
      pss_budget_.spent(TimeBudget::Clock::now(), cost);
  }

  std::optional<std::uint64_t> read_pss() {
    std::uint64_t sum = 0;
    for (const Process& process : target_.processes()) {
      auto text = process.shared().read("smaps_rollup");
      if (!text) {
        if (ended(process, text.error())) continue;
        pss_trouble_ = reason(text.error());
        return std::nullopt;
      }
      // Empty for a process without memory (a zombie).
      sum += number_of(*text, "Pss:").value_or(0) * 1024;
    }
    return sum;
  }

  const Target& target_;
  std::optional<Procps> procps_;
  std::optional<std::uint64_t> pss_;
  std::string pss_trouble_ = kNoTarget;
  // New processes make the value stale, but those that come and go all the time are no reason to read all the time.
  TimeBudget pss_budget_{kPssShare, kPssEvery / 10};
  std::uint64_t pss_generation_ = 0;
  bool pss_failed_ = false;  ///< the last time that it was read
  bool works_ = false;
  std::string trouble_;
};

}  // namespace
}  // namespace host

const CollectorInfo memory_collector{
    "memory", "memory of the target's processes", [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions&) -> std::unique_ptr<Collector> {
      return std::make_unique<host::MemoryCollector>(target);
    }};

}  // namespace boxo
