// SPDX-License-Identifier: MIT OR Apache-2.0
#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "collectors/collector.h"
#include "collectors/kernel/data_devices.h"
#include "collectors/kernel/membership.h"
#include "collectors/kernel/own_cgroup.h"
#include "collectors/kernel/packet_group.h"
#include "collectors/kernel/pid_namespace.h"
#include "collectors/kernel/probe.h"
#include "collectors/kernel/unclaimed.h"
#include "collectors/kernel/reader.h"
#include "collectors/kernel/run_time.h"
#include "collectors/kernel/windows.h"
#include "collectors/log.h"
#include "collectors/process_id.h"

namespace boxo {

namespace kernel {

namespace {

constexpr Metric kUp{"boxo_agent_probe_up", MetricType::kGauge, "", "probe", Source::kAgent,
                     "1 if the probe is attached, 0 if that failed; absent for one that is switched off or was not asked for. "
                     "boxo_agent_probe_info has the reason."};
constexpr Metric kInfo{"boxo_agent_probe_info", MetricType::kGauge, "", "probe,reason", Source::kAgent,
                       "Always 1; the reason why a probe is not attached, or how it is."};
constexpr Metric kSeconds{"boxo_agent_bpf_seconds_total", MetricType::kCounter, "seconds", "", Source::kAgent,
                          "CPU time of the agent's BPF programs, whichever process they interrupted; one run in 251 is timed."};
constexpr Metric kProbeSeconds{"boxo_agent_probe_seconds_total", MetricType::kCounter, "seconds", "probe",
                               Source::kAgent, "The part of boxo_agent_bpf_seconds_total that is this probe's."};
constexpr Metric kFull{"boxo_agent_map_full_total", MetricType::kCounter, "", "probe", Source::kAgent,
                       "Events that were not recorded because a map of the probe was full."};
constexpr Metric kMissed{"boxo_agent_probe_missed_total", MetricType::kCounter, "", "probe", Source::kAgent,
                         "Events at which the probe did not run because it was already running on that CPU."};
constexpr Metric kShare{"boxo_agent_probe_time_ratio", MetricType::kGauge, "ratio", "probe", Source::kAgent,
                        "Share of the time for which a probe is attached; what it counts is of that share only."};
constexpr std::array kOwn{kUp, kInfo, kSeconds, kProbeSeconds, kFull, kMissed, kShare};

/// "syscalls" of "syscalls:10%".
std::string_view name_part(std::string_view option) { return option.substr(0, option.find(':')); }

class KernelCollector : public Collector {
 public:
  KernelCollector(const Target& target, const CollectorOptions& options) : target_(target), options_(options), own_cgroup_(target) {
    for (const Description& description : descriptions()) {
      const std::string off = unwanted(description);
      probes_.push_back({.description = &description, .off = off, .reason = off});
    }
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
    if (membership_ && !in_step_) synced = sync();
    in_step_ = false;
    double seconds = 0;
    const std::string shortage = target_.shortage();
    if (membership_ && options_.handover) data_.update(probes_.front().probe->map_fd("data_devices"), options_.handover->data);
    const Setting setting{own_cgroup_.trouble(), data_.trouble(), data_.filesystem()};
    for (Slot& slot : probes_) {
      if (slot.probe && !shortage.empty())
        for (const ProbeMetric& metric : slot.description->metrics) out.absent(metric.exported.name, shortage);
      else if (slot.probe && slot.outside.empty())
        if (auto read = slot.probe->collect(out, setting); !read) refuse(slot, read.error().text());
      report(slot, out);
      if (!slot.probe) continue;
      const RunStats stats = slot.probe->stats();
      const Labels labels{{"probe", std::string(slot.description->object.name)}};
      slot.run_time.update(stats);
      seconds += slot.run_time.seconds();
      out.add(kProbeSeconds, slot.run_time.seconds(), labels);
      if (stats.missed)
        out.add(kMissed, static_cast<double>(*stats.missed), labels);
      else
        out.absent(kMissed.name, "this kernel does not count them; Linux 5.12 and later do");
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
                      slot.probe ? slot.description->help + remark(slot) : slot.reason});
    return rows;
  }

 private:
  struct Slot {
    const Description* description;
    std::string off;  ///< why nobody wants it; empty if it is wanted
    std::optional<Probe> probe{};
    std::string reason;
    Windows windows{};
    bool attached = false;
    RunTime run_time{};
    std::optional<PacketGroup> packets{};  ///< of a probe that counts in a cgroup
    bool anew = false;                     ///< it is where it was not before, and has to remember() what it finds
    std::string outside{};                 ///< why what it counts there is not all of the target's
  };

