// SPDX-License-Identifier: MIT OR Apache-2.0
// What the target's network namespace counts: its interfaces and its protocols, from /proc/PID/net. Only of a namespace of
// its own (a container's, a pod's): the host's counts are everybody's.
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <map>
#include <optional>

#include "collectors/collector.h"
#include "collectors/host/continued.h"
#include "collectors/host/netns.h"
#include "collectors/host/text.h"
#include "collectors/process_id.h"
#include "collectors/reading.h"

namespace boxo {

extern const CollectorInfo netns_collector;

namespace host {
namespace {

constexpr const char* kDirection = "interface,direction";
constexpr Metric kBytes{"boxo_network_interface_bytes_total",
                        MetricType::kCounter,
                        "bytes",
                        kDirection,
                        Source::kProc,
                        "Bytes through an interface of the target's network namespace, headers included: of everybody in the "
                        "namespace, in Kubernetes the pod; of more than 64 interfaces the rest as other. Absent where that is the host's."};
constexpr Metric kPackets{"boxo_network_interface_packets_total", MetricType::kCounter, "", kDirection, Source::kProc,
                          "Packets, likewise."};
constexpr Metric kErrors{"boxo_network_interface_errors_total", MetricType::kCounter, "", kDirection, Source::kProc,
                         "Packets that were broken or could not be sent, likewise."};
constexpr Metric kDrops{"boxo_network_interface_drops_total", MetricType::kCounter, "", kDirection, Source::kProc,
                        "Packets that were dropped for lack of room or because nobody wanted them, likewise."};
constexpr Metric kEvents{
    "boxo_network_namespace_events_total",
    MetricType::kCounter,
    "",
    "event",
    Source::kProc,
    "What the protocols of the target's network namespace count of trouble: full accept queues, timeouts, full buffers, lack of "
    "memory. Of everybody in the namespace; absent where that is the host's."};
constexpr Metric kAll[] = {kBytes, kPackets, kErrors, kDrops, kEvents};

constexpr std::size_t kLargest = 1 << 20;

/// A name in net/netstat or net/snmp ("Udp:" "RcvbufErrors"), and one in net/snmp6 that is added; "" for none.
struct Event {
  const char* name;
  std::string_view group;
  std::string_view counter;
  std::string_view also;
};
constexpr Event kCounted[] = {{"listen_overflow", "TcpExt:", "ListenOverflows", ""},
                              {"listen_drop", "TcpExt:", "ListenDrops", ""},
                              {"tcp_timeout", "TcpExt:", "TCPTimeouts", ""},
                              {"tcp_loss_probe", "TcpExt:", "TCPLossProbes", ""},
                              {"tcp_abort_on_memory", "TcpExt:", "TCPAbortOnMemory", ""},
                              {"tcp_abort_on_timeout", "TcpExt:", "TCPAbortOnTimeout", ""},
                              {"tcp_backlog_drop", "TcpExt:", "TCPBacklogDrop", ""},
                              {"tcp_receive_queue_drop", "TcpExt:", "TCPRcvQDrop", ""},
                              {"udp_receive_buffer_full", "Udp:", "RcvbufErrors", "Udp6RcvbufErrors"},
                              {"udp_send_buffer_full", "Udp:", "SndbufErrors", "Udp6SndbufErrors"},
                              {"udp_bad_checksum", "Udp:", "InCsumErrors", "Udp6InCsumErrors"},
                              {"ip_no_route", "Ip:", "OutNoRoutes", "Ip6OutNoRoutes"},
                              {"ip_reassembly_failure", "Ip:", "ReasmFails", "Ip6ReasmFails"}};

/// Which namespace a process is in: stat, unlike reading ns/net, needs no privilege.
std::optional<std::uint64_t> namespace_of(const Dir& process) {
  struct stat info {};
  if (::fstatat(process.fd(), "net/dev", &info, 0) != 0) return std::nullopt;
  return info.st_ino;
}

class NetnsCollector final : public Collector {
 public:
  explicit NetnsCollector(const Target& target) : target_(target) {}

  Result<> collect(Snapshot& out) override {
    trouble_ = read();
    if (!trouble_.empty() && target_.up()) {
      for (const Metric& metric : kAll) out.absent(metric.name, trouble_);
      return {};
    }
    interfaces_.each([&out](const std::string& name, const auto& total) {
      for (std::size_t direction = 0; direction < 2; ++direction) {
        const Labels labels = {{"interface", name}, {"direction", direction == 0 ? "received" : "sent"}};
        const std::size_t first = direction * InterfaceCounts::kEach;
        out.add(kBytes, static_cast<double>(total[first]), labels);
        out.add(kPackets, static_cast<double>(total[first + 1]), labels);
        out.add(kErrors, static_cast<double>(total[first + 2]), labels);
        out.add(kDrops, static_cast<double>(total[first + 3]), labels);
      }
    });
    for (const auto& [name, counter] : events_) out.add(kEvents, static_cast<double>(counter.total()[0]), {{"event", name}});
    const std::string why = trouble_.empty() ? "the kernel does not tell" : trouble_;
    for (const Metric& metric : kAll)
      if (out.find(metric.name) == nullptr) out.absent(metric.name, why);
    return {};
  }

