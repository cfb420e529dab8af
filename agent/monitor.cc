// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/monitor.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "agent/version.h"
#include "collectors/catalogue.h"
#include "collectors/contract.h"
#include "collectors/log.h"

namespace boxo {

using std::chrono::duration;
using std::chrono::nanoseconds;
using std::chrono::steady_clock;

namespace {

constexpr Metric kBuildInfo{"boxo_agent_build_info", MetricType::kGauge, "", "version,revision", Source::kAgent,
                            "Always 1; the labels tell which build of the agent this is."};
constexpr Metric kTargetUp{"boxo_agent_target_up", MetricType::kGauge, "", "", Source::kAgent,
                           "1 while the target has a living process, else 0."};
constexpr Metric kTargetProcesses{"boxo_agent_target_processes", MetricType::kGauge, "", "", Source::kAgent,
                                  "Processes of the target that are being watched."};
constexpr Metric kTargetRestarts{"boxo_agent_target_restarts_total", MetricType::kCounter, "", "", Source::kAgent,
                                 "How often a new process became the target's main one. One that ran already and takes its place is no "
                                 "restart: the log tells."};
constexpr Metric kCollectorSuccess{"boxo_agent_collector_success", MetricType::kGauge, "", "collector",
                                   Source::kAgent, "1 if the collector's last run succeeded, else 0."};
constexpr Metric kCollectorDuration{"boxo_agent_collector_duration_seconds", MetricType::kGauge, "seconds",
                                    "collector", Source::kAgent, "Wall time of the collector's last run."};
constexpr Metric kCollectorAge{"boxo_agent_collector_age_seconds", MetricType::kGauge, "seconds", "collector",
                               Source::kAgent,
                               "How old what the collector's last run showed was: 0 if it read it then, more if reading "
                               "so much again so soon would have been too dear."};
constexpr Metric kSourceInfo{"boxo_agent_metric_source_info", MetricType::kGauge, "", "metric,source",
                             Source::kAgent,
                             "Always 1; says where each of the names that have several possible sources comes from."};
constexpr Metric kAbsentInfo{"boxo_agent_metric_absent_info", MetricType::kGauge, "", "metric,reason",
                             Source::kAgent, "Always 1; a metric that cannot be read here, and why."};
constexpr Metric kCpuSeconds{"boxo_agent_cpu_seconds_total", MetricType::kCounter, "seconds", "", Source::kAgent,
                             "CPU time used by the agent itself, user and system, without its probes."};
constexpr Metric kMemory{"boxo_agent_memory_bytes", MetricType::kGauge, "bytes", "", Source::kAgent,
                         "Resident memory of the agent itself."};
constexpr Metric kMissedTicks{"boxo_agent_missed_collections_total", MetricType::kCounter, "", "", Source::kAgent,
                              "Collections that were left out because the one before took longer than the interval."};
constexpr Metric kLastCollection{"boxo_agent_last_collection_timestamp_seconds", MetricType::kGauge, "seconds", "",
                                 Source::kAgent, "Unix time at which the last collection was complete."};

constexpr Metric kMetrics[] = {kBuildInfo,         kTargetUp,   kTargetProcesses, kTargetRestarts,
                               kCollectorSuccess,  kSourceInfo, kAbsentInfo,      kCpuSeconds,
                               kCollectorDuration, kCollectorAge, kMemory,     kMissedTicks,     kLastCollection};

double seconds_of(const timeval& time) { return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6; }

double unix_time() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

/// Whether the collectors of this build have more than one source for it.
bool has_several_sources(std::string_view name) {
  static const std::unordered_set<std::string_view> names = [] {
    std::unordered_set<std::string_view> several;
    std::unordered_map<std::string_view, Source> first;
    for (const CollectorInfo* info : catalogue())
      for (const Metric& metric : info->metrics())
        if (first.try_emplace(metric.name, metric.source).first->second != metric.source) several.insert(metric.name);
    return several;
  }();
  return names.contains(name);
}

/// Of each name the family from the best source; what has no sample is not shown.
std::vector<const Family*> choose(const std::vector<std::shared_ptr<const Snapshot>>& parts) {
  std::vector<const Family*> chosen;
  std::unordered_map<std::string_view, std::size_t> by_name;
  for (const auto& part : parts) {
    for (const Family& family : part->families()) {
      if (family.samples.empty()) continue;
      const auto [it, is_new] = by_name.try_emplace(family.metric->name, chosen.size());
      if (is_new)
        chosen.push_back(&family);
      else if (family.source > chosen[it->second]->source)
        chosen[it->second] = &family;
    }
  }
  return chosen;
}

}  // namespace

std::span<const Metric> PerformanceMonitor::metrics() { return kMetrics; }

Result<std::unique_ptr<PerformanceMonitor>> PerformanceMonitor::make(Target& target) {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  Fd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll || !timer || !stop) return errno_error("epoll, timerfd or eventfd");
  auto self = Dir::open("/proc/self");
  auto monitor = std::unique_ptr<PerformanceMonitor>(new PerformanceMonitor(
      target, std::move(epoll), std::move(timer), std::move(stop), self ? std::move(*self) : Dir()));
  for (const int fd : {monitor->timer_.get(), monitor->stop_.get()})
    if (auto watched = monitor->watch(fd, [] {}); !watched) return watched.error();
  return monitor;
}

