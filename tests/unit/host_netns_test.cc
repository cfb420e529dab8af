// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <fstream>

#include "collectors/host/netns.h"
#include "tests/unit/fake_proc.h"
#include "tests/unit/host_run.h"

using namespace boxo::host;
using boxo::test::FakeProc;
using boxo::test::Run;

TEST_CASE("interfaces: the first four columns each way, of lines that are whole") {
  constexpr std::string_view kText =
      "Inter-|   Receive                                                |  Transmit\n"
      " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"
      "    lo: 100 2 3 4 5 6 7 8 110 12 13 14 15 16 17 18\n"
      "eth0:1: 1 0 0 0 0 0 0 0 18446744073709551615 0 0 0 0 0 0 0\n"
      "  half: 1 2 3\n"
      "  text: a 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
      "      : 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n";
  const auto found = parse_interfaces(kText);
  REQUIRE(found.size() == 2);
  CHECK(found[0].first == "lo");
  CHECK(found[0].second.values == std::array<std::uint64_t, 8>{100, 2, 3, 4, 110, 12, 13, 14});
  CHECK(found[1].first == "eth0:1");
  CHECK(found[1].second.values[4] == 18446744073709551615U);
  CHECK(parse_interfaces("").empty());
}

TEST_CASE("counters of protocols: by the name above the value") {
  constexpr std::string_view kText =
      "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 1 2\nUdp: InErrors RcvbufErrors\nUdp: 3 4\nUdpLite: RcvbufErrors\n"
      "UdpLite: 5\n";
  CHECK(protocol_counter(kText, "TcpExt:", "ListenOverflows") == 2);
  CHECK(protocol_counter(kText, "Udp:", "RcvbufErrors") == 4);
  for (const auto& [group, name] : std::initializer_list<std::pair<const char*, const char*>>{
           {"Udp:", "Nothing"}, {"Nothing:", "RcvbufErrors"}, {"Udp", "RcvbufErrors"}})
    CHECK_FALSE(protocol_counter(kText, group, name));
  for (const char* bad : {"", "Udp:", "Udp: RcvbufErrors", "Udp: RcvbufErrors\nTcp: 1\n", "Udp: A RcvbufErrors\nUdp: 1\n",
                          "Udp: RcvbufErrors\nUdp: -1\n"})
    CHECK_FALSE(protocol_counter(bad, "Udp:", "RcvbufErrors"));
}

TEST_CASE("interfaces: of more than 64 the rest is one row, which never goes back") {
  FakeProc proc{{100, 1, 10}};
  proc.put("100/net/dev");
  const auto put = [&proc](int interfaces, int bytes) {
    // The same file: its inode stands for the namespace.
    std::ofstream out(proc.path("100/net/dev"));
    for (int i = 0; i < interfaces; ++i)
      out << "veth" << 100 + i << ": " << bytes << " 2 0 0 0 0 0 0 7 1 0 3 0 0 0 0\n";
  };
  const std::string name = "boxo_network_interface_";
  Run run("netns", boxo::test::pid(100), proc.path());
  put(64, 1000);
  run.tick();
  CHECK(run.value(name + "bytes_total", {"veth163", "received"}) == 1000);
  CHECK_FALSE(run.value(name + "bytes_total", {"other", "received"}));
  put(67, 1000);
  run.tick();
  CHECK(run.value(name + "bytes_total", {"other", "received"}) == 3000);
  CHECK(run.value(name + "packets_total", {"other", "received"}) == 6);
  CHECK(run.value(name + "bytes_total", {"other", "sent"}) == 21);
  CHECK(run.value(name + "drops_total", {"other", "sent"}) == 9);
  CHECK_FALSE(run.value(name + "bytes_total", {"veth164", "received"}));
  put(65, 1001);
  run.tick();
  CHECK(run.value(name + "bytes_total", {"other", "received"}) == 3001);
  CHECK(run.value(name + "bytes_total", {"veth163", "received"}) == 1001);
}
