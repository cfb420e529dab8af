// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace boxo::golang {

/// Where one version of Go keeps what its runtime counts: offsets into its structs, in bytes. A row of a table that
/// scripts/go-layouts takes from the debugging information of programs built with that version.
struct GoLayout {
  std::string_view version;  ///< "go1.26", of all its patch releases
  bool amd64 = false;
  bool arm64 = false;
  // g: a goroutine
  std::uint32_t g_status;
  std::uint32_t g_wait_reason;
  // schedt: the scheduler. How many are system's own; how many are done with and kept for reuse, since Go 1.25 in two lists.
  std::uint32_t sched_system;
  std::uint32_t sched_free;
  std::uint32_t sched_free_more = 0;  ///< 0: none
  // p: a processor, which keeps some for reuse as well
  std::uint32_t p_free;
  // mstats: cycles of garbage collection, the ring of their pauses, and what the heap has counted
  std::uint32_t cycles;
  std::uint32_t pauses;
  std::uint32_t pause_ring;  ///< how many it holds
  std::uint32_t heap_stats;  ///< three of heapStatsDelta
  std::uint32_t heap_generation;
  // heapStatsDelta
  std::uint32_t heap_delta;  ///< its size
  std::uint32_t large_allocated;
  std::uint32_t large_freed;
  std::uint32_t small_allocated;  ///< by size class
  std::uint32_t small_freed;
  std::uint32_t size_classes;
  // gcControllerState
  std::uint32_t heap_marked;
  std::uint32_t memory_limit;
  std::string_view size_of_class;  ///< the variable that holds the size of each class
};

std::span<const GoLayout> go_layouts();

}  // namespace boxo::golang
