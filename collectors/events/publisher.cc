// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/publisher.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <string>

namespace boxo::events {

namespace {

constexpr Metric counter(std::string_view name, std::string_view unit, std::string_view help,
                         std::string_view labels = {}, Source source = Source::kApp) {
  return {name, MetricType::kCounter, unit, labels, source, help};
}
constexpr Metric gauge(std::string_view name, std::string_view unit, std::string_view help,
                       std::string_view labels = {}, Source source = Source::kApp) {
  return {name, MetricType::kGauge, unit, labels, source, help};
}
constexpr Metric histogram(std::string_view name, std::string_view help) {
  return {name, MetricType::kHistogram, "seconds", {}, Source::kApp, help};
}

// The places of those that are not simply a Count or a Level, in kMetrics.
enum Row : std::size_t {
  kFirstCount = 0,
  kFirstLevel = kFirstCount + kCounts,
  kFirstHistogram = kFirstLevel + kLevels,  // of each Timing but kBandwidth
  kFirstStatistic = kFirstHistogram + 5,    // average, p95, p99 of the first four Timings
  kResponses = kFirstStatistic + 12,
  kErrorRate,
  kRequestsPerSecond,
  kHitRate,
  kBatchesPerSecond,
  kBandwidth,
  kLossRate,
  kPeerSent,
  kPeerReceived,
  kPeerErrors,
  kPeerLatency,
  kPeerBandwidth,
  kReceived,
  kRejected,
  kDropped,
  kSeriesDropped,
  kQueueBytes,
  kQueuePeak,
  kAcceptFailures,
  kCpu,
  kRows
};

constexpr Metric kMetrics[] = {
    // Count
    counter("boxo_bitswap_requests_total", "", "Blocks requested over Bitswap."),
    counter("boxo_bitswap_errors_total", "", "Bitswap responses that were errors."),
    counter("boxo_bitswap_blocks_received_total", "", "Blocks received over Bitswap, duplicates included."),
    counter("boxo_bitswap_blocks_duplicated_total", "",
            "Blocks received over Bitswap that the node had already."),
    counter("boxo_bitswap_blocks_sent_total", "", "Blocks sent over Bitswap."),
    counter("boxo_blockstore_cache_hits_total", "", "Lookups that the block cache answered."),
    counter("boxo_blockstore_cache_misses_total", "", "Lookups that the block cache could not answer."),
    counter("boxo_blockstore_batch_operations_total", "", "Batch operations of the block store."),
    counter("boxo_network_bytes_sent_total", "bytes", "Bytes sent to peers."),
    counter("boxo_network_bytes_received_total", "bytes", "Bytes received from peers."),
    counter("boxo_network_connection_errors_total", "", "Connections that failed."),
    counter("boxo_network_packets_sent_total", "", "Packets sent."),
    counter("boxo_network_packets_lost_total", "", "Packets lost."),
    counter("boxo_resource_gc_cycles_total", "", "Garbage collections."),
    // Level
    gauge("boxo_bitswap_active_connections", "", "Peers connected over Bitswap."),
    gauge("boxo_bitswap_queued_requests", "", "Bitswap requests that wait."),
    gauge("boxo_blockstore_total_blocks", "", "Blocks in the block store."),
    gauge("boxo_blockstore_compression_ratio", "ratio",
          "Compressed over original size of the stored blocks."),
    gauge("boxo_blockstore_storage_bytes", "bytes", "Bytes that the block store holds."),
    gauge("boxo_blockstore_cache_size_bytes", "bytes", "Bytes that the block cache holds."),
    gauge("boxo_network_active_connections", "", "Open connections to peers."),
    gauge("boxo_resource_cpu_usage_percent", "percent", "CPU time used in the last interval, of one CPU."),
    gauge("boxo_resource_disk_usage_bytes", "bytes", "Bytes used on the file system of the data."),
    gauge("boxo_resource_disk_total_bytes", "bytes", "Size of the file system of the data."),
    gauge("boxo_resource_goroutines_total", "", "Goroutines (a gauge in spite of its name)."),
    gauge("boxo_resource_heap_bytes", "bytes", "Bytes of the heap in use."),
    // Timing
    histogram("boxo_bitswap_response_time_seconds", "Time from a Bitswap request to the block."),
    histogram("boxo_blockstore_read_latency_seconds", "Time of a read from the block store."),
    histogram("boxo_blockstore_write_latency_seconds", "Time of a write to the block store."),
    histogram("boxo_network_latency_seconds", "Round-trip time to peers."),
    histogram("boxo_resource_gc_pause_seconds", "Time for which garbage collection stopped the program."),
    gauge("boxo_bitswap_response_time_average_seconds", "seconds",
          "Mean of the last response times (--history)."),
    gauge("boxo_bitswap_response_time_p95_seconds", "seconds", "95th percentile of the last response times."),
    gauge("boxo_bitswap_response_time_p99_seconds", "seconds", "99th percentile of the last response times."),
    gauge("boxo_blockstore_read_latency_average_seconds", "seconds",
          "Mean of the last read latencies (--history)."),
    gauge("boxo_blockstore_read_latency_p95_seconds", "seconds",
          "95th percentile of the last read latencies."),
    gauge("boxo_blockstore_read_latency_p99_seconds", "seconds",
          "99th percentile of the last read latencies."),
    gauge("boxo_blockstore_write_latency_average_seconds", "seconds",
          "Mean of the last write latencies (--history)."),
    gauge("boxo_blockstore_write_latency_p95_seconds", "seconds",
          "95th percentile of the last write latencies."),
    gauge("boxo_blockstore_write_latency_p99_seconds", "seconds",
          "99th percentile of the last write latencies."),
    gauge("boxo_network_latency_average_seconds", "seconds", "Mean of the last latencies (--history)."),
    gauge("boxo_network_latency_p95_seconds", "seconds", "95th percentile of the last latencies."),
    gauge("boxo_network_latency_p99_seconds", "seconds", "99th percentile of the last latencies."),
    // The rest, in the order of Row
    counter("boxo_bitswap_responses_total", "", "Bitswap responses, errors included."),
    gauge("boxo_bitswap_error_rate", "ratio", "Share of errors among the last responses (--history)."),
    gauge("boxo_bitswap_requests_per_second", "", "Bitswap requests per second in the last interval."),
    gauge("boxo_blockstore_cache_hit_rate", "ratio", "Share of hits among the last lookups (--history)."),
    gauge("boxo_blockstore_batch_operations_per_second", "",
          "Batch operations per second in the last interval."),
    gauge("boxo_network_bandwidth_bytes_per_second", "bytes",
          "Mean of the last bandwidth samples (a tenth of --history)."),
    gauge("boxo_network_packet_loss_rate", "ratio", "Share of lost among the last packets sent (--history)."),
    counter("boxo_network_peer_bytes_sent_total", "bytes", "Bytes sent to a peer.", "peer"),
    counter("boxo_network_peer_bytes_received_total", "bytes", "Bytes received from a peer.", "peer"),
    counter("boxo_network_peer_errors_total", "", "Connections to a peer that failed.", "peer"),
    gauge("boxo_network_peer_latency_seconds", "seconds", "Mean of the last latencies of a peer (--history).",
          "peer"),
    gauge("boxo_network_peer_bandwidth_bytes_per_second", "bytes",
          "Mean of the last bandwidth samples of a peer (a tenth of --history).", "peer"),
    counter("boxo_agent_events_received_total", "", "Event lines that arrived, rejected ones included.", "",
            Source::kAgent),
    counter("boxo_agent_events_rejected_total", "", "Event lines that were not counted.", "reason",
            Source::kAgent),
    counter(
        "boxo_agent_events_dropped_total", "",
        "What was lost before it arrived: missing datagrams (sequence), and what clients say they dropped.",
        "reason", Source::kAgent),
    counter("boxo_agent_series_dropped_total", "",
            "Event lines not counted for lack of room for another series (--series).", "family",
            Source::kAgent),
    gauge("boxo_agent_events_queue_bytes", "bytes",
          "Bytes that wait: those of all stream connections and of the next datagram.", "", Source::kAgent),
    gauge("boxo_agent_events_queue_peak_datagrams", "",
          "Most datagrams received at one go in the last interval, at most 32: so many were waiting.", "",
          Source::kAgent),
    counter("boxo_agent_events_accept_failures_total", "",
            "Times that a connection to --events-stream could not be accepted, for lack of descriptors or "
            "memory; it "
            "waits for another second.",
            "", Source::kAgent),
    counter("boxo_agent_events_cpu_seconds_total", "seconds", "CPU time of the thread that receives events.",
            "", Source::kAgent),
};
static_assert(std::size(kMetrics) == kRows);

constexpr std::string_view kOtherFamilies = "other";

const Cell& cell_of(const Reading& reading, Count which) {
  return reading.counts[static_cast<std::size_t>(which)];
}
const TimingReading& timing_of(const Reading& reading, Timing which) {
  return reading.timings[static_cast<std::size_t>(which)];
}

void add_counts(const Reading& reading, Snapshot& out) {
  for (std::size_t i = 0; i < kCounts; ++i) {
    bool seen = reading.counts[i].seen;
    // These are counted beside others: zero of them is known as soon as there is one of the others.
    if (static_cast<Count>(i) == Count::kResponseErrors) seen = timing_of(reading, Timing::kResponse).seen;
    if (static_cast<Count>(i) == Count::kBlocksDuplicated)
      seen = reading.counts[static_cast<std::size_t>(Count::kBlocksReceived)].seen;
    if (seen) out.add(kMetrics[kFirstCount + i], reading.counts[i].value);
  }
  for (std::size_t i = 0; i < kLevels; ++i)
    if (reading.levels[i].seen) out.add(kMetrics[kFirstLevel + i], reading.levels[i].value);
}

void add_timings(Reading& reading, Snapshot& out) {
  for (std::size_t i = 0; i < kTimings; ++i) {
    TimingReading& timing = reading.timings[i];
    if (!timing.seen) continue;
    const bool is_fresh = !timing.values.empty() && reading.is_fresh(timing.last);
    if (static_cast<Timing>(i) == Timing::kBandwidth) {
      if (is_fresh) out.add(kMetrics[kBandwidth], statistics(timing.values, timing.weights).mean);
      continue;
    }
    Histogram exported = timing.tally.exported();
    if (static_cast<Timing>(i) == Timing::kResponse)
      out.add(kMetrics[kResponses], static_cast<double>(std::accumulate(
                                        exported.counts.begin(), exported.counts.end(), std::uint64_t{0})));
    out.add(kMetrics[kFirstHistogram + i], std::move(exported));
    if (static_cast<Timing>(i) == Timing::kGcPause || !is_fresh) continue;
    const Statistics found = statistics(timing.values, timing.weights);
    const double unit = timing.tally.buckets->unit;
    const std::size_t row = kFirstStatistic + 3 * i;
    out.add(kMetrics[row], found.mean / unit);
    out.add(kMetrics[row + 1], found.p95 / unit);
    out.add(kMetrics[row + 2], found.p99 / unit);
  }
}

void add_peers(const Reading& reading, Snapshot& out) {
  const auto add = [&](Row row, auto value_of) {
    for (const PeerReading& peer : reading.peers)
      if (const std::optional<double> value = value_of(peer))
        out.add(kMetrics[row], *value, {{"peer", peer.name}});
  };
  const auto cell = [](const Cell& c) { return c.seen ? std::optional(c.value) : std::nullopt; };
  add(kPeerSent, [&](const PeerReading& peer) { return cell(peer.sent); });
  add(kPeerReceived, [&](const PeerReading& peer) { return cell(peer.received); });
  add(kPeerErrors, [&](const PeerReading& peer) { return cell(peer.errors); });
  add(kPeerLatency, [](const PeerReading& peer) {
    return peer.latency_ms ? std::optional(*peer.latency_ms / 1000) : std::nullopt;
  });
  add(kPeerBandwidth, [](const PeerReading& peer) { return peer.bandwidth; });
}

void add_custom(const Reading& reading, Snapshot& out) {
  for (const CustomReading& series : reading.custom) {
    const CustomFamily& family = *series.family;
    if (family.type == 'm' || family.type == 'h') {
      const Tally& tally = reading.tallies[series.tally];
      if (tally.count() > 0)
        out.family(family.metric).samples.push_back({series.series->labels, tally.exported()});
    } else if (series.cell.seen)
      out.family(family.metric).samples.push_back({series.series->labels, series.cell.value});
  }
}

/// Of what only the application can tell.
void tell_absent(Snapshot& out) {
  for (const Metric& metric : kMetrics)
    if (metric.source == Source::kApp && out.find(metric.name) == nullptr)
      out.absent(metric.name, "no event of the application tells it: see boxo-agent-events(7)");
}

void add_own(const Reading& reading, Snapshot& out) {
  out.add(kMetrics[kReceived], static_cast<double>(reading.received));
  for (std::size_t i = 0; i < kReasons; ++i)
    out.add(kMetrics[kRejected], static_cast<double>(reading.rejected[i]),
            {{"reason", std::string(name_of(static_cast<Reason>(i)))}});
  for (const Loss& loss : reading.losses)
    out.add(kMetrics[kDropped], loss.cell.value, {{"reason", loss.reason}});
  for (const Reading::Dropped& dropped : reading.dropped)
    out.add(kMetrics[kSeriesDropped], static_cast<double>(dropped.lines),
            {{"family", std::string(dropped.family != nullptr ? dropped.family->name : kOtherFamilies)}});
  out.add(kMetrics[kQueueBytes], static_cast<double>(reading.queued_bytes));
  out.add(kMetrics[kQueuePeak], static_cast<double>(reading.queue_peak));
  out.add(kMetrics[kAcceptFailures], static_cast<double>(reading.accept_failures));
  out.add(kMetrics[kCpu], reading.cpu_seconds);
}

}  // namespace

void Share::update(double part, double whole, std::uint64_t last, std::uint64_t forgotten) {
  if (forgotten > forgotten_) {
    forgotten_ = forgotten;
    ticks_.clear();
    sum_ = {0, 0};
  }
  if (last < forgotten_) {
    last_ = {part, whole};
    return;
  }
  // A part may be told before its whole is: it waits.
  if (whole <= last_.whole) return;
  const Tick tick{part - last_.part, whole - last_.whole};
  last_ = {part, whole};
  ticks_.push_back(tick);
  sum_.part += tick.part;
  sum_.whole += tick.whole;
  while (sum_.whole - ticks_.front().whole >= things_) {
    sum_.part -= ticks_.front().part;
    sum_.whole -= ticks_.front().whole;
    ticks_.pop_front();
  }
}

std::optional<double> Share::value() const {
  return sum_.whole > 0 ? std::optional(std::clamp(sum_.part / sum_.whole, 0.0, 1.0)) : std::nullopt;
}

void Publisher::add_shares(const Reading& reading, Snapshot& out) {
  const auto add = [&](Row row, Share& share, double part, double whole, std::uint64_t last) {
    share.update(part, whole, last, reading.forgotten);
    if (const auto value = share.value(); value && reading.is_fresh(last)) out.add(kMetrics[row], *value);
  };
  const Cell& hits = cell_of(reading, Count::kCacheHits);
  const Cell& misses = cell_of(reading, Count::kCacheMisses);
  add(kHitRate, hits_, hits.value, hits.value + misses.value, std::max(hits.set_at, misses.set_at));
  const TimingReading& responses = timing_of(reading, Timing::kResponse);
  add(kErrorRate, errors_, cell_of(reading, Count::kResponseErrors).value, responses.tally.count(),
      responses.last);
  const Cell& lost = cell_of(reading, Count::kPacketsLost);
  const Cell& sent = cell_of(reading, Count::kPacketsSent);
  add(kLossRate, losses_, lost.value, sent.value, sent.set_at);
}

void Publisher::add_rates(const Reading& reading, Snapshot& out) {
  if (reading.at <= last_at_) return;
  const double seconds = static_cast<double>(reading.at - last_at_) / 1e9;
  last_at_ = reading.at;
  const auto rate = [&](Row row, Count which, double& last) {
    const Cell& now = cell_of(reading, which);
    if (now.seen && reading.is_fresh(now.set_at)) out.add(kMetrics[row], (now.value - last) / seconds);
    last = now.value;
  };
  rate(kRequestsPerSecond, Count::kRequests, last_requests_);
  rate(kBatchesPerSecond, Count::kBatchOperations, last_batches_);
}

void Publisher::publish(Reading& reading, Snapshot& out) {
  add_counts(reading, out);
  add_timings(reading, out);
  add_shares(reading, out);
  add_rates(reading, out);
  add_peers(reading, out);
  tell_absent(out);
  add_custom(reading, out);
  add_own(reading, out);
}

std::span<const Metric> Publisher::metrics() { return kMetrics; }

}  // namespace boxo::events