  std::vector<Capability> check() override {
    return {{"interfaces", trouble_.empty(), trouble_.empty() ? "/proc/PID/net" : trouble_}};
  }

 private:
  /// Takes in what the namespace counts now. Returns why that is not possible; "" if it is.
  std::string read() {
    const Process* const main = target_.main();
    if (main == nullptr) return kNoTarget;
    const auto place = namespace_of(main->shared());
    if (!place) return reason(errno_error("net/dev"));
    if (is_hosts(*place)) return "the target is in the host's network namespace, whose counts are everybody's";
    const auto devices = main->shared().read("net/dev", kLargest);
    if (!devices) return reason(devices.error());
    decltype(interfaces_)::Reading interfaces;
    for (const auto& [name, counts] : parse_interfaces(*devices)) interfaces.emplace(name, counts.values);
    interfaces_.update(*place, interfaces);
    const auto text = [main](const char* name) {
      auto read = main->shared().read(name, kLargest);
      return read ? std::move(*read) : std::string();
    };
    const std::string protocols = text("net/netstat") + text("net/snmp");
    const auto protocols6 = main->shared().read("net/snmp6", kLargest);
    for (const Event& event : kCounted) {
      const auto count = protocol_counter(protocols, event.group, event.counter);
      if (!count) continue;
      // Without IPv6 there is no such file; one that cannot be read for a moment must not look like a step back.
      if (!protocols6 && protocols6.error().code != ENOENT && !event.also.empty()) continue;
      const auto more = protocols6 && !event.also.empty() ? number_of(*protocols6, event.also) : std::nullopt;
      events_[event.name].update(*place, {*count + more.value_or(0)});
    }
    return {};
  }

  /// Some settings show in the machine's first namespace only; another one than the agent's is that of the machine's
  /// process 1, if the agent sees that.
  bool is_hosts(std::uint64_t place) const {
    const Dir& proc = target_.proc_root();
    const auto at = [&proc](const char* pid) {
      const auto process = proc.dir(pid);
      return process ? namespace_of(*process) : std::nullopt;
    };
    if (place == at("self")) return static_cast<bool>(proc.file("sys/net/core/netdev_max_backlog"));
    struct stat pids {};
    const bool all_pids = ::fstatat(proc.fd(), "self/ns/pid", &pids, 0) == 0 && pids.st_ino == kFirstPidNamespace;
    return all_pids && place == at("1");
  }

  const Target& target_;
  ContinuedByName<2 * InterfaceCounts::kEach> interfaces_;
  std::map<std::string, Continued<1>, std::less<>> events_;
  std::string trouble_ = kNoTarget;
};

}  // namespace

std::vector<std::pair<std::string, InterfaceCounts>> parse_interfaces(std::string_view net_dev) {
  // Eight columns each way; bytes, packets, errors and drops are the first four.
  constexpr std::size_t kColumns = 8;
  std::vector<std::pair<std::string, InterfaceCounts>> found;
  while (!net_dev.empty()) {
    std::string_view line = next_line(net_dev);
    const std::size_t colon = line.rfind(':');
    if (colon == std::string_view::npos) continue;
    std::string_view name = line.substr(0, colon);
    name.remove_prefix(std::min(name.find_first_not_of(' '), name.size()));
    std::string_view rest = line.substr(colon + 1);
    InterfaceCounts counts;
    bool whole = !name.empty();
    for (std::size_t i = 0; whole && i < 2 * kColumns; ++i) {
      const auto value = to_number(next_word(rest));
      whole = value.has_value();
      if (whole && i % kColumns < InterfaceCounts::kEach)
        counts.values[i / kColumns * InterfaceCounts::kEach + i % kColumns] = *value;
    }
    if (whole) found.emplace_back(name, counts);
  }
  return found;
}

std::optional<std::uint64_t> protocol_counter(std::string_view text, std::string_view group, std::string_view name) {
  while (!text.empty()) {
    std::string_view names = next_line(text);
    if (next_word(names) != group) continue;
    std::string_view values = next_line(text);
    if (next_word(values) != group) return std::nullopt;
    while (!names.empty()) {
      const std::string_view value = next_word(values);
      if (next_word(names) == name) return to_number(value);
    }
  }
  return std::nullopt;
}

}  // namespace host

const CollectorInfo netns_collector{
    "netns", "interfaces and protocols of the target's network namespace",
    [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions&) -> std::unique_ptr<Collector> {
      return std::make_unique<host::NetnsCollector>(target);
    }};

}  // namespace boxo