PerformanceMonitor::PerformanceMonitor(Target& target, Fd epoll, Fd timer, Fd stop, Dir self)
    : target_(target),
      epoll_(std::move(epoll)),
      timer_(std::move(timer)),
      stop_(std::move(stop)),
      self_(std::move(self)),
      waiting_(target.describe()) {}

void PerformanceMonitor::register_collector(std::string name, std::unique_ptr<Collector> collector,
                                            nanoseconds every) {
  entries_.push_back({std::move(collector), every, {}, nullptr, Changes("")});
  statuses_.push_back({std::move(name), false, "not run yet", 0});
}

Result<> PerformanceMonitor::start_collectors() {
  for (Entry& entry : entries_)
    if (auto started = entry.collector->start(); !started) return started;
  return {};
}

void PerformanceMonitor::run(Entry& entry, CollectorStatus& status) {
  const auto begin = steady_clock::now();
  if (begin < entry.due) return;
  entry.due = begin + entry.every;
  auto snapshot = std::make_shared<Snapshot>();
  const auto done = entry.collector->collect(*snapshot);
  status.seconds = duration<double>(steady_clock::now() - begin).count();
  status.age = duration<double>(entry.collector->age()).count();
  status.success = static_cast<bool>(done);
  status.error = done ? std::string() : done.error().text();
  if (const auto untold = entry.told.update(status.error)) {
    const std::string who = "collector " + status.name + ": ";
    done ? log_info(who + "works again" + *untold) : log_warn(who + status.error + *untold);
  }
  entry.last = std::move(snapshot);
  if (log_enabled(LogLevel::kDebug))
    for (const std::string& line : entry.collector->debug_lines()) log_debug(status.name + ": " + line);
}

void PerformanceMonitor::collect_metrics() {
  target_.refresh();
  follow_target();
  auto publication = std::make_shared<Publication>();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    run(entries_[i], statuses_[i]);
    publication->parts.push_back(entries_[i].last);
  }
  publication->families = choose(publication->parts);
  withhold(publication->families);
  publication->absences = missing(*publication);
  publication->statuses = statuses_;
  publication->target = target_.describe();
  auto itself = std::make_shared<const Snapshot>(about_itself(*publication));
  for (const Family& family : itself->families())
    if (!family.samples.empty()) publication->families.push_back(&family);
  publication->parts.push_back(std::move(itself));
  publish(std::move(publication));
}

void PerformanceMonitor::withhold(std::vector<const Family*>& families) {
  withheld_.clear();
  std::erase_if(families, [&](const Family* family) {
    if (family->metric->type == MetricType::kGauge) return false;
    auto it = counting_.find(family->metric->name);
    if (it == counting_.end()) it = counting_.emplace(family->metric->name, family->source).first;
    const bool is_worse = family->source < it->second;
    if (is_worse) withheld_.emplace_back(it->first, it->second);
    it->second = std::max(it->second, family->source);
    return is_worse;
  });
}

/// Another source may have it, and two collectors may miss the same one.
std::vector<Absence> PerformanceMonitor::missing(const Publication& publication) const {
  std::unordered_set<std::string_view> settled;
  for (const Family* family : publication.families) settled.insert(family->metric->name);
  std::vector<Absence> absences;
  for (const auto& part : publication.parts)
    for (const Absence& absence : part->absences())
      if (settled.insert(absence.metric).second) absences.push_back(absence);
  for (const auto& [name, source] : withheld_)
    if (settled.insert(name).second)
      absences.push_back({std::string(name), "counted by source " + std::string(source_label(name, source)) + " so far, which tells nothing now"});
  return absences;
}

