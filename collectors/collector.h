// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collectors/kernel_reader.h"
#include "collectors/metric.h"
#include "collectors/result.h"
#include "collectors/snapshot.h"
#include "collectors/target.h"

namespace boxo {

/// Where events of the application are received, and how much of them is kept.
struct EventOptions {
  std::string socket = "/run/boxo-agent/events.sock";  ///< --events: datagram socket; "" for none
  std::string stream;                                  ///< --events-stream: stream socket; "" for none
  unsigned mode = 0;                                   ///< --events-mode; 0: 0660 with a group, else 0666
  std::string group;                                   ///< --events-group: name or number; "" for none
  std::size_t history = 1000;                          ///< --history: samples of a mean or percentile
  std::size_t peers = 100;                             ///< --peers: peers with series of their own
  std::size_t series = 1000;                           ///< --series: series with names of the application
  std::vector<std::string> constant_labels;            ///< names given by --label: no tag may have one of them
  bool required = true;  ///< false: go on without sockets that cannot be opened (a look beside a running agent)
};

/// What a collector may know of the command line.
struct CollectorOptions {
  std::chrono::nanoseconds interval = std::chrono::seconds(5);
  std::string data_dir;                           ///< --data-dir; "" if not given
  std::string cgroup_root = "/sys/fs/cgroup";
  bool bpf = true;                                ///< false with --no-bpf
  std::vector<std::string> probes_on;             ///< --probe, as given ("syscalls", "syscalls:10%")
  std::vector<std::string> probes_off;            ///< --no-probe
  EventOptions events;
  /// What collectors hand to each other; copies of these options share it.
  std::shared_ptr<Handover> handover = std::make_shared<Handover>();
};

/// A row of `--check` below a collector: one probe or feature, whether it works, and why not.
struct Capability {
  std::string name;
  bool works = false;
  std::string detail;  ///< where it works: how ("tp_btf"); where not: the reason and the mend
};

/// Measures one thing. `collect` adds absolute values to the Snapshot and fails alone; a collector that can measure
/// only part of its metrics adds those, marks the rest absent() and succeeds. Called by the tick thread only.
class Collector {
 public:
  Collector() = default;
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;
  Collector(Collector&&) = delete;
  Collector& operator=(Collector&&) = delete;
  virtual ~Collector() = default;

  /// Opens what must be open before the first collect() and cannot be done without: an error here ends the program
  /// (exit code 3). Called once.
  virtual Result<> start() { return {}; }
  virtual Result<> collect(Snapshot& out) = 0;
  /// How old what collect() added was: more than nothing where it showed an earlier reading again.
  virtual std::chrono::nanoseconds age() const { return {}; }
  /// For `--log-level debug`: what happened since the last call, one line each, printable.
  virtual std::vector<std::string> debug_lines() { return {}; }
  /// For `--check`: what of it works here. Called after one collect().
  virtual std::vector<Capability> check() { return {}; }
};

/// What the build knows of a collector: one constant per file, listed by the generated catalogue.
struct CollectorInfo {
  std::string_view name;  ///< as in --collector and in the label `collector`
  std::string_view help;  ///< one line for --check and the docs
  std::span<const Metric> (*metrics)();
  /// `target` outlives the collector.
  std::unique_ptr<Collector> (*make)(const Target& target, const CollectorOptions& options);
};

}  // namespace boxo
