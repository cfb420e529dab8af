// SPDX-License-Identifier: MIT OR Apache-2.0
// What receiving events costs, beside a bare receiver and a pure drain in the same run:
//   events_bench [--runs N] [--lines N] [--case NAME]
// One process sends, this one receives on one thread. Prints one JSON object.
//   events_bench --send PATH [--lines N] [--rate N] [--case NAME]
// Sends the lines of a case to an agent, at most so many per second.
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "collectors/events/publisher.h"
#include "collectors/events/server.h"
#include "tests/bench/events_receivers.h"

using namespace boxo;
using namespace boxo::bench;

namespace {

struct Case {
  const char* name;
  std::size_t datagram;  ///< bytes; 0: one line
  std::size_t series;    ///< custom ones among the lines; 0: the mix of built-in and a few custom ones
  double lines;          ///< relative to --lines
};
constexpr Case kCases[] = {
    {"mixed lines in 8 KiB datagrams", 8192, 0, 1},
    {"one line a datagram", 0, 0, 0.1},
    {"1000 custom series, 100 peers in 8 KiB datagrams", 8192, 1000, 1},
};

/// 40 % counters, 30 % times, 15 % gauges, 15 % samples.
std::vector<std::string> make_lines(const Case& which) {
  std::mt19937 random(1);
  std::lognormal_distribution<double> times(2, 1.5);
  std::vector<std::string> lines;
  const auto number = [&](const char* format, double value) {
    char text[96];
    std::snprintf(text, sizeof text, format, value);
    return std::string(text);
  };
  for (int i = 0; i < 20000; ++i) {
    const unsigned kind = random() % 100;
    const unsigned pick = random();
    const std::string own = std::to_string(pick % 249);
    const std::string peer = "12D3KooWPeerNumber" + std::to_string(pick % 100);
    if (which.series > 0 && i % 2 == 0) {
      if (kind < 25)
        lines.push_back("load.requests:1|c|#route:r" + own);
      else if (kind < 50)
        lines.push_back("load.wait:" + number("%.3f", times(random)) + "|ms|#route:r" + own);
      else if (kind < 75)
        lines.push_back("load.size:" + number("%.0f", times(random) * 1000) + "|h|#route:r" + own);
      else
        lines.push_back("load.depth:" + number("%.0f", times(random)) + "|g|#route:r" + own);
      continue;
    }
    if (which.series > 0 && i % 4 == 1) {
      if (kind < 50)
        lines.push_back("network.bytes_sent:4096|c|#peer:" + peer);
      else if (kind < 75)
        lines.push_back("network.latency:" + number("%.3f", times(random)) + "|ms|#peer:" + peer);
      else
        lines.push_back("network.bandwidth:" + number("%.0f", times(random) * 1e5) + "|h|#peer:" + peer);
      continue;
    }
    static const char* const kCounters[] = {"bitswap.requests:1|c",
                                            "bitswap.blocks_received:1|c|#duplicate:false",
                                            "blockstore.cache_hits:1|c",
                                            "blockstore.cache_misses:1|c",
                                            "network.bytes_received:262144|c",
                                            "myapp.custom_requests:1|c|#method:get"};
    static const char* const kTimes[] = {"bitswap.response_time:%.3f|ms|#result:ok",
                                         "blockstore.read_time:%.3f|ms", "blockstore.write_time:%.3f|ms",
                                         "network.latency:%.3f|ms"};
    static const char* const kGauges[] = {"bitswap.active_connections:%.0f|g",
                                          "bitswap.queued_requests:%.0f|g", "resource.goroutines:%.0f|g",
                                          "resource.heap_bytes:%.0f|g"};
    static const char* const kSamples[] = {"network.bandwidth:%.0f|h", "myapp.block_size:%.0f|d|#codec:raw",
                                           "myapp.dag_depth:%.0f|h"};
    if (kind < 40)
      lines.emplace_back(kCounters[pick % 6]);
    else if (kind < 70)
      lines.push_back(number(kTimes[pick % 4], times(random)));
    else if (kind < 85)
      lines.push_back(number(kGauges[pick % 4], times(random) * 10));
    else
      lines.push_back(number(kSamples[pick % 3], times(random) * 1000));
  }
  return lines;
}

std::vector<std::string> make_packets(const Case& which) {
  std::vector<std::string> packets;
  for (const std::string& line : make_lines(which)) {
    if (packets.empty() || packets.back().size() + line.size() + 1 > which.datagram) packets.emplace_back();
    packets.back() += packets.back().empty() ? line : "\n" + line;
  }
  return packets;
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  return address;
}

/// Sends at least `lines` lines from a process of its own, then "end"; returns how many are sent.
std::uint64_t start_sender(const std::string& path, const std::vector<std::string>& packets, double lines,
                           pid_t& child) {
  std::uint64_t per_round = 0;
  for (const std::string& packet : packets)
    per_round += 1 + static_cast<std::uint64_t>(std::count(packet.begin(), packet.end(), '\n'));
  const auto rounds = static_cast<std::uint64_t>(lines / static_cast<double>(per_round)) + 1;
  child = ::fork();
  if (child == 0) {
    const int fd = ::socket(AF_UNIX, SOCK_DGRAM, 0);
    const sockaddr_un address = address_of(path);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) ::_exit(1);
    for (std::uint64_t i = 0; i < rounds; ++i)
      for (const std::string& packet : packets)
        if (::send(fd, packet.data(), packet.size(), 0) < 0) ::_exit(2);
    ::send(fd, "end", 3, 0);
    ::_exit(0);
  }
  return rounds * per_round;
}

