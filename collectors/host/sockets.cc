// SPDX-License-Identifier: MIT OR Apache-2.0
// The target's sockets: states, queues, and for TCP round-trip times, bytes and retransmits, by sock_diag;
// where another network namespace is out of reach, what /proc/PID/net shows.
#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <span>

#include "collectors/collector.h"
#include "collectors/host/histogram.h"
#include "collectors/host/reading.h"
#include "collectors/host/socket_ledger.h"
#include "collectors/host/socket_sources.h"
#include "collectors/members.h"

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
    "Datagrams that the target's UDP sockets did not take in, by the kernel's reason where it tells (a full receive buffer, "
    "UDP's memory limit, a bad checksum, a filter, IPsec policy), else all as socket."};
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
  SocketsCollector(const Target& target, const CollectorOptions& options)
      : target_(target), handover_(options.handover) {}

  Result<> collect(Snapshot& out) override {
    const auto& processes = target_.processes();
    look(processes);
    const auto now = Clock::now();
    for (const Protocol protocol : kProtocols) {
      const std::size_t i = index_of(protocol);
      ever_[i] = ever_[i] || trouble_[i].empty();
      details_ever_ = details_ever_ || (protocol == Protocol::kTcp && details_trouble().empty());
    }
    add_counters(out);
    add_states(out);
    add_queues(out);
    if (details_trouble().empty()) {
      add_rates(out, now);
    } else {
      for (const Metric& metric : {kBandwidth, kLoss}) out.absent(metric.name, details_trouble());
      last_.reset();
    }
    // Of retransmits and drops probes tell more: they see the short-lived sockets too.
    for (const Metric* metric : {&kSockets, &kQueued, &kAcceptQueue, &kAcceptUsage, &kRtt,
                                 &kBytes, &kSegments, &kActive, &kBandwidth, &kLatency, &kLoss})
      if (by_reader_ && out.find(metric->name) != nullptr) out.family(*metric).source = Source::kKernel;
    return {};
  }

  std::vector<Capability> check() override {
    std::vector<Capability> rows;
    for (const Protocol protocol : kProtocols) {
      const std::string& why = trouble(protocol);
      const std::string& no_diag = sources_.details_trouble(protocol);
      rows.push_back({kProtocolNames[index_of(protocol)], why.empty(),
                      !why.empty()      ? why
                      : by_reader_      ? "BPF iterator"
                      : no_diag.empty() ? "sock_diag"
                                        : "/proc/PID/net; " + no_diag});
    }
    rows.push_back({"tcp_info", details_trouble().empty(),
                    !details_trouble().empty() ? details_trouble()
                    : by_reader_               ? "BPF iterator"
                                               : "sock_diag"});
    return rows;
  }

 private:
  /// Brings the ledger up to date and finds out what of it holds.
  void look(const std::vector<Process>& processes) {
    trouble_.fill(processes.empty() ? kNoTarget : "");
    by_reader_ = !processes.empty() && read_own(processes);
    if (processes.empty()) return;
    if (by_reader_) return ledger_.update_own(own_);
    sources_.read(processes);
    SocketLedger::Complete complete{};
    for (const Protocol protocol : kProtocols) {
      trouble_[index_of(protocol)] = sources_.trouble(protocol);
      complete[index_of(protocol)] = sources_.trouble(protocol).empty();
    }
    ledger_.update(processes, sources_.sockets(), complete);
    if (!ledger_.owner().trouble().empty()) trouble_.fill(ledger_.owner().trouble());
  }

  /// The target's sockets alone, by the kernel's iterator; false if that does not tell.
  bool read_own(const std::vector<Process>& processes) {
    KernelReader* const reader = handover_ ? handover_->reader : nullptr;
    if (reader == nullptr) return false;
    own_.clear();
    for (const Process& process : processes) {
      const std::size_t before = own_.size();
      if (!reader->sockets(process.id.pid, own_)) return false;
      // The pid may have gone to another process meanwhile, but not while this one is there.
      if (!is_there(process)) own_.resize(before);
    }
    return true;
  }

  const std::string& trouble(Protocol protocol) const { return trouble_[index_of(protocol)]; }
  /// Why TCP has no details; "" if it has.
  const std::string& details_trouble() const {
    return trouble(Protocol::kTcp).empty() && !by_reader_ ? sources_.details_trouble(Protocol::kTcp)
                                                          : trouble(Protocol::kTcp);
  }

  /// Counters stay while the target is down; they are absent if they never were there or cannot be read now.
  void add_counters(Snapshot& out) {
    const std::string& udp = trouble(Protocol::kUdp);
    if (ever_[index_of(Protocol::kUdp)] && (udp.empty() || !target_.up()))
      out.add(kUdpDrops, total(SocketLedger::kDrops), {{"reason", "socket"}});
    else
      out.absent(kUdpDrops.name, udp);
    if (!details_ever_ || (target_.up() && !details_trouble().empty())) {
      for (const Metric& metric : {kRtt, kBytes, kSegments, kRetransmits, kLatency})
        out.absent(metric.name, details_trouble());
      return;
    }
    if (details_trouble().empty()) observe_round_trips();
    out.add(kRtt, rtt_.state());
    out.add(kLatency, latency_.state());
    out.add(kBytes, total(SocketLedger::kSent), {{"protocol", "tcp"}, {"direction", "sent"}});
    out.add(kBytes, total(SocketLedger::kReceived), {{"protocol", "tcp"}, {"direction", "received"}});
    out.add(kSegments, total(SocketLedger::kSegmentsOut), {{"direction", "sent"}});
    out.add(kSegments, total(SocketLedger::kSegmentsIn), {{"direction", "received"}});
    out.add(kRetransmits, total(SocketLedger::kRetransmits));
  }

  /// One protocol of several is missing; the reason says which.
  void absent(Snapshot& out, const Metric& metric, Protocol protocol) const {
    const bool all = std::all_of(trouble_.begin(), trouble_.end(),
                                 [&](const auto& one) { return one == trouble(protocol); });
    out.absent(metric.name, (all ? std::string() : kProtocolNames[index_of(protocol)] + std::string(": ")) +
                                trouble(protocol));
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
    const std::array<std::span<const StateName>, kProtocols.size()> states = {kTcpStates, kUdpStates,
                                                                              kUnixStates};
    for (const Protocol protocol : kProtocols) {
      const std::size_t i = index_of(protocol);
      if (!trouble_[i].empty()) {
        absent(out, kSockets, protocol);
        continue;
      }
      for (const StateName& state : states[i])
        out.add(kSockets, static_cast<double>(counts[i][state.state]),
                {{"protocol", kProtocolNames[i]}, {"state", state.name}});
    }
    if (trouble(Protocol::kTcp).empty())
      out.add(kActive, static_cast<double>(counts[index_of(Protocol::kTcp)][kEstablished]));
    else
      out.absent(kActive.name, trouble(Protocol::kTcp));
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
    for (const Protocol protocol : {Protocol::kTcp, Protocol::kUdp}) {
      const std::size_t i = index_of(protocol);
      if (!trouble_[i].empty()) {
        absent(out, kQueued, protocol);
        continue;
      }
      out.add(kQueued, queued[i][0], {{"protocol", kProtocolNames[i]}, {"direction", "sent"}});
      out.add(kQueued, queued[i][1], {{"protocol", kProtocolNames[i]}, {"direction", "received"}});
    }
    if (trouble(Protocol::kTcp).empty())
      out.add(kAcceptQueue, waiting);
    else
      out.absent(kAcceptQueue.name, trouble(Protocol::kTcp));
    if (details_trouble().empty() && listens)
      out.add(kAcceptUsage, fullest);
    else
      out.absent(kAcceptUsage.name,
                 details_trouble().empty() ? "the target listens on no TCP socket" : details_trouble());
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
  const std::shared_ptr<Handover> handover_;
  std::vector<Socket> own_;  ///< as the reader told them
  bool by_reader_ = false;   ///< whether it told the last time
  SocketSources sources_;
  SocketLedger ledger_;
  RunningHistogram rtt_{kRttBounds};
  RunningHistogram latency_{kLatencyBounds};
  std::optional<Reading> last_;
  std::array<std::string, kProtocols.size()> trouble_ = {kNoTarget, kNoTarget, kNoTarget};
  std::array<bool, kProtocols.size()> ever_{};
  bool details_ever_ = false;
};

}  // namespace
}  // namespace host

const CollectorInfo sockets_collector{
    "sockets", "the target's TCP, UDP and Unix sockets", [] { return std::span<const Metric>(host::kAll); },
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::SocketsCollector>(target, options);
    }};

}  // namespace boxo
