// SPDX-License-Identifier: MIT OR Apache-2.0
#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "collectors/collector.h"
#include "collectors/kernel/membership.h"
#include "collectors/kernel/own_cgroup.h"
#include "collectors/kernel/probe.h"
#include "collectors/kernel/reader.h"
#include "collectors/kernel/run_time.h"
#include "collectors/kernel/windows.h"
#include "collectors/log.h"

namespace boxo {

namespace kernel {

namespace {

constexpr Metric kUp{"boxo_agent_probe_up", MetricType::kGauge, "", "probe", Source::kAgent,
                     "1 if the probe is attached, 0 if not; boxo_agent_probe_info has the reason."};
constexpr Metric kInfo{"boxo_agent_probe_info", MetricType::kGauge, "", "probe,reason", Source::kAgent,
                       "Always 1; the reason why a probe is not attached, or how it is."};
constexpr Metric kSeconds{"boxo_agent_bpf_seconds_total", MetricType::kCounter, "seconds", "", Source::kAgent,
                          "CPU time of the agent's BPF programs, whichever process they interrupted; one run in 256 is timed."};
constexpr Metric kProbeSeconds{"boxo_agent_probe_seconds_total", MetricType::kCounter, "seconds", "probe",
                               Source::kAgent, "The part of boxo_agent_bpf_seconds_total that is this probe's."};
constexpr Metric kFull{"boxo_agent_map_full_total", MetricType::kCounter, "", "probe", Source::kAgent,
                       "Events that were not recorded because a map of the probe was full."};
constexpr Metric kMissed{"boxo_agent_probe_missed_total", MetricType::kCounter, "", "probe", Source::kAgent,
                         "Events at which the probe did not run because it was already running on that CPU."};
constexpr Metric kShare{"boxo_agent_probe_time_ratio", MetricType::kGauge, "ratio", "probe", Source::kAgent,
                        "Share of the time for which a probe is attached; what it counts is of that share only."};
constexpr std::array kOwn{kUp, kInfo, kSeconds, kProbeSeconds, kFull, kMissed, kShare};

/// The inode of the initial pid namespace is a constant of the kernel (PROC_PID_INIT_INO).
constexpr std::uint32_t kInitialPidns = 0xEFFFFFFC;

/// "syscalls" of "syscalls:10%".
std::string_view name_part(std::string_view option) { return option.substr(0, option.find(':')); }

class KernelCollector : public Collector {
 public:
  KernelCollector(const Target& target, const CollectorOptions& options) : target_(target), options_(options), own_cgroup_(target) {
    for (const Description& description : descriptions()) probes_.push_back({&description, {}, {}, Windows(), false, {}});
  }

  ~KernelCollector() override {
    if (options_.handover) *options_.handover = {};
  }
  KernelCollector(const KernelCollector&) = delete;
  KernelCollector& operator=(const KernelCollector&) = delete;
  KernelCollector(KernelCollector&&) = delete;
  KernelCollector& operator=(KernelCollector&&) = delete;

  Result<> collect(Snapshot& out) override {
    if (!loaded_) load();
    loaded_ = true;
    // The probe that follows exits comes last: what a process does when it ends is still the target's for the others.
    for (Slot& slot : probes_)
      if (slot.probe && &slot != probes_.data()) take_turn(slot);
    hand_over();
    if (membership_) {
      take_turn(probes_.front());
      // Nobody's processes can be told apart without it.
      if (!probes_.front().probe) lose_membership();
    }
    // What was counted stays readable when the set of processes could not be brought up to date.
    Result<> synced;
    if (membership_) synced = sync();
    double seconds = 0;
    for (Slot& slot : probes_) {
      if (slot.probe)
        if (auto read = slot.probe->collect(out, own_cgroup_.trouble()); !read) refuse(slot, read.error().text());
      report(slot, out);
      if (!slot.probe) continue;
      const RunStats stats = slot.probe->stats();
      const Labels labels{{"probe", std::string(slot.description->object.name)}};
      slot.run_time.update(stats);
      seconds += slot.run_time.seconds();
      out.add(kProbeSeconds, slot.run_time.seconds(), labels);
      out.add(kMissed, static_cast<double>(stats.missed), labels);
      const bool first = membership_ && &slot == probes_.data();
      if (first || slot.probe->map_fd("full") >= 0)
        out.add(kFull, static_cast<double>(first ? membership_->full() : slot.probe->full()), labels);
    }
    if (membership_ && !probes_.front().probe) lose_membership();
    if (membership_) out.add(kSeconds, seconds);
    hand_over();
    return synced;
  }

