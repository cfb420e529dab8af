// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "collectors/events/cells.h"

namespace boxo::events {

/// What the built-in events are counted in.
enum class Count : std::uint8_t {
  kRequests,
  kResponseErrors,
  kBlocksReceived,
  kBlocksDuplicated,
  kBlocksSent,
  kCacheHits,
  kCacheMisses,
  kBatchOperations,
  kBytesSent,
  kBytesReceived,
  kConnectionErrors,
  kPacketsSent,
  kPacketsLost,
  kGcCycles,
  kCount
};
enum class Level : std::uint8_t {
  kBitswapConnections,
  kQueuedRequests,
  kTotalBlocks,
  kCompressionRatio,
  kStorageBytes,
  kCacheSizeBytes,
  kNetworkConnections,
  kCpuUsage,
  kDiskUsed,
  kDiskTotal,
  kGoroutines,
  kHeapBytes,
  kCount
};
enum class Timing : std::uint8_t { kResponse, kRead, kWrite, kLatency, kGcPause, kBandwidth, kCount };

/// What is kept of each peer.
enum class PeerField : std::uint8_t { kNone, kSent, kReceived, kErrors, kLatency, kBandwidth };

inline constexpr std::size_t kCounts = static_cast<std::size_t>(Count::kCount);
inline constexpr std::size_t kLevels = static_cast<std::size_t>(Level::kCount);
inline constexpr std::size_t kTimings = static_cast<std::size_t>(Timing::kCount);

/// A tag that a built-in event may have, and what its values mean.
enum class TagRule : std::uint8_t {
  kNone,
  kResult,     ///< result:ok, result:error (also counted in kResponseErrors)
  kDuplicate,  ///< duplicate:false, duplicate:true (also counted in kBlocksDuplicated)
};

/// One event of the built-in namespaces.
struct BuiltinEvent {
  std::string_view name;
  char type;          ///< as in Line; 'h' stands for 'd', too
  std::uint8_t slot;  ///< a Count, Level or Timing, as the type says
  TagRule rule = TagRule::kNone;
  PeerField peer = PeerField::kNone;  ///< what a tag `peer` counts
};

/// The event with this name, or nullptr.
const BuiltinEvent* find_builtin(std::string_view name);
/// Whether the name belongs to bitswap, blockstore, network, resource or agent: alone, or before a dot.
bool in_builtin_namespace(std::string_view name);
/// Whether a name of the application, once made a metric name, could be taken for one of the agent's own.
bool is_reserved(std::string_view sanitised);

/// The buckets of a built-in Timing, and those of the application's own metrics.
const Buckets& buckets_of(Timing timing);
extern const Buckets kCustomTimeBuckets;
extern const Buckets kCustomSampleBuckets;

}  // namespace boxo::events