Snapshot PerformanceMonitor::about_itself(const Publication& publication) const {
  Snapshot out;
  out.add(kBuildInfo, 1, {{"version", kVersion}, {"revision", kRevision}});
  out.add(kTargetUp, target_.up() ? 1 : 0);
  out.add(kTargetProcesses, static_cast<double>(target_.processes().size()));
  out.add(kTargetRestarts, static_cast<double>(target_.restarts()));
  for (const CollectorStatus& status : statuses_) {
    out.add(kCollectorSuccess, status.success ? 1 : 0, {{"collector", status.name}});
    out.add(kCollectorDuration, status.seconds, {{"collector", status.name}});
    out.add(kCollectorAge, status.age, {{"collector", status.name}});
  }
  for (const Family* family : publication.families)
    if (has_told_source(family->metric->name) || has_several_sources(family->metric->name))
      out.add(kSourceInfo, 1,
              {{"metric", std::string(family->metric->name)}, {"source", std::string(source_label(family->metric->name, family->source))}});
  for (const Absence& absence : publication.absences)
    out.add(kAbsentInfo, 1, {{"metric", absence.metric}, {"reason", absence.reason}});
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  out.add(kCpuSeconds, seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime));
  if (const auto statm = self_ ? self_.read("statm", 256) : Result<std::string>(Error{"/proc/self"}); statm) {
    const auto space = statm->find(' ');
    std::uint64_t pages = 0;
    if (space != std::string::npos &&
        std::from_chars(statm->data() + space + 1, statm->data() + statm->size(), pages).ec == std::errc())
      out.add(kMemory, static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE)));
  }
  out.add(kMissedTicks, static_cast<double>(missed_ticks_));
  out.add(kLastCollection, unix_time());
  return out;
}

void PerformanceMonitor::follow_target() {
  const ProcessId main = target_.up() ? target_.main()->id : ProcessId{};
  if (main != main_) {
    main_ = main;
    log_info(target_.up() ? "watching " + target_.describe() : "waiting: " + target_.describe());
    waiting_ = Changes(target_.describe());
  } else if (!target_.up()) {
    const std::string what = target_.describe();
    if (const auto untold = waiting_.update(what)) log_info("waiting: " + what + *untold);
  }
  if (target_.generation() == target_generation_ && target_fd_ == target_.ended_fd()) return;
  target_generation_ = target_.generation();
  // The old pidfd was closed with its process and has left epoll by itself.
  if (target_fd_ >= 0) unwatch(target_fd_);
  target_fd_ = target_.ended_fd();
  if (target_fd_ >= 0) (void)watch(target_fd_, [this] { unwatch(target_fd_); });
}

Result<> PerformanceMonitor::watch(int fd, std::function<void()> on_ready) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0 && errno != EEXIST)
    return errno_error("cannot watch a descriptor");
  watched_[fd] = std::move(on_ready);
  return {};
}

void PerformanceMonitor::unwatch(int fd) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watched_.erase(fd);
}

Result<> PerformanceMonitor::start_collection(nanoseconds interval) {
  const timespec period{.tv_sec = static_cast<time_t>(interval.count() / 1'000'000'000),
                        .tv_nsec = static_cast<long>(interval.count() % 1'000'000'000)};
  const itimerspec timer{.it_interval = period, .it_value = period};
  if (::timerfd_settime(timer_.get(), 0, &timer, nullptr) != 0) return errno_error("cannot set the timer");
  if (!latest()) collect_metrics();
  while (true) {
    epoll_event events[8];
    const int n = ::epoll_wait(epoll_.get(), events, 8, -1);
    if (n < 0 && errno != EINTR) return errno_error("epoll_wait");
    bool tick = false;
    for (int i = 0; i < n; ++i) {
      const int fd = events[i].data.fd;
      std::uint64_t count = 0;
      if (fd == stop_.get()) {
        (void)!::read(fd, &count, sizeof count);
        return {};
      }
      if (fd == timer_.get()) {
        if (::read(fd, &count, sizeof count) == sizeof count) missed_ticks_ += count - 1;
        tick = true;
      } else if (const auto it = watched_.find(fd); it != watched_.end()) {
        const auto on_ready = it->second;  // it may unwatch itself
        on_ready();
        // The main process ended: look for its successor now, not at the next tick.
        if (fd == target_fd_) tick = true;
      }
    }
    if (tick) collect_metrics();
  }
}

void PerformanceMonitor::stop_collection() {
  const std::uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);
}

void PerformanceMonitor::publish(std::shared_ptr<const Publication> publication) {
  // The old one is destroyed outside the lock, possibly by a reader.
  const std::lock_guard lock(latest_mutex_);
  latest_.swap(publication);
}

std::shared_ptr<const Publication> PerformanceMonitor::latest() const {
  const std::lock_guard lock(latest_mutex_);
  return latest_;
}

}  // namespace boxo
