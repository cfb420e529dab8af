// SPDX-License-Identifier: MIT OR Apache-2.0
#include <map>
#include <string>
#include <utility>

#include "tests/unit/events_helpers.h"

using namespace boxo;
using namespace boxo::events;

namespace {

double sum_of(const Desk& desk, std::string_view name) {
  double sum = 0;
  if (const Family* const family = desk.page.find(name))
    for (const Sample& sample : family->samples) sum += std::get<double>(sample.value);
  return sum;
}

/// What increase() makes of the pages, summed over all series: of one that was not there the last time all is new.
class Increase {
 public:
  double look(const Desk& desk, std::string_view name) {
    std::map<std::string, double> now;
    if (const Family* const family = desk.page.find(name))
      for (const Sample& sample : family->samples) now[sample.labels.front().value] += std::get<double>(sample.value);
    for (const auto& [peer, value] : now) total_ += value < last_[peer] ? value : value - last_[peer];
    last_ = std::move(now);
    return total_;
  }

 private:
  std::map<std::string, double> last_;
  double total_ = 0;
};

std::string peer_line(int peer, int bytes) {
  return "network.bytes_sent:" + std::to_string(bytes) + "|c|#peer:p" + std::to_string(peer);
}

}  // namespace

TEST_CASE("events: the application's own metrics") {
  Desk desk;
  desk.send(
          "myapp.custom_requests:1|c\nmyapp.custom_requests:2|c|#b:2,a:1\nmyapp.custom_requests:3|c|#a:1,b:"
          "2\n"
          "myapp.queue:7|g\nmyapp.wait:5|ms\nmyapp.size:100|h\nmyapp.size:7|d\nmyapp.done_total:1|c\nplain:1|"
          "c\n"
          "my-app/x:1|g|#k:va\\lue \xff\n")
      .tick();
  CHECK(desk.value("boxo_myapp_custom_requests_total") == 1);
  CHECK(desk.value("boxo_myapp_custom_requests_total", {{"a", "1"}, {"b", "2"}}) == 5);
  CHECK(desk.value("boxo_myapp_queue") == 7);
  CHECK(desk.histogram("boxo_myapp_wait_seconds").counts[1] == 1);
  CHECK(desk.histogram("boxo_myapp_wait_seconds").sum == .005);
  CHECK(desk.histogram("boxo_myapp_size").sum == 107);
  CHECK(desk.value("boxo_myapp_done_total") == 1);
  CHECK(desk.value("boxo_plain_total") == 1);
  CHECK(desk.value("boxo_my_app_x", {{"k", "va\\lue \\xff"}}) == 1);
  CHECK(desk.rejected() == 0);
  const Metric& metric = *desk.page.find("boxo_myapp_wait_seconds")->metric;
  CHECK(metric.type == MetricType::kHistogram);
  CHECK(metric.unit == "seconds");
}

TEST_CASE("events: a value that is refused makes no series") {
  Desk desk;
  desk.send("myapp.wait:-5|ms\nmyapp.count:-1|c").tick();
  CHECK(desk.page.find("boxo_myapp_wait_seconds") == nullptr);
  CHECK(desk.page.find("boxo_myapp_count_total") == nullptr);
}

TEST_CASE("events: label values that escape alike are one series") {
  Desk desk;
  desk.send("x:1|c|#k:\xff\nx:1|c|#k:\\xff\nx:1|c|#k:\xff").tick();
  CHECK(desk.page.find("boxo_x_total")->samples.size() == 1);
  CHECK(desk.value("boxo_x_total", {{"k", "\\xff"}}) == 3);
}

TEST_CASE("events: ten thousand label values stay within --series") {
  Desk desk(small(1000, 100, 50));
  for (int round = 0; round < 2; ++round)
    for (int i = 0; i < 10000; ++i) desk.send("x:1|c|#k:" + std::to_string(i));
  desk.send("y:1|c\nbitswap.requests:1|c").tick();
  CHECK(desk.page.find("boxo_x_total")->samples.size() == 50);
  CHECK(sum_of(desk, "boxo_x_total") == 100);
  CHECK(desk.page.find("boxo_y_total") == nullptr);
  CHECK(desk.value("boxo_agent_series_dropped_total", {{"family", "boxo_x_total"}}) == 19900);
  CHECK(desk.value("boxo_agent_series_dropped_total", {{"family", "other"}}) == 1);
  CHECK(desk.rejected(Reason::kSeriesLimit) == 19901);
  CHECK(desk.value("boxo_bitswap_requests_total") == 1);
}

TEST_CASE("events: long labels are bounded in all") {
  Desk desk(small(1000, 100, 1000));
  std::string tags;
  for (int i = 0; i < 15; ++i) tags += ",t" + std::to_string(i) + ":" + std::string(kMaxTagValue, 'v');
  for (int i = 0; i < 1000; ++i) desk.send("x:1|c|#k:" + std::to_string(i) + tags);
  desk.tick();
  CHECK(desk.page.find("boxo_x_total")->samples.size() < 200);
  CHECK(desk.rejected(Reason::kSeriesLimit) > 800);
}

