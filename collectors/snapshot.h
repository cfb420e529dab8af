// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "collectors/metric.h"

namespace boxo {

struct Label {
  std::string name;
  std::string value;
};
using Labels = std::vector<Label>;

/// A histogram as Prometheus means it: `counts[i]` samples were above bounds[i-1] and at most bounds[i] (edges are
/// inclusive); the last of the bounds.size()+1 counts holds what was above every bound.
struct Histogram {
  std::vector<double> bounds;
  std::vector<std::uint64_t> counts;
  double sum = 0;
};

struct Sample {
  Labels labels;
  std::variant<double, Histogram> value;
};

/// All samples of one metric at one moment.
struct Family {
  std::shared_ptr<const Metric> metric;
  Source source;  ///< where these samples came from; a collector with a second-best source says so here
  std::vector<Sample> samples;
};

/// Why a metric is not there: "boxo_resource_disk_read_bytes_total", "io: Permission denied".
struct Absence {
  std::string metric;
  std::string reason;
};

/// What one collector measured in one tick: absolute values. Filled once, then never changed; shared between threads
/// only as const.
class Snapshot {
 public:
  /// The family of `metric`, which must outlive the Snapshot (a constant); made on first use.
  Family& family(const Metric& metric);
  /// The same for a description made at run time.
  Family& family(std::shared_ptr<const Metric> metric);

  void add(const Metric& metric, double value, Labels labels = {}) {
    family(metric).samples.push_back({std::move(labels), value});
  }
  void add(const Metric& metric, Histogram value, Labels labels = {}) {
    family(metric).samples.push_back({std::move(labels), std::move(value)});
  }
  /// The metric could not be read; say why instead of exporting a zero.
  void absent(std::string_view metric, std::string reason);

  const std::vector<Family>& families() const { return families_; }
  const std::vector<Absence>& absences() const { return absences_; }
  /// The family with this name, or nullptr.
  const Family* find(std::string_view name) const;

 private:
  std::vector<Family> families_;
  std::vector<Absence> absences_;
};

}  // namespace boxo
