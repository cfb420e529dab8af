// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/builtin.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace boxo::events {

namespace {

constexpr BuiltinEvent counter(std::string_view name, Count slot, PeerField peer = PeerField::kNone) {
  return {name, 'c', static_cast<std::uint8_t>(slot), TagRule::kNone, peer};
}
constexpr BuiltinEvent gauge(std::string_view name, Level slot) {
  return {name, 'g', static_cast<std::uint8_t>(slot), TagRule::kNone, PeerField::kNone};
}
constexpr BuiltinEvent timing(std::string_view name, Timing slot, PeerField peer = PeerField::kNone) {
  return {name, 'm', static_cast<std::uint8_t>(slot), TagRule::kNone, peer};
}

// Sorted by name.
constexpr BuiltinEvent kEvents[] = {
    gauge("bitswap.active_connections", Level::kBitswapConnections),
    {"bitswap.blocks_received", 'c', static_cast<std::uint8_t>(Count::kBlocksReceived), TagRule::kDuplicate,
     PeerField::kNone},
    counter("bitswap.blocks_sent", Count::kBlocksSent),
    gauge("bitswap.queued_requests", Level::kQueuedRequests),
    counter("bitswap.requests", Count::kRequests),
    {"bitswap.response_time", 'm', static_cast<std::uint8_t>(Timing::kResponse), TagRule::kResult,
     PeerField::kNone},
    counter("blockstore.batch_operations", Count::kBatchOperations),
    counter("blockstore.cache_hits", Count::kCacheHits),
    counter("blockstore.cache_misses", Count::kCacheMisses),
    gauge("blockstore.cache_size_bytes", Level::kCacheSizeBytes),
    gauge("blockstore.compression_ratio", Level::kCompressionRatio),
    timing("blockstore.read_time", Timing::kRead),
    gauge("blockstore.storage_bytes", Level::kStorageBytes),
    gauge("blockstore.total_blocks", Level::kTotalBlocks),
    timing("blockstore.write_time", Timing::kWrite),
    gauge("network.active_connections", Level::kNetworkConnections),
    {"network.bandwidth", 'h', static_cast<std::uint8_t>(Timing::kBandwidth), TagRule::kNone,
     PeerField::kBandwidth},
    counter("network.bytes_received", Count::kBytesReceived, PeerField::kReceived),
    counter("network.bytes_sent", Count::kBytesSent, PeerField::kSent),
    counter("network.connection_errors", Count::kConnectionErrors, PeerField::kErrors),
    timing("network.latency", Timing::kLatency, PeerField::kLatency),
    counter("network.packets_lost", Count::kPacketsLost),
    counter("network.packets_sent", Count::kPacketsSent),
    gauge("resource.cpu_usage", Level::kCpuUsage),
    gauge("resource.disk_total_bytes", Level::kDiskTotal),
    gauge("resource.disk_used_bytes", Level::kDiskUsed),
    counter("resource.gc_cycles", Count::kGcCycles),
    timing("resource.gc_pause", Timing::kGcPause),
    gauge("resource.goroutines", Level::kGoroutines),
    gauge("resource.heap_bytes", Level::kHeapBytes),
};
static_assert(std::is_sorted(std::begin(kEvents), std::end(kEvents),
                             [](const BuiltinEvent& a, const BuiltinEvent& b) { return a.name < b.name; }));

constexpr std::array<std::string_view, 5> kNamespaces = {"agent", "bitswap", "blockstore", "network",
                                                         "resource"};

constexpr double kResponseMs[] = {1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000};
constexpr double kResponseSeconds[] = {.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10};
constexpr double kStoreMs[] = {.1, .5, 1, 5, 10, 25, 50, 100, 250, 500, 1000};
constexpr double kStoreSeconds[] = {.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1};
constexpr double kLatencyMs[] = {1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000};
constexpr double kLatencySeconds[] = {.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5};
constexpr double kPauseMs[] = {.01, .05, .1, .5, 1, 5, 10, 50, 100};
constexpr double kPauseSeconds[] = {.00001, .00005, .0001, .0005, .001, .005, .01, .05, .1};
// Nothing is known of the application's own samples: bytes or a ratio, they fall somewhere between these.
constexpr double kSamples[] = {.001, .005, .01, .05, .1,  .5,  1,   5,   10,  50,  100, 500, 1e3,
                               5e3,  1e4,  5e4, 1e5, 5e5, 1e6, 5e6, 1e7, 5e7, 1e8, 5e8, 1e9};
static_assert(std::size(kSamples) + 1 <= kMaxBuckets);

constexpr Buckets kResponse{kResponseMs, kResponseSeconds, 1000};
constexpr Buckets kStore{kStoreMs, kStoreSeconds, 1000};
constexpr Buckets kLatency{kLatencyMs, kLatencySeconds, 1000};
constexpr Buckets kPause{kPauseMs, kPauseSeconds, 1000};

}  // namespace

constexpr Buckets kCustomTimeBuckets{kResponseMs, kResponseSeconds, 1000};
constexpr Buckets kCustomSampleBuckets{kSamples, kSamples, 1};

const Buckets& buckets_of(Timing which) {
  switch (which) {
    case Timing::kResponse:
      return kResponse;
    case Timing::kRead:
    case Timing::kWrite:
      return kStore;
    case Timing::kLatency:
      return kLatency;
    case Timing::kGcPause:
      return kPause;
    case Timing::kBandwidth:
    case Timing::kCount:
      break;
  }
  return kCustomSampleBuckets;
}

const BuiltinEvent* find_builtin(std::string_view name) {
  const auto it =
      std::lower_bound(std::begin(kEvents), std::end(kEvents), name,
                       [](const BuiltinEvent& event, std::string_view key) { return event.name < key; });
  return it != std::end(kEvents) && it->name == name ? &*it : nullptr;
}

bool in_builtin_namespace(std::string_view name) {
  const std::string_view space = name.substr(0, name.find('.'));
  return std::find(kNamespaces.begin(), kNamespaces.end(), space) != kNamespaces.end();
}

bool is_reserved(std::string_view sanitised) {
  return std::any_of(kNamespaces.begin(), kNamespaces.end(), [&](std::string_view space) {
    return sanitised.starts_with(space) &&
           (sanitised.size() == space.size() || sanitised[space.size()] == '_');
  });
}

}  // namespace boxo::events
