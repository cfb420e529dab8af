// SPDX-License-Identifier: MIT OR Apache-2.0
// The target's sockets: states, queues, and for TCP round-trip times, bytes and retransmits, by sock_diag;
// where another network namespace is out of reach, what /proc/PID/net shows.
#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <span>
#include <vector>

#include "collectors/collector.h"
#include "collectors/contract.h"
#include "collectors/histogram.h"
#include "collectors/host/pace.h"
#include "collectors/host/socket_ledger.h"
#include "collectors/host/socket_sources.h"
#include "collectors/members.h"
#include "collectors/reading.h"

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
    "Payload bytes that the target's sockets sent and received: of TCP each byte once, and what a connection had between "
    "two collections and its end only where the probe tcp is attached; of UDP, with QUIC, every datagram, where the probe "
    "udp is."};
constexpr Metric kSegments{"boxo_network_tcp_segments_total",
                           MetricType::kCounter,
                           "",
                           "direction",
                           Source::kProc,
                           "TCP segments of the target's connections, those without payload included; of what is between two collections as "
    "boxo_network_socket_bytes_total."};
constexpr Metric kRetransmits{"boxo_network_tcp_retransmits_total",
                              MetricType::kCounter,
                              "",
                              "",
                              Source::kProc,
                              "TCP segments that the target's connections sent again, without SYNs: what it dials and "
                              "nobody answers is in boxo_network_tcp_syn_retransmits_total."};
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
    "Bytes per second, both directions; without events from the application: of TCP and UDP (so of QUIC) as in "
    "boxo_network_socket_bytes_total, over the last interval; where that has no protocol=\"udp\", of TCP alone."};
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
    "sent TCP segments of the last interval, of those with payload; 0 if nothing was sent. A SYN that nobody answers is no "
    "such segment."};
constexpr Metric kAll[] = {kSockets,  kQueued,      kAcceptQueue, kAcceptUsage, kUdpDrops, kRtt, kBytes,
                           kSegments, kRetransmits, kActive,      kBandwidth,   kLatency,  kLoss};

/// What the BPF iterator tells as well. Of retransmits and drops probes tell more: they see the short-lived sockets too.
constexpr const Metric* kByReader[] = {&kSockets,  &kQueued, &kAcceptQueue, &kAcceptUsage, &kRtt, &kBytes,
                                       &kSegments, &kActive, &kBandwidth,   &kLatency,     &kLoss};

