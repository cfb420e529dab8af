// SPDX-License-Identifier: MIT OR Apache-2.0
// CPU time, page faults and I/O of the target's processes, from /proc/PID/stat and /proc/PID/io.
#include <time.h>
#include <unistd.h>

#include <optional>

#include "collectors/collector.h"
#include "collectors/host/procps.h"
#include "collectors/host/text.h"
#include "collectors/host/tree_totals.h"
#include "collectors/members.h"
#include "collectors/process_table.h"
#include "collectors/reading.h"

namespace boxo {

extern const CollectorInfo process_collector;

namespace host {
namespace {

constexpr Metric kCpuSeconds{
    "boxo_resource_cpu_seconds_total",
    MetricType::kCounter,
    "seconds",
    "mode",
    Source::kProc,
    "CPU time of the target's processes, those that have ended included, by mode."};
constexpr Metric kCpuPercent{"boxo_resource_cpu_usage_percent",
                             MetricType::kGauge,
                             "percent",
                             "",
                             Source::kProc,
                             "CPU time over the last interval, in percent of one CPU."};
constexpr Metric kFaults{"boxo_resource_page_faults_total",
                         MetricType::kCounter,
                         "",
                         "type",
                         Source::kProc,
                         "Page faults: minor ones found the page in memory, major ones read it from a disk."};
constexpr Metric kDiskRead{"boxo_resource_disk_read_bytes_total",
                           MetricType::kCounter,
                           "bytes",
                           "",
                           Source::kProc,
                           "Bytes that the target caused to be read from block devices."};
constexpr Metric kDiskWrite{
    "boxo_resource_disk_write_bytes_total",
    MetricType::kCounter,
    "bytes",
    "",
    Source::kProc,
    "Bytes that the target caused to be written to block devices, counted when a page becomes dirty. What "
    "was cut off "
    "or deleted before it was written is in boxo_resource_disk_cancelled_write_bytes_total."};
constexpr Metric kDiskCancelled{"boxo_resource_disk_cancelled_write_bytes_total",
                                MetricType::kCounter,
                                "bytes",
                                "",
                                Source::kProc,
                                "Bytes counted in boxo_resource_disk_write_bytes_total that never reached a "
                                "device because the target cut off or "
                                "deleted the file before."};
constexpr Metric kIoBytes{"boxo_resource_io_bytes_total",
                          MetricType::kCounter,
                          "bytes",
                          "operation",
                          Source::kProc,
                          "Bytes that went through read and write system calls of every kind of descriptor, "
                          "page cache, pipes and sockets included."};
constexpr Metric kIoCalls{
    "boxo_resource_io_syscalls_total", MetricType::kCounter, "", "operation", Source::kProc,
    "Read and write system calls."};
constexpr Metric kStartTime{"boxo_resource_start_time_seconds",
                            MetricType::kGauge,
                            "seconds",
                            "",
                            Source::kProc,
                            "When the target's main process started, in seconds since 1970."};
constexpr Metric kOomScoreAdj{
    "boxo_resource_oom_score_adj",
    MetricType::kGauge,
    "",
    "",
    Source::kProc,
    "Bias of the out-of-memory killer towards the target's main process, -1000 to 1000."};
constexpr Metric kAll[] = {kCpuSeconds,    kCpuPercent, kFaults,  kDiskRead,  kDiskWrite,
                           kDiskCancelled, kIoBytes,    kIoCalls, kStartTime, kOomScoreAdj};

enum Counter {
  kUser,
  kSystem,
  kMinor,
  kMajor,
  kRead,
  kWritten,
  kCancelled,
  kReadAll,
  kWrittenAll,
  kReads,
  kWrites
};
constexpr std::size_t kCounters = kWrites + 1;
using Totals = TreeTotals<kCounters>;
constexpr std::uint64_t kSecond = 1'000'000'000;  // ns

double seconds_of(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

/// The lines of /proc/PID/io into the values they count; false if one is missing.
bool parse_io(std::string_view text, Totals::Values& values) {
  constexpr std::pair<std::string_view, Counter> kLines[] = {{"rchar:", kReadAll},
                                                             {"wchar:", kWrittenAll},
                                                             {"syscr:", kReads},
                                                             {"syscw:", kWrites},
                                                             {"read_bytes:", kRead},
                                                             {"write_bytes:", kWritten},
                                                             {"cancelled_write_bytes:", kCancelled}};
  for (const auto& [key, counter] : kLines) {
    const auto number = number_of(text, key);
    if (!number) return false;
    values[counter] = *number;
  }
  return true;
}

Totals::Values values_of(const Used& used) {
  Totals::Values values{};
  values[kUser] = used.user_ns;
  values[kSystem] = used.system_ns;
  values[kMinor] = used.minor_faults;
  values[kMajor] = used.major_faults;
  values[kRead] = used.bytes_read;
  values[kWritten] = used.bytes_written;
  values[kCancelled] = used.bytes_cancelled;
  values[kReadAll] = used.chars_read;
  values[kWrittenAll] = used.chars_written;
  values[kReads] = used.reads;
  values[kWrites] = used.writes;
  return values;
}

class ProcessCollector final : public Collector {
 public:
  ProcessCollector(const Target& target, const CollectorOptions& options)
      : target_(target),
        handover_(options.handover),
        ticks_(static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK))) {}

