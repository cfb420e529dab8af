// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/contract.h"

#include <algorithm>
#include <array>

namespace boxo {

namespace {

constexpr std::array<std::string_view, 20> kNames = {
    "boxo_bitswap_active_connections",
    "boxo_bitswap_queued_requests",
    "boxo_bitswap_requests_total",
    "boxo_bitswap_response_time_seconds",
    "boxo_blockstore_cache_hit_rate",
    "boxo_blockstore_read_latency_seconds",
    "boxo_blockstore_total_blocks",
    "boxo_blockstore_write_latency_seconds",
    "boxo_network_active_connections",
    "boxo_network_bandwidth_bytes_per_second",
    "boxo_network_latency_seconds",
    "boxo_network_packet_loss_rate",
    "boxo_resource_cpu_usage_percent",
    "boxo_resource_disk_total_bytes",
    "boxo_resource_disk_usage_bytes",
    "boxo_resource_gc_cycles_total",
    "boxo_resource_gc_pause_seconds",
    "boxo_resource_goroutines_total",
    "boxo_resource_heap_bytes",
    "boxo_resource_memory_usage_bytes",
};

}  // namespace

bool has_told_source(std::string_view name) { return std::binary_search(kNames.begin(), kNames.end(), name); }

std::string_view source_label(std::string_view name, Source source) {
  return name_of(source == Source::kCgroup && has_told_source(name) ? Source::kProc : source);
}

}  // namespace boxo