  /// A probe that counts in a cgroup goes with the target.
  static void follow(Slot& slot) {
    if (!slot.probe || !slot.packets || !slot.attached) return;
    const auto followed = slot.packets->follow(*slot.probe);
    slot.anew |= followed && *followed;
    if (followed) return;
    slot.outside = "the target's cgroup of version 2: " + followed.error().text();
    // Gone between two looks: the next one tells.
    if (const int code = followed.error().code; code != ESRCH && code != ENOENT && code != ENODEV) refuse(slot, slot.outside);
  }

  /// And to where all of the target is below it: each time there may be more that it had not seen.
  Result<> settle(Slot& slot) const {
    while (slot.probe && slot.packets && slot.packets->inside() && target_.main() != nullptr) {
      const auto moved = slot.packets->settle(*slot.probe);
      slot.outside = moved ? std::string() : moved.error().text();
      if (!moved && moved.error().code == EPERM) refuse(slot, slot.outside);
      if (!moved || !*moved) return {};
      log_info("probe " + std::string(slot.description->object.name) + ": counts in cgroup " + slot.packets->path() +
               ", the nearest above all of the target");
      slot.anew = true;
      if (auto remembered = remember(slot); !remembered) return remembered;
    }
    return {};
  }

  static Result<> remember(Slot& slot) {
    auto remembered = slot.probe ? slot.probe->remember() : Result<>();
    if (remembered) slot.anew = false;
    return remembered;
  }

  /// What the iterators can read is there for the other collectors from the next collection on.
  void hand_over() {
    const auto slot = named("readers");
    if (slot == probes_.end() || !options_.handover) return;
    if (slot->probe && !reader_ && membership_) {
      reader_.emplace(*slot->probe, *membership_);
      if (auto works = reader_->check(); !works) refuse(*slot, works.error().text());
    }
    if (!slot->probe) reader_.reset();
    options_.handover->reader = reader_ ? &*reader_ : nullptr;
    options_.handover->forks = [this]() -> std::optional<Forks> {
      return membership_ && probes_.front().attached ? membership_->forks() : std::nullopt;
    };
    options_.handover->born = [this] { return membership_ ? membership_->born() : std::vector<pid_t>(); };
    options_.handover->datagrams = [this] { return datagrams(); };
    options_.handover->ended = [this](std::vector<Socket>& out) { return ended(out); };
    options_.handover->ends = [this] { return ends(); };
  }

  std::vector<Slot>::iterator named(std::string_view name) {
    return std::ranges::find_if(probes_, [&](const Slot& one) { return one.description->object.name == name; });
  }

  Result<DatagramBytes> datagrams() {
    const auto slot = named("udp");
    if (slot == probes_.end()) return Error{"no probe udp"};
    if (!slot->probe) return Error{"probe udp: " + slot->reason};
    if (!slot->outside.empty()) return Error{"probe udp: " + slot->outside};
    if (slot->windows.share() < 1) return Error{"probe udp: attached for a part of the time only"};
    if (!slot->packets->inside()) return Error{"probe udp: not in the target's cgroup yet"};
    const auto sent = slot->probe->counter("udp_bytes", 0);
    const auto received = slot->probe->counter("udp_bytes", 1);
    if (!sent || !received) return sent ? received.error() : sent.error();
    return DatagramBytes{*sent, *received};
  }

  Result<> ended(std::vector<Socket>& out) {
    const auto slot = named("tcp");
    if (slot == probes_.end()) return Error{"no probe tcp"};
    if (!slot->probe) return Error{"probe tcp: " + slot->reason};
    return read_ended(*slot->probe, out);
  }

  /// Nothing for good once it does not hold for every process: what was left out meanwhile nobody could tell.
  std::optional<Ends> ends() {
    const auto slot = named("endings");
    if (slot == probes_.end() || !slot->probe || !slot->attached || !membership_ || !probes_.front().attached || lost_ends_)
      return std::nullopt;
    Ends ends;
    Result<> followed = sync();
    in_step_ = static_cast<bool>(followed);
    if (followed && membership_->full() != 0) followed = Error{"a map of the probe members was full"};
    if (followed) followed = read_unclaimed(*slot->probe, ends.unclaimed);
    if (!followed) {
      lost_ends_ = true;
      refuse(*slot, "not every end of a process could be followed: " + followed.error().text());
      return std::nullopt;
    }
    ends.seen = membership_->take_ends_seen();
    return ends;
  }