  Result<> collect(Snapshot& out) override {
    if (!procps_) {
      auto opened = Procps::open();
      if (!opened) return opened.error();
      procps_.emplace(std::move(*opened));
    }
    const auto& processes = target_.processes();
    const auto ends = ask_kernel();
    auto times = procps_->times(processes);
    const double now = seconds_of(CLOCK_MONOTONIC);
    if (!times) return times.error();

    io_trouble_.clear();
    times_trouble_.clear();
    readings_.clear();
    for (auto it = processes.rbegin(); it != processes.rend(); ++it) {
      if (const auto found = times->find(it->id); found != times->end())
        readings_.emplace_back(&*it, read(*it, found->second));
      else if (is_there(*it))
        keep(*it);
      else if (ends)
        totals_.hold(it->id);
    }
    for (const auto& [process, reading] : readings_) {
      if (!ends || is_there(*process))
        totals_.update(process->id, process->parent, reading);
      else
        totals_.hold(process->id);
    }
    totals_.finish(ends ? &*ends : nullptr, [this](const ProcessId& id) { return is_listed(id); });
    if (times_trouble_.empty()) times_trouble_ = target_.shortage();
    ever_ = ever_ || !times->empty();

    if (ever_) add_counters(out);
    if (!times_trouble_.empty()) {
      for (const Metric& metric : {kCpuSeconds, kCpuPercent, kFaults})
        out.absent(metric.name, times_trouble_);
      last_.reset();
      add_main(out);
      return {};
    }
    if (processes.empty()) {
      for (const Metric& metric : {kCpuPercent, kStartTime, kOomScoreAdj}) out.absent(metric.name, kNoTarget);
      last_.reset();
      return {};
    }
    add_usage(out, now);
    add_main(out);
    return {};
  }

  std::vector<Capability> check() override {
    return {{"cpu", ever_ && times_trouble_.empty(),
             !ever_                   ? kNoTarget
             : times_trouble_.empty() ? "/proc/PID/stat by libproc2"
                                      : times_trouble_},
            {"io", ever_ && io_trouble_.empty(),
             !ever_                ? kNoTarget
             : io_trouble_.empty() ? "/proc/PID/io"
                                   : io_trouble_}};
  }

 private:
  std::optional<Totals::Ends> ask_kernel() const {
    auto told = handover_ && handover_->ends ? handover_->ends() : std::nullopt;
    if (!told) return std::nullopt;
    return Totals::Ends{values_of(told->unclaimed), std::move(told->seen)};
  }

  bool is_listed(const ProcessId& id) const {
    const auto dir = target_.proc_root().dir(std::to_string(id.pid));
    const auto stat = dir ? read_proc_stat(*dir) : Result<ProcStat>(dir.error());
    return stat && stat->start_ticks == id.start_ticks;
  }

  Totals::Reading read(const Process& process, const ProcessTimes& times) {
    Totals::Reading reading{times.minor_faults + times.reaped_minor_faults, times.reaped_minor_faults,
                            totals_.last(process.id), kRead, process.ran_before};
    if (auto text = process.proc.read("io"); !text) {
      if (!ended(process, text.error()) && io_trouble_.empty()) io_trouble_ = reason(text.error());
    } else if (parse_io(*text, reading.values)) {
      io_seen_ = true;
      reading.told = kCounters;
    } else if (io_trouble_.empty()) {
      io_trouble_ = "io: not of the known form";
    }
    reading.values[kUser] = (times.user_ticks + times.reaped_user_ticks) * (kSecond / ticks_);
    reading.values[kSystem] = (times.system_ticks + times.reaped_system_ticks) * (kSecond / ticks_);
    reading.values[kMinor] = reading.faults;
    reading.values[kMajor] = times.major_faults + times.reaped_major_faults;
    return reading;
  }

