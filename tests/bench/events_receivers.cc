// SPDX-License-Identifier: MIT OR Apache-2.0
#include "tests/bench/events_receivers.h"

#include <sys/socket.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <ctime>
#include <memory>
#include <string_view>
#include <vector>

namespace boxo::bench {

namespace {

constexpr unsigned kBatch = 32;
constexpr std::size_t kSize = 65536;
// Not a power of two: such buffers would share the few places of a cache that their addresses map to.
constexpr std::size_t kStride = kSize + 5 * 64;

double thread_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

template <class Use>
Received receive(int socket, Use use) {
  auto buffer = std::make_unique_for_overwrite<char[]>(kBatch * kStride);
  std::array<iovec, kBatch> parts{};
  std::array<mmsghdr, kBatch> messages{};
  for (unsigned i = 0; i < kBatch; ++i) {
    parts[i] = {buffer.get() + i * kStride, kSize};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  Received out;
  const double before = thread_seconds();
  for (;;) {
    const int n = ::recvmmsg(socket, messages.data(), kBatch, MSG_WAITFORONE, nullptr);
    if (n < 0) break;
    for (unsigned i = 0; i < static_cast<unsigned>(n); ++i) {
      const std::string_view packet(buffer.get() + i * kStride, messages[i].msg_len);
      if (packet == "end") {
        out.cpu_seconds = thread_seconds() - before;
        return out;
      }
      out.bytes += packet.size();
      use(packet, out);
    }
  }
  return out;
}

/// A series of the reference.
struct Series {
  std::uint64_t hash = 0;
  std::string key;
  double sum = 0;
  std::uint64_t count = 0;
  std::array<std::uint64_t, 64> buckets{};
};

class Table {
 public:
  Series& find(std::string_view name, std::string_view rest) {
    std::uint64_t hash = 1469598103934665603U;
    hash = mix(mix(hash, name), rest) | 1;
    for (std::size_t at = hash;; ++at) {
      Series& series = slots_[at & (slots_.size() - 1)];
      if (series.hash == hash && series.key.size() == name.size() + rest.size() &&
          std::memcmp(series.key.data(), name.data(), name.size()) == 0 &&
          std::memcmp(series.key.data() + name.size(), rest.data(), rest.size()) == 0)
        return series;
      if (series.hash == 0) {
        series.hash = hash;
        series.key.assign(name).append(rest);
        return series;
      }
    }
  }

 private:
  /// Eight bytes at a time.
  static std::uint64_t mix(std::uint64_t hash, std::string_view text) {
    std::uint64_t word = 0;
    std::size_t i = 0;
    for (; i + 8 <= text.size(); i += 8) {
      std::memcpy(&word, text.data() + i, 8);
      hash = (hash ^ word) * 0x9e3779b97f4a7c15U;
      hash ^= hash >> 32;
    }
    word = 0;
    std::memcpy(&word, text.data() + i, text.size() - i);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15U;
    return hash ^ hash >> 29;
  }

  std::vector<Series> slots_{1 << 15};
};

void count(std::string_view packet, Table& table, Received& out) {
  const char* p = packet.data();
  const char* const end = p + packet.size();
  while (p < end) {
    const char* line_end = static_cast<const char*>(std::memchr(p, '\n', static_cast<std::size_t>(end - p)));
    if (line_end == nullptr) line_end = end;
    const char* const colon =
        static_cast<const char*>(std::memchr(p, ':', static_cast<std::size_t>(line_end - p)));
    if (colon != nullptr) {
      double value = 0;
      const auto [rest, error] = std::from_chars(colon + 1, line_end, value);
      if (error == std::errc{} && line_end - rest >= 2 && *rest == '|') {
        Series& series = table.find({p, static_cast<std::size_t>(colon - p)},
                                    {rest, static_cast<std::size_t>(line_end - rest)});
        ++series.count;
        if (rest[1] == 'g') {
          series.sum = value;
        } else {
          series.sum += value;
          if (rest[1] != 'c') ++series.buckets[static_cast<std::size_t>(std::ilogb(value + 1)) & 63];
        }
        ++out.lines;
      }
    }
    p = line_end + 1;
  }
}

}  // namespace

Received drain(int socket) {
  return receive(socket, [](std::string_view, Received&) {});
}

Received reference(int socket) {
  Table table;
  return receive(socket, [&](std::string_view packet, Received& out) { count(packet, table, out); });
}

}  // namespace boxo::bench
