// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectors/catalogue.h"
#include "collectors/collector.h"
#include "collectors/kernel_reader.h"
#include "collectors/target.h"

namespace boxo::test {

/// One collector over one target, tick by tick. Metrics go without "boxo_resource_", others by their whole name.
class Run {
 public:
  Run(const char* name, TargetSpec spec, const std::string& proc = "/proc",
      const std::string& cgroups = "/sys/fs/cgroup")
      : target_(*Target::make(std::move(spec), proc, cgroups)) {
    options_.cgroup_root = cgroups;
    options_.handover = std::make_shared<Handover>();
    for (const CollectorInfo* info : catalogue())
      if (info->name == name) {
        collector_ = info->make(target_, options_);
        for (const Metric& metric : info->metrics()) described_.push_back(&metric);
      }
    REQUIRE(collector_);
  }
  void tick() {
    target_.refresh();
    out_ = Snapshot();
    const auto done = collector_->collect(out_);
    CHECK_MESSAGE(done, (done ? "" : done.error().text()));
    check_described();
  }
  /// The value of the sample with these label values, in order; nothing if there is none.
  std::optional<double> value(const std::string& name, const std::vector<std::string>& labels = {}) const {
    const Family* family = out_.find(whole(name));
    if (family == nullptr) return std::nullopt;
    for (const Sample& sample : family->samples) {
      std::vector<std::string> values;
      for (const Label& label : sample.labels) values.push_back(label.value);
      if (values == labels) return std::get<double>(sample.value);
    }
    return std::nullopt;
  }
  std::string absence(const std::string& name) const {
    for (const Absence& absence : out_.absences())
      if (absence.metric == whole(name)) return absence.reason;
    return "";
  }
  Source source(const std::string& name) const { return out_.find(whole(name))->source; }
  Target& target() { return target_; }
  Handover& handover() { return *options_.handover; }

 private:
  static std::string whole(const std::string& name) { return name.starts_with("boxo_") ? name : "boxo_resource_" + name; }
  /// Everything that comes out is in the catalogue, with the labels that are told there.
  void check_described() const {
    for (const Family& family : out_.families()) {
      const auto it = std::find_if(described_.begin(), described_.end(),
                                   [&](const Metric* metric) { return metric->name == family.metric->name; });
      REQUIRE(it != described_.end());
      for (const Sample& sample : family.samples) {
        std::string labels;
        for (const Label& label : sample.labels) labels += (labels.empty() ? "" : ",") + label.name;
        CHECK(labels == (*it)->labels);
      }
    }
    for (const Absence& absence : out_.absences())
      CHECK(std::any_of(described_.begin(), described_.end(),
                        [&](const Metric* metric) { return metric->name == absence.metric.substr(0, absence.metric.find('{')); }));
  }

  Target target_;
  CollectorOptions options_;
  std::unique_ptr<Collector> collector_;
  std::vector<const Metric*> described_;
  Snapshot out_;
};

inline TargetSpec pid(pid_t pid) { return {TargetSpec::Kind::kPid, pid, ""}; }

}  // namespace boxo::test