  /// It lives and is not in the answer: taken for ended, it would be counted anew when it can be read again.
  void keep(const Process& process) {
    totals_.keep(process.id);
    const auto text = process.proc.read("stat", 4096);
    times_trouble_ = text ? "stat: could not be read for a moment" : reason(text.error());
  }

  void add_counters(Snapshot& out) {
    const auto& total = totals_.total();
    const auto value = [&total](Counter counter) { return static_cast<double>(total[counter]); };
    if (times_trouble_.empty()) {
      out.add(kCpuSeconds, value(kUser) / static_cast<double>(kSecond), {{"mode", "user"}});
      out.add(kCpuSeconds, value(kSystem) / static_cast<double>(kSecond), {{"mode", "system"}});
      out.add(kFaults, value(kMinor), {{"type", "minor"}});
      out.add(kFaults, value(kMajor), {{"type", "major"}});
    }
    // A sum that lacks one of the processes would be untrue, so one that cannot be read hides the whole.
    const std::string& trouble = times_trouble_.empty() ? io_trouble_ : times_trouble_;
    if (!trouble.empty()) {
      for (const Metric& metric : {kDiskRead, kDiskWrite, kDiskCancelled, kIoBytes, kIoCalls})
        out.absent(metric.name, trouble);
      return;
    }
    if (!io_seen_) return;
    out.add(kDiskRead, value(kRead));
    out.add(kDiskWrite, value(kWritten));
    out.add(kDiskCancelled, value(kCancelled));
    out.add(kIoBytes, value(kReadAll), {{"operation", "read"}});
    out.add(kIoBytes, value(kWrittenAll), {{"operation", "write"}});
    out.add(kIoCalls, value(kReads), {{"operation", "read"}});
    out.add(kIoCalls, value(kWrites), {{"operation", "write"}});
  }

  void add_usage(Snapshot& out, double now) {
    const auto& total = totals_.total();
    const double used = static_cast<double>(total[kUser] + total[kSystem]) / static_cast<double>(kSecond);
    if (last_ && now > last_->at)
      out.add(kCpuPercent, 100 * (used - last_->used) / (now - last_->at));
    else
      out.absent(kCpuPercent.name, kFirstReading);
    last_ = Usage{used, now};
  }

  void add_main(Snapshot& out) {
    const Process* main = target_.main();
    if (main == nullptr) return;
    // Kept for as long as the process lives: computed anew it would move with every step of the clock.
    if (main->id != started_) {
      started_ = main->id;
      started_at_ = seconds_of(CLOCK_REALTIME) - seconds_of(CLOCK_BOOTTIME) +
                    static_cast<double>(main->id.start_ticks) / static_cast<double>(ticks_);
    }
    out.add(kStartTime, started_at_);
    auto text = main->proc.read("oom_score_adj");
    if (!text) return out.absent(kOomScoreAdj.name, reason(text.error()));
    std::string_view rest = *text;
    std::string_view word = next_word(rest);
    const bool negative = word.starts_with('-');
    if (negative) word.remove_prefix(1);
    const auto number = to_number(word);
    if (!number) return out.absent(kOomScoreAdj.name, "oom_score_adj: not a number");
    out.add(kOomScoreAdj, negative ? -static_cast<double>(*number) : static_cast<double>(*number));
  }

  struct Usage {
    double used = 0;
    double at = 0;
  };

  const Target& target_;
  const std::shared_ptr<Handover> handover_;
  const std::uint64_t ticks_;  ///< a second
  std::optional<Procps> procps_;
  Totals totals_;
  std::vector<std::pair<const Process*, Totals::Reading>> readings_;
  std::optional<Usage> last_;
  ProcessId started_;
  double started_at_ = 0;
  bool ever_ = false;
  bool io_seen_ = false;
  std::string io_trouble_;
  std::string times_trouble_;  ///< why the last collection could not read all that live
};

}  // namespace
}  // namespace host

const CollectorInfo process_collector{
    "process", "CPU time, page faults and I/O of the target's processes",
    [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::ProcessCollector>(target, options);
    }};

}  // namespace boxo
