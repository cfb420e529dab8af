// SPDX-License-Identifier: MIT OR Apache-2.0
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "collectors/events/ledger.h"
#include "tests/unit/events_helpers.h"

using namespace boxo;
using namespace boxo::events;

TEST_CASE("events: every counter and gauge of the contract") {
  struct Row {
    const char* line;
    const char* metric;
    double value;
  };
  for (const Row& row : {
           Row{"bitswap.requests:3|c", "boxo_bitswap_requests_total", 3},
           Row{"bitswap.blocks_received:4|c|#duplicate:false", "boxo_bitswap_blocks_received_total", 4},
           Row{"bitswap.blocks_received:4|c|#duplicate:false", "boxo_bitswap_blocks_duplicated_total", 0},
           Row{"bitswap.blocks_received:4|c|#duplicate:true", "boxo_bitswap_blocks_received_total", 4},
           Row{"bitswap.blocks_received:4|c|#duplicate:true", "boxo_bitswap_blocks_duplicated_total", 4},
           Row{"bitswap.blocks_sent:5|c", "boxo_bitswap_blocks_sent_total", 5},
           Row{"bitswap.active_connections:10|g", "boxo_bitswap_active_connections", 10},
           Row{"bitswap.queued_requests:3|g", "boxo_bitswap_queued_requests", 3},
           Row{"blockstore.cache_hits:1|c", "boxo_blockstore_cache_hits_total", 1},
           Row{"blockstore.cache_hits:1|c", "boxo_blockstore_cache_hit_rate", 1},
           Row{"blockstore.cache_misses:2|c", "boxo_blockstore_cache_misses_total", 2},
           Row{"blockstore.cache_misses:2|c", "boxo_blockstore_cache_hit_rate", 0},
           Row{"blockstore.batch_operations:6|c", "boxo_blockstore_batch_operations_total", 6},
           Row{"blockstore.batch_operations:6|c", "boxo_blockstore_batch_operations_per_second", 6},
           Row{"blockstore.total_blocks:1000|g", "boxo_blockstore_total_blocks", 1000},
           Row{"blockstore.compression_ratio:0.75|g", "boxo_blockstore_compression_ratio", .75},
           Row{"blockstore.storage_bytes:1073741824|g", "boxo_blockstore_storage_bytes", 1073741824},
           Row{"blockstore.cache_size_bytes:4096|g", "boxo_blockstore_cache_size_bytes", 4096},
           Row{"network.active_connections:5|g", "boxo_network_active_connections", 5},
           Row{"network.bytes_sent:4096|c", "boxo_network_bytes_sent_total", 4096},
           Row{"network.bytes_received:4097|c", "boxo_network_bytes_received_total", 4097},
           Row{"network.connection_errors:1|c", "boxo_network_connection_errors_total", 1},
           Row{"network.packets_sent:100|c\nnetwork.packets_lost:1|c", "boxo_network_packet_loss_rate", .01},
           Row{"network.packets_sent:100|c", "boxo_network_packets_sent_total", 100},
           Row{"network.packets_lost:1|c", "boxo_network_packets_lost_total", 1},
           Row{"network.bandwidth:10:20|h", "boxo_network_bandwidth_bytes_per_second", 15},
           Row{"network.bandwidth:10:20|d", "boxo_network_bandwidth_bytes_per_second", 15},
           Row{"resource.cpu_usage:45.5|g", "boxo_resource_cpu_usage_percent", 45.5},
           Row{"resource.disk_used_bytes:7|g", "boxo_resource_disk_usage_bytes", 7},
           Row{"resource.disk_total_bytes:8|g", "boxo_resource_disk_total_bytes", 8},
           Row{"resource.goroutines:123|g", "boxo_resource_goroutines_total", 123},
           Row{"resource.gc_cycles:1|c", "boxo_resource_gc_cycles_total", 1},
           Row{"resource.heap_bytes:9|g", "boxo_resource_heap_bytes", 9},
       }) {
    CAPTURE(row.line);
    CAPTURE(row.metric);
    Desk desk;
    CHECK(desk.tick().value(row.metric) == std::nullopt);  // absent before the first event
    desk.send(row.line).tick();
    CHECK(desk.value(row.metric) == row.value);
    CHECK(desk.page.find(row.metric)->source == Source::kApp);
    CHECK(desk.rejected() == 0);
  }
}