  Result<> sync() {
    own_cgroup_.update();
    // Before the set of processes is brought up to date and their open sockets are looked at: none is missed then.
    for (Slot& slot : probes_) follow(slot);
    membership_->set_cgroups(own_cgroup_.memory(), own_cgroup_.io());
    auto unknown = membership_->sync(target_);
    if (!unknown) return unknown.error();
    for (Slot& slot : probes_)
      if (*unknown || slot.anew)
        if (auto remembered = remember(slot); !remembered) return remembered;
    for (Slot& slot : probes_)
      if (auto settled = settle(slot); !settled) return settled;
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
    if (slot.probe || slot.off.empty()) out.add(kUp, slot.probe ? 1 : 0, {{"probe", name}});
    const std::string& reason = slot.probe ? slot.outside : slot.reason;
    out.add(kInfo, 1, {{"probe", name}, {"reason", reason.empty() ? "attached" + remark(slot) : reason}});
    if (slot.probe) out.add(kShare, slot.windows.share(), {{"probe", name}});
    if (reason.empty()) return;
    for (const ProbeMetric& metric : slot.description->metrics) out.absent(metric.exported.name, reason);
  }

  /// Attaches or detaches a probe that works only for a share of the intervals.
  void take_turn(Slot& slot) {
    const bool now = slot.windows.next();
    if (now == slot.attached) return;
    slot.attached = now;
    if (!now) {
      if (slot.packets) slot.packets->leave();
      return slot.probe->detach();
    }
    membership_->attached_now();
    if (auto attached = slot.probe->attach(); !attached) refuse(slot, attached.error().text());
  }

  /// Why this probe is not to be loaded; empty if it is.
  std::string unwanted(const Description& description) const {
    if (!options_.bpf) return "switched off with --no-bpf";
    const auto names = [&](const std::string& option) { return name_part(option) == description.object.name; };
    if (std::ranges::any_of(options_.probes_off, names)) return "switched off with --no-probe";
    if (description.on_request && std::ranges::none_of(options_.probes_on, names))
      return "only with --probe " + std::string(description.object.name);
    return {};
  }

  void none(const std::string& reason) {
    for (Slot& slot : probes_) slot.reason = slot.off.empty() ? reason : slot.off;
  }

  void load() {
    if (!options_.bpf) return;
    if (auto numbered = numbers_as_agent(target_.proc_root()); !numbered) {
      none(numbered.error().text());
      return log_warn("kernel probes are off: " + numbered.error().text());
    }
    auto types = KernelTypes::read();
    if (!types) {
      none(types.error().text());
      return log_warn("kernel probes are off: " + types.error().text());
    }
    // libbpf reads the kernel's types once more for every probe: the same megabytes serve for all, instead of being given
    // back and taken anew, page by page.
    ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
    ::mallopt(M_TRIM_THRESHOLD, 64 << 20);
    struct stat pidns {};
    if (::stat("/proc/self/ns/pid", &pidns) != 0) pidns.st_ino = kFirstPidNamespace;
    LoadContext context{&*types, {}, true, static_cast<std::uint32_t>(pidns.st_ino), options_.events.peers};
    if (const std::string reason = load_members(context); !reason.empty()) {
      none(reason);
      log_warn("kernel probes are off: " + reason);
    } else {
      for (Slot& slot : probes_)
        if (!slot.probe) load_one(slot, context);
    }
    // Loading needs them, running does not.
    ::mallopt(M_TRIM_THRESHOLD, 1 << 20);
    ::malloc_trim(0);
  }

  /// The first probe makes the maps that all share. Returns why that failed.
  std::string load_members(LoadContext& context) {
    Slot& slot = probes_.front();
    auto probe = kernel::load_members(*slot.description, context);
    if (!probe) return probe.error().text();
    slot.probe.emplace(std::move(*probe));
    auto membership = Membership::make(*slot.probe, context.pidns == kFirstPidNamespace);
    if (!membership) {
      slot.probe.reset();
      return membership.error().text();
    }
    membership_.emplace(std::move(*membership));
    return {};
  }

  static std::string remark(const Slot& slot) {
    if (!slot.probe || !slot.probe->slower()) return {};
    return "; slower than it could be, without bpf_rdonly_cast: " + slot.probe->slower()->text();
  }

  void load_one(Slot& slot, const LoadContext& context) {
    if (!slot.off.empty()) return;
    for (const std::string& option : options_.probes_on)
      if (name_part(option) == slot.description->object.name) slot.windows = Windows(share_of(option).value_or(1));
    auto probe = Probe::load(*slot.description, context);
    if (!probe) return refuse(slot, probe.error().text());
    slot.probe.emplace(std::move(*probe));
    if (slot.probe->in_cgroup()) slot.packets.emplace(target_, options_.cgroup_root);
  }

  const Target& target_;
  const CollectorOptions options_;
  OwnCgroup own_cgroup_;
  DataDevices data_;
  std::vector<Slot> probes_;
  std::optional<Membership> membership_;
  std::optional<Reader> reader_;
  bool loaded_ = false;
  bool in_step_ = false;    ///< with what Target knows in this tick: once, as members that it lacks get one more tick
  bool lost_ends_ = false;  ///< the end of some process was not followed
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
