// SPDX-License-Identifier: MIT OR Apache-2.0
// The target's sockets: states, queues, and for TCP round-trip times, bytes and retransmits, by sock_diag;
// where another network namespace is out of reach, what /proc/PID/net shows.
#include <algorithm>
#include <chrono>
#include <map>
#include <optional>

#include "collectors/collector.h"
#include "collectors/host/histogram.h"
#include "collectors/host/reading.h"
#include "collectors/host/sock_diag.h"
#include "collectors/host/socket_ledger.h"

namespace boxo {

extern const CollectorInfo sockets_collector;

namespace host {
namespace {

using Clock = std::chrono::steady_clock;

constexpr Metric kSockets{
    "boxo_network_sockets",
    MetricType::kGauge,
    "",
    "protocol,state",
    Source::kProc,
    "Open sockets of the target by protocol and state. The kernel does not list one that was never bound or "
    "connected."};
constexpr Metric kQueued{
    "boxo_network_socket_queue_bytes",
    MetricType::kGauge,
    "bytes",
    "protocol,direction",
    Source::kProc,
    "Bytes in the queues of the target's sockets: received and not read yet, sent and (with TCP) "
    "not acknowledged yet."};
constexpr Metric kAcceptQueue{"boxo_network_tcp_accept_queue",
                              MetricType::kGauge,
                              "",
                              "",
                              Source::kProc,
                              "Connections that are established and that the target has not accepted yet."};
constexpr Metric kAcceptUsage{"boxo_network_tcp_accept_queue_ratio",
                              MetricType::kGauge,
                              "ratio",
                              "",
                              Source::kProc,
                              "Accept queue over its limit, of the listening socket that is nearest to it."};
constexpr Metric kUdpDrops{
    "boxo_network_udp_drops_total",
    MetricType::kCounter,
    "",
    "reason",
    Source::kProc,
    "Datagrams that the target's UDP sockets did not take in. Reason socket: for the most part a "
    "full receive buffer, also bad checksums and filters."};
constexpr Metric kRtt{"boxo_network_tcp_rtt_seconds",
                      MetricType::kHistogram,
                      "seconds",
                      "",
                      Source::kProc,
                      "Smoothed round-trip time of every established TCP connection at each collection."};
constexpr Metric kBytes{
    "boxo_network_socket_bytes_total",
    MetricType::kCounter,
    "bytes",
    "protocol,direction",
    Source::kProc,
    "Payload bytes that the target's sockets sent (each byte once) and received. Here a connection "
    "that opens and closes between two collections is not seen."};
constexpr Metric kSegments{"boxo_network_tcp_segments_total",
                           MetricType::kCounter,
                           "",
                           "direction",
                           Source::kProc,
                           "TCP segments of the target's connections, those without payload included."};
constexpr Metric kRetransmits{"boxo_network_tcp_retransmits_total",
                              MetricType::kCounter,
                              "",
                              "",
                              Source::kProc,
                              "TCP segments that the target's connections sent again."};
constexpr Metric kActive{
    "boxo_network_active_connections",
    MetricType::kGauge,
    "",
    "",
    Source::kProc,
    "Connections to other nodes; without events from the application: established TCP connections."};
constexpr Metric kBandwidth{
    "boxo_network_bandwidth_bytes_per_second",
    MetricType::kGauge,
    "bytes per second",
    "",
    Source::kProc,
    "Bytes per second, both directions; without events from the application: of all TCP "
    "connections over the last interval."};
constexpr Metric kLatency{"boxo_network_latency_seconds",
                          MetricType::kHistogram,
                          "seconds",
                          "",
                          Source::kProc,
                          "Network latency; without events from the application: round-trip times as in "
                          "boxo_network_tcp_rtt_seconds."};
constexpr Metric kLoss{
    "boxo_network_packet_loss_rate",
    MetricType::kGauge,
    "ratio",
    "",
    Source::kProc,
    "Share of packets that were lost, 0 to 1; without events from the application: retransmitted over "
    "sent TCP segments of the last interval, 0 if nothing was sent."};
constexpr Metric kAll[] = {kSockets,  kQueued,      kAcceptQueue, kAcceptUsage, kUdpDrops, kRtt, kBytes,
                           kSegments, kRetransmits, kActive,      kBandwidth,   kLatency,  kLoss};

constexpr double kRttBounds[] = {.0001, .00025, .0005, .001, .0025, .005, .01, .025,
                                 .05,   .1,     .25,   .5,   1,     2.5,  5};
constexpr double kLatencyBounds[] = {.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5};

struct StateName {
  SocketState state;
  const char* name;
};
constexpr StateName kTcpStates[] = {
    {kEstablished, "established"}, {kSynSent, "syn_sent"},    {kFinWait1, "fin_wait1"},
    {kFinWait2, "fin_wait2"},      {kClosed, "closed"},       {kCloseWait, "close_wait"},
    {kLastAck, "last_ack"},        {kListening, "listening"}, {kClosing, "closing"}};
// Datagram sockets have no more than these two: with a fixed remote, and without.
constexpr StateName kUdpStates[] = {{kEstablished, "connected"}, {kClosed, "unconnected"}};
constexpr StateName kUnixStates[] = {
    {kEstablished, "connected"}, {kClosed, "unconnected"}, {kListening, "listening"}};

class SocketsCollector final : public Collector {
 public:
  explicit SocketsCollector(const Target& target) : target_(target) {}

