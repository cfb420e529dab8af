// SPDX-License-Identifier: MIT OR Apache-2.0
// Open file descriptors of the target and how many it may have, from /proc/PID/fd and /proc/PID/limits.
#include <algorithm>

#include "collectors/collector.h"
#include "collectors/host/descriptors.h"
#include "collectors/host/listing.h"
#include "collectors/host/text.h"
#include "collectors/reading.h"

namespace boxo {

extern const CollectorInfo fds_collector;

namespace host {
namespace {

constexpr Metric kOpen{"boxo_resource_open_fds",
                       MetricType::kGauge,
                       "",
                       "",
                       Source::kProc,
                       "Open file descriptors of the target's processes."};
constexpr Metric kMax{
    "boxo_resource_max_fds",
    MetricType::kGauge,
    "",
    "",
    Source::kProc,
    "How many file descriptors the target's processes may have open (soft limits, added up)."};
constexpr Metric kUsed{"boxo_resource_fd_usage_ratio",
                       MetricType::kGauge,
                       "ratio",
                       "",
                       Source::kProc,
                       "Open descriptors over the limit, of the process that is nearest to its limit."};
constexpr Metric kAll[] = {kOpen, kMax, kUsed};

Result<std::uint64_t> count_fds(const Process& process) {
  if (const auto count = quick_fd_count(process)) return *count;
  auto dir = process.shared().dir("fd");
  if (!dir) return dir.error();
  std::uint64_t count = 0;
  auto done = list_numbers(*dir, [&count](std::uint32_t) { ++count; });
  if (!done) return done.error();
  return count;
}

/// The soft limit.
Result<std::uint64_t> fd_limit(const Process& process) {
  auto text = process.proc.read("limits");
  if (!text) return text.error();
  auto line = value_of(*text, "Max open files");
  const std::string_view soft = line ? next_word(*line) : std::string_view();
  if (soft == "unlimited") return Error{"limits: no limit on open files", "", 0};
  const auto number = to_number(soft);
  if (!number) return Error{"limits: not of the known form", "", 0};
  return *number;
}

class FdsCollector final : public Collector {
 public:
  explicit FdsCollector(const Target& target) : target_(target) {}

  Result<> collect(Snapshot& out) override {
    std::uint64_t open = 0;
    double limit = 0;
    double used = 0;
    open_trouble_ = limit_trouble_ = target_.up() ? target_.shortage() : kNoTarget;
    for (const Process& process : target_.processes()) {
      const auto count = count_fds(process);
      if (!count && !ended(process, count.error())) open_trouble_ = reason(count.error());
      const auto most = fd_limit(process);
      if (!most && !ended(process, most.error())) limit_trouble_ = reason(most.error());
      if (count) open += *count;
      if (most) limit += static_cast<double>(*most);
      if (count && most && *most > 0)
        used = std::max(used, static_cast<double>(*count) / static_cast<double>(*most));
    }
    add(out, kOpen, static_cast<double>(open), open_trouble_);
    add(out, kMax, limit, limit_trouble_);
    add(out, kUsed, used, open_trouble_.empty() ? limit_trouble_ : open_trouble_);
    return {};
  }

  std::vector<Capability> check() override {
    return {{"open", open_trouble_.empty(), open_trouble_.empty() ? "/proc/PID/fd" : open_trouble_},
            {"limit", limit_trouble_.empty(), limit_trouble_.empty() ? "/proc/PID/limits" : limit_trouble_}};
  }

 private:
  static void add(Snapshot& out, const Metric& metric, double value, const std::string& trouble) {
    if (trouble.empty())
      out.add(metric, value);
    else
      out.absent(metric.name, trouble);
  }

  const Target& target_;
  std::string open_trouble_ = kNoTarget;
  std::string limit_trouble_ = kNoTarget;
};

}  // namespace
}  // namespace host

const CollectorInfo fds_collector{
    "fds", "open file descriptors and their limit", [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions&) -> std::unique_ptr<Collector> {
      return std::make_unique<host::FdsCollector>(target);
    }};

}  // namespace boxo
