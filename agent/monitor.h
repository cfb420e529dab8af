// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectors/collector.h"
#include "collectors/fd.h"
#include "collectors/log.h"

namespace boxo {

/// A collector's last run.
struct CollectorStatus {
  std::string name;
  bool success = false;
  std::string error;
  double seconds = 0;
  double age = 0;  ///< of what it showed, in seconds
};

/// What one tick published: the latest Snapshot of every collector, and of each metric name the family to show (where
/// several collectors offer one, that of the best source; what counts never goes back to a worse one). Never changes.
struct Publication {
  std::vector<std::shared_ptr<const Snapshot>> parts;
  std::vector<const Family*> families;  ///< point into `parts`
  std::vector<Absence> absences;        ///< what is not in `families`, each name once
  std::vector<CollectorStatus> statuses;
  std::string target;  ///< what is watched or waited for, for a person
};

/// Runs the collectors, one tick after the other, and publishes what they measured. A collector that fails or is slow
/// spoils nobody else's metrics. Everything but latest() and stop_collection() belongs to the thread that ticks.
class PerformanceMonitor {
 public:
  /// `target` outlives the monitor.
  static Result<std::unique_ptr<PerformanceMonitor>> make(Target& target);

  /// Adds a collector. `every` longer than the tick lets it run less often; in between its last Snapshot stays.
  void register_collector(std::string name, std::unique_ptr<Collector> collector,
                          std::chrono::nanoseconds every = std::chrono::nanoseconds(0));
  /// Starts the collectors (sockets, probes). An error here is what the user asked for and cannot have.
  Result<> start_collectors();

  /// One tick: brings the target up to date, runs every collector that is due, publishes.
  void collect_metrics();
  /// Ticks (at once if there was no tick yet, then) every `interval` until stop_collection(), which any thread or signal handler may call. Ticks that were
  /// missed because one took too long are counted, not made up for.
  Result<> start_collection(std::chrono::nanoseconds interval);
  void stop_collection();
  /// Calls `on_ready` in the ticking thread whenever `fd` is readable.
  Result<> watch(int fd, std::function<void()> on_ready);
  void unwatch(int fd);

  /// The last publication; nullptr before the first. Safe from every thread.
  std::shared_ptr<const Publication> latest() const;

  const std::vector<CollectorStatus>& statuses() const { return statuses_; }
  Collector& collector(std::size_t index) { return *entries_[index].collector; }
  std::uint64_t missed_ticks() const { return missed_ticks_; }

  /// The metrics that the monitor itself adds, for --list.
  static std::span<const Metric> metrics();

 private:
  struct Entry {
    std::unique_ptr<Collector> collector;
    std::chrono::nanoseconds every;
    std::chrono::steady_clock::time_point due;
    std::shared_ptr<const Snapshot> last;
    Changes told{""};  // its error
  };

  PerformanceMonitor(Target& target, Fd epoll, Fd timer, Fd stop, Dir self);
  void run(Entry& entry, CollectorStatus& status);
  // Takes out counters and histograms from a worse source than the one they were shown from. That one has counted
  // something else: a step back, and then one forward that nothing happened for.
  std::vector<Absence> missing(const Publication& publication) const;
  void withhold(std::vector<const Family*>& families);
  Snapshot about_itself(const Publication& publication) const;
  void follow_target();
  void publish(std::shared_ptr<const Publication> publication);

  Target& target_;
  Fd epoll_;
  Fd timer_;
  Fd stop_;
  Dir self_;  // /proc/self, for the agent's own memory
  std::vector<Entry> entries_;
  std::vector<CollectorStatus> statuses_;
  std::map<int, std::function<void()>> watched_;
  int target_fd_ = -1;  // the pidfd in epoll_, owned by the target
  std::uint64_t target_generation_ = 0;
  ProcessId main_{};  // what the log last said
  Changes waiting_;   // for what, while there is no target
  std::map<std::string, Source, std::less<>> counting_;  // of each counter and histogram: where it was shown from
  std::vector<std::pair<std::string_view, Source>> withheld_;  // of these, what is kept from this tick's page
  std::uint64_t missed_ticks_ = 0;
  // A mutex around one pointer copy: held for nanoseconds, by no one who waits for anything else.
  mutable std::mutex latest_mutex_;
  std::shared_ptr<const Publication> latest_;
};

}  // namespace boxo
