// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "agent/monitor.h"
#include "collectors/snapshot.h"

namespace boxo {

/// Turns the monitor's last publication into Prometheus' text format. Safe from every thread; a page is written once a
/// tick, however often it is asked for.
class Exporter {
 public:
  /// `monitor` outlives the exporter; `constant` labels go on every series (a series' own label of that name wins).
  Exporter(const PerformanceMonitor& monitor, Labels constant);
  ~Exporter();
  Exporter(const Exporter&) = delete;
  Exporter& operator=(const Exporter&) = delete;
  Exporter(Exporter&&) = delete;
  Exporter& operator=(Exporter&&) = delete;

  /// The page; empty before the first collection.
  std::shared_ptr<const std::string> page() const;

  /// The media type of the page.
  static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace boxo