  std::vector<Capability> check() override {
    std::vector<Capability> rows;
    for (const Slot& slot : probes_)
      rows.push_back({std::string(slot.description->object.name), slot.probe.has_value(),
                      slot.probe ? slot.description->help : slot.reason});
    return rows;
  }

 private:
  struct Slot {
    const Description* description;
    std::optional<Probe> probe;
    std::string reason;
    Windows windows;
    bool attached = false;
    RunTime run_time{};
    std::optional<std::uint64_t> entered{};  ///< generation of the target whose cgroup the probe counts in
  };

  /// Where the target's packets pass: its group of version 2, whatever hierarchy the target was named by.
  Result<CgroupView> network_group() const {
    auto group = target_.cgroup("");
    if (group) return group;
    auto all = Cgroups::find(options_.cgroup_root);
    if (!all || all->hierarchy("") == nullptr) return group;
    return all->view_of("", target_.main()->proc);
  }

  /// A probe that counts in the target's cgroup goes with the target.
  void follow(Slot& slot) {
    if (!slot.probe || !slot.probe->in_cgroup() || target_.main() == nullptr || slot.entered == target_.generation()) return;
    const auto group = network_group();
    const auto entered = group ? slot.probe->enter(group->group()) : Result<>(group.error());
    if (entered) {
      slot.entered = target_.generation();
      return;
    }
    // Gone between two looks: the next one tells.
    if (const int code = entered.error().code; code == ESRCH || code == ENOENT || code == ENODEV) return;
    refuse(slot, "the target's cgroup of version 2: " + entered.error().text());
  }

  /// What the iterators can read is there for the other collectors from the next collection on.
  void hand_over() {
    const auto slot = std::ranges::find_if(
        probes_, [](const Slot& one) { return one.description->object.name == "readers"; });
    if (slot == probes_.end() || !options_.handover) return;
    if (slot->probe && !reader_) {
      reader_.emplace(*slot->probe);
      if (auto works = reader_->check(); !works) refuse(*slot, works.error().text());
    }
    if (!slot->probe) reader_.reset();
    options_.handover->reader = reader_ ? &*reader_ : nullptr;
    options_.handover->forks = [this]() -> std::optional<Forks> {
      return membership_ && probes_.front().attached ? membership_->forks() : std::nullopt;
    };
  }

  Result<> sync() {
    own_cgroup_.update();
    // Before the set of processes is brought up to date and their open sockets are looked at: none is missed then.
    for (Slot& slot : probes_) follow(slot);
    membership_->set_cgroups(own_cgroup_.memory(), own_cgroup_.io());
    auto unknown = membership_->sync(target_);
    if (!unknown) return unknown.error();
    if (!*unknown) return {};
    for (const Slot& slot : probes_)
      if (slot.probe)
        if (auto remembered = slot.probe->remember(); !remembered) return remembered;
    return {};
  }

  static void refuse(Slot& slot, std::string reason) {
    slot.probe.reset();
    slot.reason = std::move(reason);
    log_warn("probe " + std::string(slot.description->object.name) + ": " + slot.reason);
  }

  void lose_membership() {
    membership_.reset();
    const std::string reason = probes_.front().reason;
    for (Slot& slot : probes_)
      if (slot.probe) refuse(slot, reason);
  }

  static void report(const Slot& slot, Snapshot& out) {
    const std::string name(slot.description->object.name);
    out.add(kUp, slot.probe ? 1 : 0, {{"probe", name}});
    out.add(kInfo, 1, {{"probe", name}, {"reason", slot.probe ? "attached" : slot.reason}});
    if (slot.probe) out.add(kShare, slot.windows.share(), {{"probe", name}});
    else
      for (const ProbeMetric& metric : slot.description->metrics) out.absent(metric.exported.name, slot.reason);
  }