TEST_CASE("events: times become histograms, means, percentiles, shares and rates") {
  Desk desk;
  desk.send(
      "bitswap.requests:10|c\nbitswap.response_time:1|ms|#result:ok\nbitswap.response_time:1.0001|ms|#result:"
      "ok\n"
      "bitswap.response_time:50|ms|#result:error\nbitswap.response_time:20000|ms");
  desk.tick(2);
  const Histogram& histogram = desk.histogram("boxo_bitswap_response_time_seconds");
  CHECK(histogram.bounds.front() == .001);
  CHECK(histogram.bounds.size() == 12);
  CHECK(histogram.counts[0] == 1);
  CHECK(histogram.counts[1] == 1);
  CHECK(histogram.counts[4] == 1);
  CHECK(histogram.counts.back() == 1);
  CHECK(histogram.sum == doctest::Approx(20.0520001));
  CHECK(desk.value("boxo_bitswap_responses_total") == 4);
  CHECK(desk.value("boxo_bitswap_errors_total") == 1);
  CHECK(desk.value("boxo_bitswap_error_rate") == .25);
  CHECK(desk.value("boxo_bitswap_requests_per_second") == 5);
  CHECK(*desk.value("boxo_bitswap_response_time_average_seconds") == doctest::Approx(5.01300003));
  CHECK(desk.value("boxo_bitswap_response_time_p95_seconds") == 20);
  CHECK(desk.value("boxo_bitswap_response_time_p99_seconds") == 20);
  desk.tick();
  CHECK(desk.value("boxo_bitswap_requests_per_second") == 0);
  desk.send(
      "blockstore.read_time:0.1|ms\nblockstore.write_time:2|ms\nnetwork.latency:20|ms\nresource.gc_pause:0.3|"
      "ms");
  desk.tick();
  CHECK(desk.histogram("boxo_blockstore_read_latency_seconds").counts[0] == 1);
  CHECK(desk.value("boxo_blockstore_read_latency_p95_seconds") == .0001);
  CHECK(desk.value("boxo_blockstore_write_latency_p99_seconds") == .002);
  CHECK(desk.value("boxo_network_latency_average_seconds") == .02);
  CHECK(desk.histogram("boxo_network_latency_seconds").counts[3] == 1);
  CHECK(desk.histogram("boxo_resource_gc_pause_seconds").counts[3] == 1);
}

TEST_CASE("events: a million lines of one are a million") {
  Desk desk;
  std::string packet;
  for (int i = 0; i < 1000; ++i) packet += "bitswap.requests:1|c\n";
  for (int i = 0; i < 1000; ++i) desk.send(packet);
  desk.tick();
  CHECK(desk.value("boxo_bitswap_requests_total") == 1e6);
  CHECK(desk.received() == 1e6);
}

TEST_CASE("events: counters are exact up to 2^53") {
  Desk desk;
  desk.send("network.bytes_sent:9007199254740991|c\nnetwork.bytes_sent:1|c").tick();
  CHECK(desk.value("boxo_network_bytes_sent_total") == 9007199254740992.0);
}

TEST_CASE("events: rates weigh, and never loop") {
  Desk desk;
  desk.send("bitswap.requests:1|c|@0.1\nbitswap.requests:1|c|@0.000001\nblockstore.read_time:3:4|ms|@0.25")
      .tick();
  CHECK(desk.value("boxo_bitswap_requests_total") == 1000010);
  CHECK(desk.histogram("boxo_blockstore_read_latency_seconds").counts[3] == 8);
  CHECK(desk.histogram("boxo_blockstore_read_latency_seconds").sum == doctest::Approx(.028));
  // A client that merged n samples writes 1/n in decimal: n come out, for every n.
  double sum = 0;
  Desk merged;
  for (int n = 1; n < 3000; ++n) {
    char text[64];
    std::snprintf(text, sizeof text, "network.latency:1|ms|@%.17g", 1.0 / n);
    merged.send(text);
    sum += n;
  }
  merged.tick();
  CHECK(merged.histogram("boxo_network_latency_seconds").counts[0] == static_cast<std::uint64_t>(sum));
}

TEST_CASE("events: gauges are set, and adjusted by a sign") {
  Desk desk;
  desk.send(
          "bitswap.active_connections:10|g\nbitswap.active_connections:+5|g\nbitswap.active_connections:-3|g")
      .tick();
  CHECK(desk.value("boxo_bitswap_active_connections") == 12);
  desk.send("bitswap.active_connections:1|g\nx:5|g\nx:-10|g").tick();
  CHECK(desk.value("boxo_bitswap_active_connections") == 1);
  CHECK(desk.value("boxo_x") == -5);
}