  Result<> collect(Snapshot& out) override {
    const auto& processes = target_.processes();
    sockets_.clear();
    trouble_ = processes.empty() ? kNoTarget : "";
    details_trouble_.clear();
    if (!processes.empty()) read_namespaces(processes);
    const auto now = Clock::now();
    if (trouble_.empty()) {
      ledger_.update(processes, sockets_);
      trouble_ = ledger_.owner().trouble();
    }
    ever_ = ever_ || trouble_.empty();
    details_ever_ = details_ever_ || (trouble_.empty() && details_trouble_.empty());
    add_counters(out);
    if (!trouble_.empty()) {
      for (const Metric& metric : {kSockets, kQueued, kAcceptQueue, kAcceptUsage, kActive, kBandwidth, kLoss})
        out.absent(metric.name, trouble_);
      last_.reset();
      return {};
    }
    add_states(out);
    add_queues(out);
    if (details_trouble_.empty()) {
      add_rates(out, now);
    } else {
      for (const Metric& metric : {kBandwidth, kLoss}) out.absent(metric.name, details_trouble_);
      last_.reset();
    }
    return {};
  }

  std::vector<Capability> check() override {
    const bool works = ever_ && trouble_.empty();
    const std::string& details = trouble_.empty() ? details_trouble_ : trouble_;
    return {{"states", works, works ? details_trouble_.empty() ? "sock_diag" : "/proc/PID/net" : trouble_},
            {"tcp_info", works && details.empty(), details.empty() ? "sock_diag" : details}};
  }

 private:
  void read_namespaces(const std::vector<Process>& processes) {
    // Nearly always one; processes that are gone by now are in none.
    std::map<std::uint64_t, const Process*> namespaces;
    for (const Process& process : processes) {
      const auto ns = network_namespace(process.proc);
      if (ns)
        namespaces.emplace(*ns, &process);
      else if (!ended(process, ns.error()) && ns.error().code != ENOENT)
        trouble_ = reason(ns.error());
    }
    std::erase_if(diags_, [&namespaces](const auto& entry) { return !namespaces.contains(entry.first); });
    for (const auto& [ns, process] : namespaces) {
      if (auto done = read_diag(ns, *process); !done && !ended(*process, done.error())) {
        details_trouble_ = reason(done.error());
        if (auto tables = read_socket_tables(*process, sockets_); !tables && !ended(*process, tables.error()))
          trouble_ = reason(tables.error());
      }
    }
  }

  Result<> read_diag(std::uint64_t ns, const Process& process) {
    auto it = diags_.find(ns);
    if (it == diags_.end()) {
      auto opened = SockDiag::open(process);
      if (!opened) return opened.error();
      it = diags_.emplace(ns, std::move(*opened)).first;
    }
    const std::size_t before = sockets_.size();
    auto done = it->second.read(sockets_);
    if (!done) sockets_.resize(before);
    return done;
  }

  /// Counters stay while the target is down; they are absent if they never were there or cannot be read now.
  void add_counters(Snapshot& out) {
    if (ever_)
      out.add(kUdpDrops, total(SocketLedger::kDrops), {{"reason", "socket"}});
    else
      out.absent(kUdpDrops.name, trouble_);
    if (!details_ever_ || !details_trouble_.empty()) {
      for (const Metric& metric : {kRtt, kBytes, kSegments, kRetransmits, kLatency})
        out.absent(metric.name, details_trouble_.empty() ? trouble_ : details_trouble_);
      return;
    }
    if (trouble_.empty()) observe_round_trips();
    out.add(kRtt, rtt_.state());
    out.add(kLatency, latency_.state());
    out.add(kBytes, total(SocketLedger::kSent), {{"protocol", "tcp"}, {"direction", "sent"}});
    out.add(kBytes, total(SocketLedger::kReceived), {{"protocol", "tcp"}, {"direction", "received"}});
    out.add(kSegments, total(SocketLedger::kSegmentsOut), {{"direction", "sent"}});
    out.add(kSegments, total(SocketLedger::kSegmentsIn), {{"direction", "received"}});
    out.add(kRetransmits, total(SocketLedger::kRetransmits));
  }