TEST_CASE("events: peers have series of their own, and silent ones lose them") {
  Desk desk;
  desk.send(
          "network.bytes_sent:10|c|#peer:a\nnetwork.bytes_received:20|c|#peer:a\nnetwork.connection_errors:1|"
          "c|#peer:a\n"
          "network.latency:20:40|ms|#peer:a\nnetwork.bandwidth:100:300|h|#peer:a\nnetwork.bytes_sent:5|c")
      .tick();
  const Labels a = {{"peer", "a"}};
  const Labels other = {{"peer", "other"}};
  CHECK(desk.value("boxo_network_peer_bytes_sent_total", a) == 10);
  CHECK(desk.value("boxo_network_peer_bytes_received_total", a) == 20);
  CHECK(desk.value("boxo_network_peer_errors_total", a) == 1);
  CHECK(desk.value("boxo_network_peer_latency_seconds", a) == .03);
  CHECK(desk.value("boxo_network_peer_bandwidth_bytes_per_second", a) == 200);
  CHECK(desk.value("boxo_network_bytes_sent_total") == 15);
  CHECK(!desk.value("boxo_network_peer_bytes_sent_total", other));
  desk.tick(599);
  CHECK(desk.value("boxo_network_peer_bytes_sent_total", a) == 10);
  desk.tick(2);
  CHECK(!desk.value("boxo_network_peer_bytes_sent_total", a));
  CHECK(!desk.value("boxo_network_peer_latency_seconds", a));
  CHECK(!desk.value("boxo_network_peer_bytes_sent_total", other));  // it has shown all that it had
  desk.send("network.bytes_sent:3|c|#peer:a").tick();
  CHECK(desk.value("boxo_network_peer_bytes_sent_total", a) == 3);
  CHECK(desk.value("boxo_network_bytes_sent_total") == 18);
}

TEST_CASE("events: the busiest peers keep their series, the rest is summed, all together grow by what was counted") {
  Desk desk(small(1000, 10));
  Increase increase;
  for (int peer = 0; peer < 100; ++peer) desk.send(peer_line(peer, 1 + peer));
  desk.tick();
  double total = 5050;
  CHECK(increase.look(desk, "boxo_network_peer_bytes_sent_total") == total);
  for (int round = 0; round < 3; ++round) {
    for (int peer = 0; peer < 100; ++peer) desk.send(peer_line(peer, 1000 * (1 + peer)));
    total += 5050000;
    desk.tick();
    CHECK(increase.look(desk, "boxo_network_peer_bytes_sent_total") == total);
    CHECK(desk.page.find("boxo_network_peer_bytes_sent_total")->samples.size() == 11);
  }
  for (int peer = 91; peer < 100; ++peer)
    CHECK(
        desk.value("boxo_network_peer_bytes_sent_total", {{"peer", "p" + std::to_string(peer)}}).has_value());
  // A peer may call itself what it wants.
  desk.send("network.bytes_sent:1000000000|c|#peer:other").tick();
  CHECK(increase.look(desk, "boxo_network_peer_bytes_sent_total") == total + 1e9);
  CHECK(desk.page.find("boxo_network_peer_bytes_sent_total")->samples.size() == 11);
}

TEST_CASE("events: a busy peer is found among a hundred thousand that come and go") {
  Desk desk(small(1000, 10));
  Increase increase;
  int small_peer = 1000;
  for (int round = 0; round < 100; ++round) {
    for (int busy = 0; busy < 10; ++busy) desk.send(peer_line(busy, 100000));
    for (int i = 0; i < 1000; ++i) desk.send(peer_line(small_peer++, 10));
    if (round % 10 != 9) continue;
    desk.tick();
    CHECK(increase.look(desk, "boxo_network_peer_bytes_sent_total") == (round + 1) * (10 * 100000 + 1000 * 10));
  }
  for (int busy = 0; busy < 10; ++busy)
    CHECK(
        desk.value("boxo_network_peer_bytes_sent_total", {{"peer", "p" + std::to_string(busy)}}).has_value());
}

TEST_CASE("events: --peers 0 sums all of them") {
  Desk desk(small(1000, 0));
  desk.send(peer_line(1, 5) + "\n" + peer_line(2, 6)).tick();
  CHECK(desk.value("boxo_network_peer_bytes_sent_total", {{"peer", "other"}}) == 11);
}

TEST_CASE("events: every metric that is exported is described, once") {
  std::string names;
  for (const Metric& metric : Publisher::metrics()) {
    CAPTURE(metric.name);
    CHECK(metric.name.starts_with("boxo_"));
    CHECK(!metric.help.empty());
    CHECK(names.find(" " + std::string(metric.name) + " ") == std::string::npos);
    names += " " + std::string(metric.name) + " ";
    const bool named_total =
        metric.name.ends_with("_total") && metric.name != "boxo_resource_goroutines_total";
    CHECK(named_total == (metric.type == MetricType::kCounter));
  }
}
