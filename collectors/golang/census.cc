// SPDX-License-Identifier: MIT OR Apache-2.0
// The walk over runtime.allgs: a list of pointers that only grows, to goroutines whose memory is never given back.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "collectors/golang/runtime.h"

namespace boxo::golang {

namespace {

constexpr std::uint64_t kAtOnce = 1024;
// Goroutines lie side by side: from so close a neighbour on, what is between is read as well rather than asked apart.
constexpr std::uint64_t kGap = 1024;
constexpr std::uint64_t kLongestRun = 16 << 10;
constexpr std::uint64_t kScan = 0x1000;  // a bit of its own in the status: the collector looks at its stack
constexpr std::uint64_t kHighest = std::uint64_t{1} << 56;  // no program's memory is above
constexpr int kTries = 3;

constexpr const char* kNames[Census::kStatuses] = {"idle", "runnable", "running", "syscall", "waiting", nullptr, "dead", nullptr,
                                                   "copystack", "preempted", "leaked", "dead"};
constexpr std::size_t kWaiting = 4;
constexpr std::size_t kLeaked = 10;

}  // namespace

const char* Runtime::status_name(std::size_t status) { return status < Census::kStatuses ? kNames[status] : nullptr; }
bool Runtime::has_reason(std::size_t status) { return status == kWaiting || status == kLeaked; }

Result<> Runtime::count(Memory& memory, std::uint64_t all, Census& census) const {
  const GoLayout& layout = *program_->layout;
  const std::uint64_t first = std::min(layout.g_status, layout.g_wait_reason);
  const std::uint64_t size = std::max(layout.g_status + 4, layout.g_wait_reason + 1) - first;
  std::vector<std::uint64_t> pointers;
  std::vector<Memory::Piece> runs;
  std::string bytes;
  for (int tries = 0; tries < kTries; ++tries) {
    census = Census{};
    const auto list = memory.word(in(program_->at.all));
    if (!list) return list.error();
    bool sound = true;
    for (std::uint64_t from = 0; from < all && sound; from += kAtOnce) {
      const std::uint64_t now = std::min(kAtOnce, all - from);
      const Memory::Piece part{*list + 8 * from, 8 * now};
      if (auto done = memory.read({&part, 1}, bytes); !done) {
        if (done.error().code != EFAULT) return done;
        sound = false;
        break;
      }
      pointers.resize(now);
      std::memcpy(pointers.data(), bytes.data(), bytes.size());
      std::sort(pointers.begin(), pointers.end());
      if (pointers.front() == 0 || pointers.back() > kHighest) {
        sound = false;
        break;
      }
      runs.clear();
      for (const std::uint64_t pointer : pointers) {
        const std::uint64_t begin = pointer + first;
        if (!runs.empty()) {
          Memory::Piece& last = runs.back();
          if (begin - (last.address + last.size) < kGap && begin + size - last.address <= kLongestRun) {
            last.size = begin + size - last.address;
            continue;
          }
        }
        runs.push_back({begin, size});
      }
      if (auto done = memory.read(runs, bytes); !done) {
        if (done.error().code != EFAULT) return done;
        sound = false;
        break;
      }
      std::size_t run = 0;
      std::size_t place = 0;
      for (const std::uint64_t pointer : pointers) {
        const std::uint64_t begin = pointer + first;
        while (begin + size > runs[run].address + runs[run].size) place += runs[run++].size;
        const std::size_t at = place + (begin - runs[run].address);
        const std::uint64_t status = number_in(bytes, at + layout.g_status - first, 4) & ~kScan;
        if (status_name(status) == nullptr) {
          sound = false;
          break;
        }
        ++census.counts[status][has_reason(status) ? number_in(bytes, at + layout.g_wait_reason - first, 1) : 0];
      }
    }
    // A list that became too short was copied to another place; what was read of the old one may be something else by then.
    const auto again = memory.word(in(program_->at.all));
    if (!again) return again.error();
    if (sound && *again == *list) return {};
  }
  return Error{"the list of goroutines changed while it was read", {}, EAGAIN};
}

}  // namespace boxo::golang