  void observe_round_trips() {
    for (const Socket& socket : ledger_.own()) {
      if (socket.protocol != Protocol::kTcp || socket.state != kEstablished || socket.rtt_us == 0) continue;
      rtt_.observe(socket.rtt_us * 1e-6);
      latency_.observe(socket.rtt_us * 1e-6);
    }
  }

  void add_states(Snapshot& out) {
    std::array<std::array<std::uint64_t, kClosing + 1>, 3> counts{};
    for (const Socket& socket : ledger_.own())
      if (socket.state <= kClosing) ++counts[static_cast<std::size_t>(socket.protocol)][socket.state];
    const auto add = [&](Protocol protocol, const char* name, std::span<const StateName> states) {
      const auto& of = counts[static_cast<std::size_t>(protocol)];
      for (const StateName& state : states)
        out.add(kSockets, static_cast<double>(of[state.state]), {{"protocol", name}, {"state", state.name}});
    };
    add(Protocol::kTcp, "tcp", kTcpStates);
    add(Protocol::kUdp, "udp", kUdpStates);
    add(Protocol::kUnix, "unix", kUnixStates);
    out.add(kActive, static_cast<double>(counts[static_cast<std::size_t>(Protocol::kTcp)][kEstablished]));
  }

  void add_queues(Snapshot& out) {
    std::array<std::array<double, 2>, 2> queued{};
    double waiting = 0;
    double fullest = 0;
    bool listens = false;
    for (const Socket& socket : ledger_.own()) {
      if (socket.protocol == Protocol::kUnix) continue;
      if (socket.protocol == Protocol::kTcp && socket.state == kListening) {
        listens = true;
        waiting += socket.receive_queue;
        if (socket.send_queue > 0)
          fullest = std::max(fullest, static_cast<double>(socket.receive_queue) / socket.send_queue);
        continue;
      }
      auto& of = queued[static_cast<std::size_t>(socket.protocol)];
      of[0] += socket.send_queue;
      of[1] += socket.receive_queue;
    }
    for (const std::size_t protocol : {std::size_t{0}, std::size_t{1}}) {
      const char* name = protocol == 0 ? "tcp" : "udp";
      out.add(kQueued, queued[protocol][0], {{"protocol", name}, {"direction", "sent"}});
      out.add(kQueued, queued[protocol][1], {{"protocol", name}, {"direction", "received"}});
    }
    out.add(kAcceptQueue, waiting);
    if (details_trouble_.empty() && listens)
      out.add(kAcceptUsage, fullest);
    else
      out.absent(kAcceptUsage.name, listens ? details_trouble_ : "the target listens on no TCP socket");
  }

  void add_rates(Snapshot& out, Clock::time_point now) {
    const Reading reading{total(SocketLedger::kSent) + total(SocketLedger::kReceived),
                          total(SocketLedger::kSegmentsOut), total(SocketLedger::kRetransmits), now};
    const std::optional<Reading> before = std::exchange(last_, reading);
    if (!before || now <= before->at) {
      for (const Metric& metric : {kBandwidth, kLoss}) out.absent(metric.name, kFirstReading);
      return;
    }
    out.add(kBandwidth,
            (reading.bytes - before->bytes) / std::chrono::duration<double>(now - before->at).count());
    const double sent = reading.segments - before->segments;
    const double again = reading.retransmits - before->retransmits;
    out.add(kLoss, sent > 0 ? std::clamp(again / sent, 0.0, 1.0) : 0);
  }

  double total(SocketLedger::Total which) const { return static_cast<double>(ledger_.total(which)); }

  struct Reading {
    double bytes = 0;
    double segments = 0;
    double retransmits = 0;
    Clock::time_point at;
  };

  const Target& target_;
  std::map<std::uint64_t, SockDiag> diags_;
  std::vector<Socket> sockets_;
  SocketLedger ledger_;
  RunningHistogram rtt_{kRttBounds};
  RunningHistogram latency_{kLatencyBounds};
  std::optional<Reading> last_;
  std::string trouble_ = kNoTarget;
  std::string details_trouble_;
  bool ever_ = false;
  bool details_ever_ = false;
};

}  // namespace
}  // namespace host

const CollectorInfo sockets_collector{
    "sockets", "the target's TCP, UDP and Unix sockets", [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions&) -> std::unique_ptr<Collector> {
      return std::make_unique<host::SocketsCollector>(target);
    }};

}  // namespace boxo
