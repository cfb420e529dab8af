// SPDX-License-Identifier: MIT OR Apache-2.0
// Room on the file system that holds the target's data, and how much the disk holds the target up.
#include <algorithm>

#include "collectors/collector.h"
#include "collectors/host/pressure_stall.h"
#include "collectors/host/space.h"
#include "collectors/host/target_group.h"
#include "collectors/host/text.h"
#include "collectors/reading.h"

namespace boxo {

extern const CollectorInfo disk_collector;

namespace host {
namespace {

constexpr Metric kUsage{
    "boxo_resource_disk_usage_bytes",
    MetricType::kGauge,
    "bytes",
    "",
    Source::kProc,
    "Space in use on the file system that holds the target's data (--data-dir, else the target's "
    "IPFS_PATH, else its working directory)."};
constexpr Metric kTotal{"boxo_resource_disk_total_bytes",
                        MetricType::kGauge,
                        "bytes",
                        "",
                        Source::kProc,
                        "Size of the file system that holds the target's data."};
constexpr Metric kAvailable{"boxo_resource_disk_available_bytes",
                            MetricType::kGauge,
                            "bytes",
                            "",
                            Source::kProc,
                            "Space that a process without privileges can still use there."};
constexpr Metric kInodesUsed{"boxo_resource_disk_inodes_used",
                             MetricType::kGauge,
                             "",
                             "",
                             Source::kProc,
                             "Inodes (files and directories) in use there."};
constexpr Metric kInodes{"boxo_resource_disk_inodes",
                         MetricType::kGauge,
                         "",
                         "",
                         Source::kProc,
                         "How many inodes that file system can have."};
constexpr Metric kPressure{
    "boxo_resource_disk_pressure",
    MetricType::kGauge,
    "ratio",
    "",
    Source::kProc,
    "How much the disk holds the target up, 0 to 1. The greatest of: share of the last interval in which "
    "some task waited "
    "for I/O, of its cgroup or, as boxo_resource_pressure_info tells, of the whole host; share of the file system's space that is used up; share of its inodes that is used up."};
constexpr Metric kAll[] = {kUsage, kTotal, kAvailable, kInodesUsed, kInodes, kPressure};

/// The share that is gone for a process without privileges.
double fill(std::uint64_t used, std::uint64_t available) {
  const double all = static_cast<double>(used) + static_cast<double>(available);
  return all > 0 ? static_cast<double>(used) / all : 0;
}

class DiskCollector final : public Collector {
 public:
  DiskCollector(const Target& target, const CollectorOptions& options)
      : target_(target), group_(target, options.cgroup_root), watch_(options.data_dir), handover_(options.handover), stall_("io") {}

  Result<> collect(Snapshot& out) override {
    const Process* main = target_.main();
    if (main == nullptr) {
      for (const Metric& metric : kAll) out.absent(metric.name, kNoTarget);
      trouble_ = kNoTarget;
      if (handover_ && !handover_->data) hand_over(Error{kNoTarget});
      return {};
    }
    group_.refresh();
    stall_.update(target_, group_);
    const auto space = watch_.get(*main);
    if (!space) {
      trouble_ = printable(reason(space.error()));
      hand_over(space.error());
      for (const Metric& metric : {kUsage, kTotal, kAvailable, kInodesUsed, kInodes}) out.absent(metric.name, trouble_);
      add_pressure(out, nullptr);
      return {};
    }
    trouble_.clear();
    path_ = space->path;
    hand_over(space->place);
    out.add(kUsage, static_cast<double>(space->used));
    out.add(kTotal, static_cast<double>(space->total));
    out.add(kAvailable, static_cast<double>(space->available));
    if (space->inodes > 0) {
      out.add(kInodesUsed, static_cast<double>(space->inodes_used));
      out.add(kInodes, static_cast<double>(space->inodes));
    } else {
      for (const Metric& metric : {kInodesUsed, kInodes})
        out.absent(metric.name, "this file system makes inodes as it needs them");
    }
    add_pressure(out, &*space);
    return {};
  }

  std::vector<Capability> check() override {
    return {{"space", trouble_.empty(), trouble_.empty() ? "of " + printable(path_) : trouble_}};
  }

 private:
  void hand_over(Result<DataPlace> place) const {
    if (handover_) handover_->data = std::move(place);
  }

  /// `space` is nullptr where it is not known.
  void add_pressure(Snapshot& out, const Space* space) {
    if (stall_.scope() != nullptr && !stall_.share()) return out.absent(kPressure.name, kFirstReading);
    if (space == nullptr && !stall_.share()) return out.absent(kPressure.name, trouble_);
    double most = stall_.share().value_or(0);
    if (space != nullptr) most = std::max(most, fill(space->used, space->available));
    if (space != nullptr && space->inodes > 0)
      most = std::max(most, fill(space->inodes_used, space->inodes_available));
    out.add(kPressure, std::clamp(most, 0.0, 1.0));
  }

  const Target& target_;
  TargetGroup group_;
  SpaceWatch watch_;
  const std::shared_ptr<Handover> handover_;
  PressureStall stall_;
  std::string path_;
  std::string trouble_ = kNoTarget;
};

}  // namespace
}  // namespace host

const CollectorInfo disk_collector{
    "disk", "room on the file system that holds the target's data",
    [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::DiskCollector>(target, options);
    }};

}  // namespace boxo