/// CPU seconds per million lines of a plain receiver.
double run_plain(Received (*receiver)(int), const std::string& path, const std::vector<std::string>& packets,
                 double lines) {
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM, 0);
  const sockaddr_un address = address_of(path);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) std::abort();
  pid_t child = 0;
  const std::uint64_t sent = start_sender(path, packets, lines, child);
  const Received got = receiver(fd);
  ::waitpid(child, nullptr, 0);
  ::close(fd);
  ::unlink(path.c_str());
  if (got.lines != 0 && got.lines != sent) std::abort();
  return got.cpu_seconds / (static_cast<double>(sent) / 1e6);
}

/// The same of the agent's receiver, with a tick five times a second.
double run_server(const std::string& path, const std::vector<std::string>& packets, double lines) {
  EventOptions options;
  options.socket = path;
  auto server = events::EventServer::open(options);
  if (!server) std::abort();
  events::Publisher publisher(options.history, events::boot_time());
  events::Reading reading;
  if (!(*server)->take({}, reading)) std::abort();
  const double before = reading.cpu_seconds;
  pid_t child = 0;
  const std::uint64_t sent = start_sender(path, packets, lines, child);
  while (reading.received < sent + 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    if (!(*server)->take({}, reading)) std::abort();
    Snapshot page;
    publisher.publish(reading, page);
  }
  ::waitpid(child, nullptr, 0);
  // Only "end" is no line.
  if (reading.received != sent + 1 ||
      std::accumulate(reading.rejected.begin(), reading.rejected.end(), std::uint64_t{0}) != 1)
    std::abort();
  return (reading.cpu_seconds - before) / (static_cast<double>(sent) / 1e6);
}

/// Sends to somebody else, in steps of a hundredth of a second.
int send_to(const std::string& path, const Case& which, double lines, double rate) {
  const std::vector<std::string> packets = make_packets(which);
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM, 0);
  const sockaddr_un address = address_of(path);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return 1;
  const auto start = std::chrono::steady_clock::now();
  double sent = 0;
  for (std::size_t i = 0; sent < lines; i = (i + 1) % packets.size()) {
    if (::send(fd, packets[i].data(), packets[i].size(), 0) < 0) return 1;
    sent += 1 + static_cast<double>(std::count(packets[i].begin(), packets[i].end(), '\n'));
    const std::chrono::duration<double> due(std::floor(sent / rate * 100) / 100);
    std::this_thread::sleep_until(start + std::chrono::duration_cast<std::chrono::nanoseconds>(due));
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::printf("{\"lines\": %.0f, \"seconds\": %.2f}\n", sent, took.count());
  return 0;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

long resident_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::atol(line.c_str() + 6);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int runs = 5;
  double lines = 2e6;
  double rate = 1e6;
  std::string only, send_path;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--runs") runs = std::atoi(argv[i + 1]);
    if (option == "--lines") lines = std::atof(argv[i + 1]);
    if (option == "--case") only = argv[i + 1];
    if (option == "--send") send_path = argv[i + 1];
    if (option == "--rate") rate = std::atof(argv[i + 1]);
  }
  char folder[] = "/tmp/events-bench-XXXXXX";
  if (::mkdtemp(folder) == nullptr) return 1;
  const std::string path = std::string(folder) + "/e";
  if (send_path.empty())
    std::printf("{\"unit\": \"CPU seconds per million lines, medians of %d runs\", \"cases\": [", runs);
  bool first = true;
  for (const Case& which : kCases) {
    if (!only.empty() && std::string(which.name).find(only) == std::string::npos) continue;
    if (!send_path.empty()) return send_to(send_path, which, lines, rate);
    const std::vector<std::string> packets = make_packets(which);
    std::vector<double> drained, bare, ours;
    for (int i = 0; i < runs; ++i) {
      drained.push_back(run_plain(drain, path, packets, lines * which.lines));
      bare.push_back(run_plain(reference, path, packets, lines * which.lines));
      ours.push_back(run_server(path, packets, lines * which.lines));
    }
    std::vector<double> over_bare, over_drain;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      over_bare.push_back(ours[i] / bare[i]);
      over_drain.push_back(ours[i] / drained[i]);
    }
    std::printf(
        "%s\n  {\"case\": \"%s\", \"drain\": %.4f, \"reference\": %.4f, \"agent\": %.4f, "
        "\"agent/reference\": %.2f, \"agent/drain\": %.2f}",
        first ? "" : ",", which.name, median(drained), median(bare), median(ours), median(over_bare),
        median(over_drain));
    first = false;
    std::fflush(stdout);
  }
  std::printf("\n], \"most_resident_kib\": %ld}\n", resident_kib());
  ::rmdir(folder);
  return 0;
}