  /// Attaches or detaches a probe that works only for a share of the intervals.
  void take_turn(Slot& slot) {
    const bool now = slot.windows.next();
    if (now == slot.attached) return;
    slot.attached = now;
    if (!now) return slot.probe->detach();
    membership_->attached_now();
    if (auto attached = slot.probe->attach(); !attached) refuse(slot, attached.error().text());
  }

  /// Why this probe is not to be loaded; empty if it is.
  std::string unwanted(const Description& description) const {
    const auto names = [&](const std::string& option) { return name_part(option) == description.object.name; };
    if (std::ranges::any_of(options_.probes_off, names)) return "switched off with --no-probe";
    if (description.on_request && std::ranges::none_of(options_.probes_on, names))
      return "only with --probe " + std::string(description.object.name);
    return {};
  }

  void none(const std::string& reason) {
    for (Slot& slot : probes_) slot.reason = reason;
  }

  void load() {
    if (!options_.bpf) return none("switched off with --no-bpf");
    auto types = KernelTypes::read();
    if (!types) {
      none(types.error().text());
      return log_warn("kernel probes are off: " + types.error().text());
    }
    struct stat pidns {};
    if (::stat("/proc/self/ns/pid", &pidns) != 0) pidns.st_ino = kInitialPidns;
    LoadContext context{&*types, {}, true, static_cast<std::uint32_t>(pidns.st_ino), options_.events.peers};
    if (const std::string reason = load_members(context); !reason.empty()) {
      none(reason);
      log_warn("kernel probes are off: " + reason);
    } else {
      for (Slot& slot : probes_)
        if (!slot.probe) load_one(slot, context);
    }
    // Loading needs some megabytes for the kernel's types, running does not.
    ::malloc_trim(0);
  }

  /// The first probe makes the maps that all share. Returns why that failed.
  std::string load_members(LoadContext& context) {
    Slot& slot = probes_.front();
    auto probe = kernel::load_members(*slot.description, context);
    if (!probe) return probe.error().text();
    slot.probe.emplace(std::move(*probe));
    auto membership = Membership::make(*slot.probe, context.pidns == kInitialPidns);
    if (!membership) {
      slot.probe.reset();
      return membership.error().text();
    }
    membership_.emplace(std::move(*membership));
    return {};
  }

  void load_one(Slot& slot, const LoadContext& context) {
    slot.reason = unwanted(*slot.description);
    if (!slot.reason.empty()) return;
    for (const std::string& option : options_.probes_on) {
      if (name_part(option) != slot.description->object.name) continue;
      const auto share = share_of(option);
      if (!share) return refuse(slot, "--probe " + option + ": the share is a percentage above 0, as in NAME:10%");
      // What begins in one window and ends in another would be taken for one long wait: only probes that look out for
      // that work for a share of the time.
      if (*share < 1 && !slot.description->on_request)
        return refuse(slot, "--probe " + option + ": it is attached all the time or not at all; leave out the share");
      slot.windows = Windows(*share);
    }
    auto probe = Probe::load(*slot.description, context);
    if (!probe) return refuse(slot, probe.error().text());
    slot.probe.emplace(std::move(*probe));
  }

  const Target& target_;
  const CollectorOptions options_;
  OwnCgroup own_cgroup_;
  std::vector<Slot> probes_;
  std::optional<Membership> membership_;
  std::optional<Reader> reader_;
  bool loaded_ = false;
};

std::span<const Metric> metrics() {
  static const std::vector<Metric> all = [] {
    std::vector<Metric> list;
    for (const Description& description : descriptions())
      for (const ProbeMetric& metric : description.metrics) list.push_back(metric.exported);
    list.insert(list.end(), kOwn.begin(), kOwn.end());
    return list;
  }();
  return all;
}

std::unique_ptr<Collector> make(const Target& target, const CollectorOptions& options) {
  return std::make_unique<KernelCollector>(target, options);
}

}  // namespace

}  // namespace kernel

extern const CollectorInfo kernel_collector;
const CollectorInfo kernel_collector{"kernel", "what the kernel tells of the target by eBPF probes", kernel::metrics,
                                     kernel::make};

}  // namespace boxo