std::span<const Metric> list() {
  static const std::vector<Metric> all = [] {
    std::vector<Metric> metrics(std::begin(kAll), std::end(kAll));
    for (const Metric* metric : kByReader) metrics.push_back(from(Source::kKernel, *metric));
    return metrics;
  }();
  return all;
}

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
    const auto begin = TimeBudget::cpu_time();
    const auto subject = subject_of(target_, reader());
    age_ = {};
    take_ended();
    if (const auto now = Clock::now(); pace_.rests(subject, now)) {
      age_ = now - pace_.read_at();
      out = pace_.last();
      return {};
    }
    read(out);
    const auto end = Clock::now();
    const auto cost = TimeBudget::cpu_time() - begin;
    if (all_read())
      pace_.took(subject, looked_at_, end, cost, out);
    else
      pace_.failed(subject, looked_at_, end, cost, out);
    return {};
  }

  std::chrono::nanoseconds age() const override { return age_; }

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
    rows.push_back({"tcp_ended", unseen_ends_.empty(),
                    unseen_ends_.empty() ? "BPF probe tcp"
                                         : unseen_ends_ + "; what a connection has after the last collection in its life is not seen"});
    const auto bytes = datagrams();
    rows.push_back({"udp_bytes", static_cast<bool>(bytes),
                    bytes ? "BPF probe udp" : bytes.error().text() + "; the bandwidth is TCP's alone"});
    return rows;
  }

 private:
  void read(Snapshot& out) {
    look(target_.processes());
    ledger_.ended(ended_);
    ended_.clear();
    if (auto why = target_.shortage(); !why.empty()) trouble_.fill(why);
    const auto now = Clock::now();
    datagrams_ = datagrams();
    if (datagrams_) datagram_bytes_ = static_cast<double>(datagrams_->sent + datagrams_->received);
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
    for (const Metric* metric : kByReader)
      if (by_reader_ && out.find(metric->name) != nullptr) out.family(*metric).source = Source::kKernel;
  }

  KernelReader* reader() const { return handover_ ? handover_->reader : nullptr; }

  /// Brings the ledger up to date and finds out what of it holds.
  void look(const std::vector<Process>& processes) {
    trouble_.fill(processes.empty() ? kNoTarget : "");
    looked_at_ = 0;
    if (processes.empty()) {
      known_.clear();
      return;  // what was counted stays with the source that counted it
    }
    by_reader_ = read_own(processes);
    if (by_reader_) {
      looked_at_ = own_.size();
      return ledger_.update_own(own_, brought_);
    }
    sources_.read(processes);
    looked_at_ = sources_.sockets().size();
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
    if (reader() == nullptr) return false;
    own_.clear();
    brought_.clear();
    for (const Process& process : processes) {
      const std::size_t before = own_.size();
      if (!reader()->sockets(process.id.pid, own_)) return false;
      // The pid may have gone to another process meanwhile, but not while this one is there.
      if (!is_there(process)) own_.resize(before);
      if (process.ran_before && !std::binary_search(known_.begin(), known_.end(), process.id)) brought_.push_back({before, own_.size()});
    }
    known_.clear();
    for (const Process& process : processes)
      if (process.ran_before) known_.push_back(process.id);
    std::sort(known_.begin(), known_.end());
    return true;
  }

  /// Before the sockets are read: what has ended by then is not among them.
  void take_ended() {
    const auto taken = handover_ && handover_->ended ? handover_->ended(ended_) : Error{"only the probe tcp sees ends"};
    unseen_ends_ = taken ? std::string() : taken.error().text();
  }

  Result<DatagramBytes> datagrams() const {
    if (!handover_ || !handover_->datagrams) return Error{"only the probe udp counts them"};
    return handover_->datagrams();
  }

  const std::string& trouble(Protocol protocol) const { return trouble_[index_of(protocol)]; }
  bool all_read() const {
    return details_trouble().empty() &&
           std::all_of(trouble_.begin(), trouble_.end(), [](const std::string& one) { return one.empty(); });
  }
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
    if (datagrams_) {
      out.add(kBytes, static_cast<double>(datagrams_->sent), {{"protocol", "udp"}, {"direction", "sent"}});
      out.add(kBytes, static_cast<double>(datagrams_->received), {{"protocol", "udp"}, {"direction", "received"}});
    } else {
      out.absent(with_labels(kBytes.name, {{"protocol", "udp"}}), datagrams_.error().text());
    }
    out.add(kSegments, total(SocketLedger::kSegmentsOut), {{"direction", "sent"}});
    out.add(kSegments, total(SocketLedger::kSegmentsIn), {{"direction", "received"}});
    out.add(kRetransmits, total(SocketLedger::kRetransmits));
  }

  /// One protocol of several is missing, or all.
  void absent(Snapshot& out, const Metric& metric, Protocol protocol) const {
    const bool all = std::all_of(trouble_.begin(), trouble_.end(),
                                 [&](const auto& one) { return one == trouble(protocol); });
    const Labels row{{"protocol", kProtocolNames[index_of(protocol)]}};
    out.absent(all ? std::string(metric.name) : with_labels(metric.name, row), trouble(protocol));
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
    const Reading reading{total(SocketLedger::kSent) + total(SocketLedger::kReceived) + datagram_bytes_,
                          total(SocketLedger::kDataSegments), total(SocketLedger::kRetransmits), now};
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
  std::vector<Socket> ended_;  ///< connections that have ended since the last reading
  std::string unseen_ends_;    ///< why there are none; "" if there may be
  std::vector<SocketLedger::Range> brought_;  ///< of those: what processes had that ran before they came to the target
  std::vector<ProcessId> known_;  ///< of these processes, those that were looked at before
  bool by_reader_ = false;   ///< whether it told the last time
  std::size_t looked_at_ = 0;  ///< sockets, also those of others, at the last reading
  Pace pace_;
  std::chrono::nanoseconds age_{};
  SocketSources sources_;
  SocketLedger ledger_;
  Result<DatagramBytes> datagrams_ = Error{kNoTarget};
  double datagram_bytes_ = 0;  ///< as last told: the kernel begins to count at 0, and may cease to
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
    "sockets", "the target's TCP, UDP and Unix sockets", host::list,
    [](const Target& target, const CollectorOptions& options) -> std::unique_ptr<Collector> {
      return std::make_unique<host::SocketsCollector>(target, options);
    }};

}  // namespace boxo