TEST_CASE("events: gauges of a process that has ended are forgotten") {
  Desk desk;
  desk.send("bitswap.active_connections:10|g\nmine:1|g\nbitswap.requests:1|c");
  desk.now += 1000;
  desk.ledger.forget(desk.now);
  desk.send("bitswap.queued_requests:1|g").tick();
  CHECK(!desk.value("boxo_bitswap_active_connections"));
  CHECK(!desk.value("boxo_mine"));
  CHECK(desk.value("boxo_bitswap_queued_requests") == 1);
  CHECK(desk.value("boxo_bitswap_requests_total") == 1);
}

namespace {

constexpr const char* kOfSamples =
    "bitswap.requests:10|c\nbitswap.response_time:4|ms|#result:error\nblockstore.cache_hits:1|c\n"
    "blockstore.read_time:4|ms\nblockstore.write_time:4|ms\nblockstore.batch_operations:1|c\n"
    "network.latency:4|ms|#peer:a\nnetwork.bandwidth:4|h|#peer:a\nnetwork.packets_sent:1|c\n"
    "network.packets_lost:1|c\nnetwork.bytes_sent:1|c|#peer:a\nown.time:4|ms";

/// Of the metrics on the page those that are gauges, without the agent's own.
std::vector<std::string> gauges_on(const Desk& desk) {
  std::vector<std::string> out;
  for (const Family& family : desk.page.families())
    if (family.metric->type == MetricType::kGauge && family.metric->source == Source::kApp)
      out.emplace_back(family.metric->name);
  std::sort(out.begin(), out.end());
  return out;
}

/// And those that count: names with what they show.
std::vector<std::pair<std::string, double>> counters_on(const Desk& desk) {
  std::vector<std::pair<std::string, double>> out;
  for (const Family& family : desk.page.families()) {
    if (family.metric->type == MetricType::kGauge || family.metric->source != Source::kApp) continue;
    for (const Sample& sample : family.samples)
      out.emplace_back(family.metric->name, std::holds_alternative<double>(sample.value)
                                                ? std::get<double>(sample.value)
                                                : std::get<Histogram>(sample.value).sum);
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

TEST_CASE(
    "events: means, percentiles, shares and rates end five minutes after the last sample, counters do not") {
  Desk desk;
  desk.send(kOfSamples).send("bitswap.active_connections:10|g").tick();
  const std::vector<std::string> all = gauges_on(desk);
  const auto counters = counters_on(desk);
  // Three of four times, three shares, two rates, bandwidth, two of the peer, and the one that was set.
  CHECK(all.size() == 4 * 3 + 3 + 2 + 1 + 2 + 1);
  desk.tick(298);
  CHECK(gauges_on(desk) == all);
  desk.tick(2);
  CHECK(gauges_on(desk) == std::vector<std::string>{"boxo_bitswap_active_connections"});
  CHECK(counters_on(desk) == counters);
  // One more sample: a mean is over the last thousand again, however old they are.
  desk.send("network.latency:8|ms\nblockstore.cache_misses:3|c").tick();
  CHECK(desk.value("boxo_network_latency_average_seconds") == .006);
  CHECK(desk.value("boxo_blockstore_cache_hit_rate") == .25);
  CHECK(!desk.value("boxo_bitswap_error_rate"));
  CHECK(!desk.value("boxo_network_peer_latency_seconds", {{"peer", "a"}}));
}

TEST_CASE("events: means, percentiles, shares and rates of a process end with it") {
  Desk desk;
  desk.send(kOfSamples).tick();
  const auto counters = counters_on(desk);
  SUBCASE("that has no successor") {
    desk.send(kOfSamples);
    desk.now += 1000;
    desk.ledger.forget(desk.now);
    desk.tick();
    CHECK(gauges_on(desk).empty());
    CHECK(counters_on(desk).size() == counters.size());
    desk.tick();
    CHECK(gauges_on(desk).empty());
  }
  SUBCASE("while its successor sends already") {
    desk.now += 1000;
    const std::uint64_t start = desk.now;
    desk.now += 1000;
    desk.send(
        "network.latency:8|ms|#peer:a\nblockstore.cache_misses:1|c\nblockstore.batch_operations:5|c\n"
        "bitswap.response_time:8|ms");
    desk.ledger.forget(start);
    desk.tick();
    CHECK(desk.value("boxo_network_latency_average_seconds") == .008);
    CHECK(desk.value("boxo_network_peer_latency_seconds", {{"peer", "a"}}) == .008);
    CHECK(desk.value("boxo_blockstore_cache_hit_rate") == 0);
    CHECK(desk.value("boxo_bitswap_error_rate") == 0);
    CHECK(desk.value("boxo_bitswap_response_time_p99_seconds") == .008);
    CHECK(desk.value("boxo_blockstore_batch_operations_per_second"));
    CHECK(!desk.value("boxo_bitswap_requests_per_second"));
    CHECK(!desk.value("boxo_network_bandwidth_bytes_per_second"));
    CHECK(!desk.value("boxo_network_packet_loss_rate"));
    CHECK(desk.value("boxo_blockstore_cache_hits_total") == 1);
    CHECK(desk.histogram("boxo_network_latency_seconds").sum == doctest::Approx(.012));
  }
}

TEST_CASE("events: percentiles are those of the last thousand samples") {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> times(3, 1);
  Desk desk;
  std::vector<double> all;
  for (int i = 0; i < 5321; ++i) {
    char text[64];
    std::snprintf(text, sizeof text, "network.latency:%.6f|ms", times(random));
    all.push_back(std::strtod(text + 16, nullptr) / 1000);
    desk.send(text);
  }
  desk.tick();
  std::vector<double> last(all.end() - 1000, all.end());
  double sum = 0;
  for (const double value : last) sum += value;
  std::sort(last.begin(), last.end());
  CHECK(*desk.value("boxo_network_latency_average_seconds") == doctest::Approx(sum / 1000).epsilon(1e-12));
  CHECK(*desk.value("boxo_network_latency_p95_seconds") == doctest::Approx(last[949]).epsilon(1e-12));
  CHECK(*desk.value("boxo_network_latency_p99_seconds") == doctest::Approx(last[989]).epsilon(1e-12));
}

TEST_CASE("events: --history changes the windows") {
  Desk desk(small(10));
  for (int i = 1; i <= 20; ++i)
    desk.send("network.latency:" + std::to_string(i) + "|ms\nnetwork.bandwidth:" + std::to_string(i) + "|h");
  desk.tick();
  CHECK(desk.value("boxo_network_latency_average_seconds") == .0155);
  CHECK(desk.value("boxo_network_bandwidth_bytes_per_second") == 20);
}

TEST_CASE("events: a bad line costs only itself, and is counted by its reason") {
  struct Row {
    const char* line;
    Reason reason;
  };
  for (const Row& row : {
           Row{"bitswap.request:1|c", Reason::kUnknownName},
           Row{"bitswap:1|c", Reason::kUnknownName},
           Row{"agent.nonsense:1|c", Reason::kUnknownName},
           Row{"agent.client.nonsense:1|c", Reason::kUnknownName},
           Row{"resource.x.y:1|c", Reason::kUnknownName},
           Row{"bitswap.requests:1|g", Reason::kTypeChanged},
           Row{"bitswap.response_time:1|h", Reason::kTypeChanged},
           Row{"network.bandwidth:1|ms", Reason::kTypeChanged},
           Row{"bitswap.requests:-1|c", Reason::kValue},
           Row{"bitswap.requests:1:-1|c", Reason::kValue},
           Row{"bitswap.requests:1e16|c", Reason::kValue},
           Row{"bitswap.requests:1e15|c|@0.1", Reason::kValue},
           Row{"bitswap.requests:nan|c", Reason::kValue},
           Row{"bitswap.response_time:-1|ms", Reason::kValue},
           Row{"bitswap.response_time:1e300|ms", Reason::kValue},
           Row{"network.bandwidth:-1|h", Reason::kValue},
           Row{"bitswap.active_connections:1e19|g", Reason::kValue},
           Row{"bitswap.requests:1|c|@1e-9", Reason::kRate},
           Row{"bitswap.response_time:1|ms|#result:maybe", Reason::kTag},
           Row{"bitswap.blocks_received:1|c|#duplicate:1", Reason::kTag},
           Row{"own.thing:1|c|#__x:1", Reason::kTag},
           Row{"own.time:1|ms|#le:1", Reason::kTag},
           Row{"own.count:1|ms|#le:1", Reason::kTag},  // a counter by now, and the line is wrong by itself
           Row{"own.thing:1|c|#region:1", Reason::kTag},  // a --label has this name
           Row{"own.count:1|g", Reason::kTypeChanged},
           Row{"own/count:1|c", Reason::kNameConflict},
           Row{"own.hist.sum:1|g", Reason::kNameConflict},
           Row{"bitswap_requests:1|c", Reason::kNameConflict},
           Row{"own.set:1|s", Reason::kUnsupported},
           Row{"garbage", Reason::kMalformed},
       }) {
    CAPTURE(row.line);
    EventOptions options;
    options.constant_labels = {"region"};
    Desk desk(options);
    desk.send("own.count:1|c\nown.hist:1|h").tick();
    const double before = desk.received();
    // Twice: the second time the line is known.
    for (int i = 0; i < 2; ++i)
      desk.send("bitswap.blocks_sent:1|c\n" + std::string(row.line) + "\nbitswap.blocks_sent:1|c");
    desk.tick();
    CHECK(desk.value("boxo_bitswap_blocks_sent_total") == 4);
    CHECK(desk.rejected(row.reason) == 2);
    CHECK(desk.rejected() == 2);
    CHECK(desk.received() == before + 6);
    CHECK(desk.reading.last_refused.find(name_of(row.reason)) == 0);
  }
}

TEST_CASE("events: of a packed line all values count or none") {
  Desk desk;
  for (int i = 0; i < 2; ++i)
    desk.send("bitswap.requests:1:2:3|c\nbitswap.requests:1:x|c\nbitswap.requests:4:-1|c").tick();
  CHECK(desk.value("boxo_bitswap_requests_total") == 12);
  CHECK(desk.rejected(Reason::kValue) == 4);
}

TEST_CASE("events: a bad value is a bad value, also under a name that is known to be wrong") {
  Desk desk;
  for (int i = 0; i < 2; ++i)
    desk.send("bitswap.nonsense:1:2|c\nbitswap.nonsense:1:x|c\nbitswap.nonsense:x|c").tick();
  CHECK(desk.rejected(Reason::kUnknownName) == 2);
  CHECK(desk.rejected(Reason::kValue) == 4);
}

TEST_CASE("events: what arrives and is no line") {
  Desk desk;
  desk.send("").send("\n\n").send("bitswap.requests:1|c\n\n").tick();
  CHECK(desk.rejected(Reason::kEmpty) == 2);
  CHECK(desk.received() == 3);
  desk.ledger.packet("bitswap.requests:1|c\nbitswap.requests:1", desk.now, true);
  desk.ledger.packet("bitswap.requests:1", desk.now, true);
  desk.tick();
  CHECK(desk.rejected(Reason::kTooLong) == 2);
  CHECK(desk.value("boxo_bitswap_requests_total") == 2);
  std::string binary;
  for (int i = 0; i < 65536; ++i) binary += static_cast<char>(i * 7919 >> 3);
  desk.send(binary)
      .send(std::string(65536, ':'))
      .send(std::string(65536, '1'))
      .send(std::string(65536, '|'))
      .tick();
  CHECK(desk.value("boxo_bitswap_requests_total") == 2);
  CHECK(desk.received() == desk.rejected() + 2);
}

TEST_CASE("events: losses that clients tell of, and gaps in their numbers") {
  Desk desk;
  desk.send("agent.client.sequence:7|g|#client:a\nagent.client.sequence:1|g|#client:b").tick();
  const auto lost = [&](const char* reason) {
    return desk.value("boxo_agent_events_dropped_total", {{"reason", reason}});
  };
  CHECK(lost("sequence") == 0);
  desk.send("agent.client.sequence:8|g|#client:a").send("agent.client.sequence:11|g|#client:a").tick();
  CHECK(lost("sequence") == 2);
  desk.send("agent.client.sequence:1|g|#client:a").send("agent.client.sequence:3|g|#client:a").tick();
  CHECK(lost("sequence") == 3);
  desk.send(
          "agent.client.dropped:5|c|#reason:closed,client:a\nagent.client.dropped:2|c|#client:a\n"
          "agent.client.dropped:2|c|#reason:No "
          "Reason\ndatadog.dogstatsd.client.packets_dropped:4|c|#client:go\n"
          "datadog.dogstatsd.client.metrics:400|c|#client:go\ndatadog.dogstatsd.client.bytes_sent:400|c")
      .tick();
  CHECK(lost("closed") == 5);
  CHECK(lost("other") == 4);
  CHECK(lost("client_datagrams") == 4);
  CHECK(desk.rejected() == 0);
  for (int i = 0; i < 100; ++i) desk.send("agent.client.dropped:1|c|#reason:r" + std::to_string(i));
  for (int i = 0; i < 1000; ++i) desk.send("agent.client.sequence:1|g|#client:c" + std::to_string(i));
  desk.tick();
  CHECK(desk.page.find("boxo_agent_events_dropped_total")->samples.size() <= 16);
  CHECK(desk.rejected() == 0);
}
