// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>

#include "collectors/host/socket_ledger.h"
#include "collectors/host/socket_owner.h"
#include "collectors/host/socket_sources.h"
#include "tests/unit/host_helpers.h"
#include "tests/unit/tree.h"

using namespace boxo;
using namespace boxo::host;
using boxo::test::Child;
using boxo::test::only;
using boxo::test::process_of;
using boxo::test::Tree;

namespace {

Socket tcp_socket(SocketSource source, std::uint32_t inode, std::uint64_t id, std::uint64_t sent) {
  Socket socket;
  socket.source = source;
  socket.state = kEstablished;
  socket.inode = inode;
  socket.id = id;
  if (source != SocketSource::kTables) socket.sent = sent;
  return socket;
}

/// A process whose descriptors are the sockets with these inodes.
struct WithSockets : Tree {
  WithSockets(std::initializer_list<std::uint32_t> inodes) : Tree({{"stat", ""}, {"fd/", ""}}) {
    int number = 3;
    for (const std::uint32_t inode : inodes)
      put("fd/" + std::to_string(number++), "->socket:[" + std::to_string(inode) + "]");
  }
};

}  // namespace

TEST_CASE("sockets: another source, or none for a while, counts nothing twice") {
  const WithSockets tree{11, 12, 13};
  std::vector<Process> processes;
  processes.push_back({{1, 1}, {}, "", *Dir::open(tree.path())});
  Socket udp = tcp_socket(SocketSource::kDiag, 13, 7, 0);
  udp.protocol = Protocol::kUdp;
  udp.drops = 5;
  const auto diag = [&](std::uint64_t more) {
    // Behind inode 12 there are two, as with MPTCP.
    return std::vector<Socket>{tcp_socket(SocketSource::kDiag, 11, 100, 1000 + more), udp,
                               tcp_socket(SocketSource::kDiag, 12, 200, 10),
                               tcp_socket(SocketSource::kDiag, 12, 201, 20)};
  };
  SocketLedger ledger;
  const auto update = [&](const std::vector<Socket>& sockets,
                          const SocketLedger::Complete& complete = {true, true, true}) {
    ::usleep(5'000);  // looks are at least a few of their own durations apart
    ledger.update(processes, sockets, complete);
    CHECK(ledger.owner().trouble() == "");
  };
  update(diag(0));
  CHECK(ledger.total(SocketLedger::kSent) == 1030);
  CHECK(ledger.total(SocketLedger::kDrops) == 5);
  Socket drops = udp;
  drops.source = SocketSource::kTables;
  drops.id = 0;
  drops.drops = 6;
  const std::vector<Socket> tables = {tcp_socket(SocketSource::kTables, 12, 0, 0), drops,
                                      tcp_socket(SocketSource::kTables, 12, 0, 0),
                                      tcp_socket(SocketSource::kTables, 11, 0, 0)};
  for (int round = 0; round < 2; ++round) {
    update(tables);
    CHECK(ledger.total(SocketLedger::kSent) == 1030);
    CHECK(ledger.total(SocketLedger::kDrops) == 6);
  }
  udp.drops = 7;
  update(diag(4));
  CHECK(ledger.total(SocketLedger::kSent) == 1034);
  CHECK(ledger.total(SocketLedger::kDrops) == 7);
  CHECK(ledger.own().size() == 4);
  // No answer for TCP this time.
  update({udp}, {false, true, true});
  CHECK(ledger.own().size() == 1);
  update(diag(5));
  CHECK(ledger.total(SocketLedger::kSent) == 1035);
  // A reader of the target's own: the same sockets by other numbers, one of them in two processes.
  std::vector<Socket> own = diag(6);
  for (Socket& socket : own) {
    socket.source = SocketSource::kKernel;
    socket.id += 7000;
  }
  own.push_back(own.front());
  ledger.update_own(own);
  CHECK(ledger.own().size() == 4);
  CHECK(ledger.total(SocketLedger::kSent) == 1036);
  CHECK(ledger.total(SocketLedger::kDrops) == 7);
  update(diag(7));
  CHECK(ledger.total(SocketLedger::kSent) == 1037);
  // All closed, and numbers of an inode that comes back after all count.
  update({});
  CHECK(ledger.own().empty());
  update(diag(5));
  CHECK(ledger.total(SocketLedger::kSent) == 1037 + 1035);
}

TEST_CASE("whose sockets: a process that could not be looked at is no trouble once it has ended") {
  const auto all = [](std::uint32_t) { return true; };
  const Child one([] {});
  Child other([] {});
  const auto first = only(one.pid());
  SocketOwner owner;
  owner.begin(first);
  owner.look(first, false, all);
  REQUIRE(owner.trouble().empty());
  auto both = only(one.pid());
  both.push_back(process_of(other.pid()));
  owner.begin(both);
  {
    const test::NoDescriptors none;
    owner.look(both, false, all);
  }
  CHECK(owner.trouble().find("Too many open files") != std::string::npos);
  other.end();
  for (int i = 0; i < 100 && !owner.trouble().empty(); ++i) {
    ::usleep(20'000);
    owner.begin(first);
    if (owner.wants_look(false)) owner.look(first, false, all);
  }
  CHECK(owner.trouble().empty());
}

TEST_CASE("sockets: what a process brought with it that ran before it came to the target counts from then on") {
  const WithSockets first{11, 12};
  const WithSockets second{12, 13};
  std::vector<Process> processes;
  processes.push_back({{1, 1}, {}, "", *Dir::open(first.path())});
  const auto all = [](SocketSource source, std::uint64_t more) {
    return std::vector<Socket>{tcp_socket(source, 11, 1, 1000 + more), tcp_socket(source, 12, 2, 100 + more),
                               tcp_socket(source, 13, 3, 10 + more)};
  };
  SocketLedger diag;
  const auto update = [&](std::uint64_t more) {
    ::usleep(5'000);  // looks are at least a few of their own durations apart
    diag.update(processes, all(SocketSource::kDiag, more));
    CHECK(diag.owner().trouble() == "");
    return diag.total(SocketLedger::kSent);
  };
  CHECK(update(0) == 1100);
  processes.push_back({{2, 1}, {}, "", *Dir::open(second.path())});
  processes.back().ran_before = true;
  for (int i = 0; i < 1000 && diag.own().size() < 3; ++i) CHECK(update(1) == 1102);  // 12 it shares with the first, 13 is new
  CHECK(update(2) == 1105);

  SocketLedger own;
  const auto update_own = [&](std::vector<Socket> sockets, const std::vector<SocketLedger::Range>& brought) {
    own.update_own(sockets, brought);
    return own.total(SocketLedger::kSent);
  };
  const auto at = [&](std::uint64_t more) { return all(SocketSource::kKernel, more); };
  CHECK(update_own({at(0)[0], at(0)[1]}, {}) == 1100);
  CHECK(update_own({at(1)[0], at(1)[1], at(1)[1], at(1)[2]}, {{2, 4}}) == 1102);
  CHECK(update_own({at(2)[0], at(2)[1], at(2)[1], at(2)[2]}, {}) == 1105);
}

TEST_CASE("sockets that come and go in any order count what they counted") {
  std::mt19937 random(7);
  const auto upto = [&](std::uint32_t n) { return std::uniform_int_distribution<std::uint32_t>(0, n)(random); };
  SocketLedger ledger;
  std::vector<Socket> open;
  std::uint64_t expected = 0;
  std::uint32_t inode = 1;
  for (int round = 0; round < 300; ++round) {
    for (std::uint32_t i = upto(3); i > 0 && !open.empty(); --i)
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(upto(static_cast<std::uint32_t>(open.size() - 1))));
    for (std::uint32_t i = upto(3); i > 0; --i) {
      // Addresses are used again at once, also for several behind one inode.
      const bool behind = !open.empty() && upto(3) == 0;
      Socket socket = tcp_socket(SocketSource::kKernel, behind ? open.back().inode : ++inode, 0, 0);
      socket.id = 1;
      while (std::any_of(open.begin(), open.end(), [&](const Socket& one) { return one.id == socket.id; })) ++socket.id;
      open.insert(open.begin() + upto(static_cast<std::uint32_t>(open.size())), socket);
    }
    if (upto(20) == 0) std::shuffle(open.begin(), open.end(), random);
    for (Socket& socket : open) {
      const std::uint32_t more = upto(9);
      socket.sent += more;
      expected += more;
    }
    std::vector<Socket> told = open;
    if (!told.empty() && upto(4) == 0) told.push_back(told.front());
    ledger.update_own(told);
    REQUIRE(ledger.own().size() == open.size());
    REQUIRE(ledger.total(SocketLedger::kSent) == expected);
  }
  CHECK(expected > 5000);
}

namespace {

/// A connection as an iterator tells of it, or the probe of its end.
Socket connection(std::uint32_t inode, std::uint64_t cookie, std::uint64_t sent, std::uint8_t state = kEstablished) {
  Socket socket;
  socket.source = SocketSource::kKernel;
  socket.state = state;
  socket.inode = inode;
  socket.id = inode + 1000;
  socket.cookie = cookie;
  socket.sent = sent;
  return socket;
}

void list(SocketLedger& ledger, std::vector<Socket> sockets) { ledger.update_own(sockets); }

std::uint64_t sent(const SocketLedger& ledger) { return ledger.total(SocketLedger::kSent); }

}  // namespace

TEST_CASE("sockets: what a connection had at its end is counted once, however much of it was read before") {
  SocketLedger ledger;
  list(ledger, {connection(1, 11, 100), connection(2, 12, 100)});
  ledger.ended({});
  CHECK(sent(ledger) == 200);
  SUBCASE("the rest of one that is listed no more") {
    list(ledger, {connection(2, 12, 100)});
    ledger.ended({connection(0, 11, 150, kClosed)});
    CHECK(sent(ledger) == 250);
  }
  SUBCASE("the rest of one that was closed long before it ended") {
    for (int i = 0; i < 3; ++i) list(ledger, {connection(2, 12, 100)});
    ledger.ended({connection(0, 11, 150, kClosed)});
    CHECK(sent(ledger) == 250);
  }
  SUBCASE("all of one that was never listed, with a number or without") {
    ledger.ended({connection(0, 13, 30, kClosed), connection(0, 0, 7, kClosed), connection(0, 0, 7, kClosed)});
    CHECK(sent(ledger) == 244);
  }
  SUBCASE("the kernel told of the end just before it came: it is listed still") {
    list(ledger, {connection(1, 11, 150), connection(2, 12, 100)});
    ledger.ended({connection(0, 11, 150, kClosed)});
    CHECK(sent(ledger) == 250);
    list(ledger, {connection(2, 12, 100)});
    CHECK(sent(ledger) == 250);
  }
  SUBCASE("the target is down, nothing is listed") {
    ledger.ended({connection(0, 11, 150, kClosed), connection(0, 12, 160, kClosed)});
    CHECK(sent(ledger) == 310);
    list(ledger, {});
    CHECK(sent(ledger) == 310);
  }
  SUBCASE("the socket failed to connect and has another connection already") {
    list(ledger, {connection(1, 11, 500), connection(2, 12, 100)});
    ledger.ended({connection(0, 11, 0, kClosed)});
    list(ledger, {connection(1, 11, 500), connection(2, 12, 100)});
    CHECK(sent(ledger) == 600);
  }
  SUBCASE("it was away with another process") {
    list(ledger, {connection(2, 12, 100)});
    list(ledger, {connection(1, 11, 120), connection(2, 12, 100)});
    CHECK(sent(ledger) == 220);
    list(ledger, {connection(2, 12, 100)});
    ledger.ended({connection(0, 11, 125, kClosed)});
    CHECK(sent(ledger) == 225);
  }
}

TEST_CASE("sockets: connections whose end nobody tells of do not fill the memory, and count as they were read") {
  SocketLedger ledger;
  for (std::uint32_t i = 1; i <= 70'000; ++i) list(ledger, {connection(i, i, 10)});
  CHECK(sent(ledger) == 700'000);
  list(ledger, {});
  ledger.ended({connection(0, 70'000, 15, kClosed)});
  CHECK(sent(ledger) == 700'005);
}

TEST_CASE("sockets: each protocol by itself, with its own reason") {
  std::vector<Process> processes;
  processes.push_back({{1, 1}, {}, "", *Dir::open("/proc/self")});
  const auto one = [](Protocol protocol, SocketSource source) {
    Socket socket = tcp_socket(source, static_cast<std::uint32_t>(11 + index_of(protocol)), 5, 10);
    socket.protocol = protocol;
    return socket;
  };
  int asked = 0;
  SocketSources::Doors doors;
  bool unix_table = true;
  doors.diag = [&](const Process&) -> Result<SocketSources::Read> {
    return SocketSources::Read([&](Protocol protocol, std::vector<Socket>& out) -> Result<> {
      out.push_back(one(protocol, SocketSource::kDiag));
      if (protocol == Protocol::kTcp) return {};
      ++asked;
      return Error{"sock_diag: No such file or directory", {}, ENOENT};
    });
  };
  doors.table = [&](const Process&, Protocol protocol, std::vector<Socket>& out) -> Result<> {
    if (protocol == Protocol::kUnix && !unix_table) return Error{"net/unix: Permission denied", {}, EACCES};
    out.push_back(one(protocol, SocketSource::kTables));
    return {};
  };
  SocketSources sources(doors);
  for (int round = 0; round < 2; ++round) {
    sources.read(processes);
    REQUIRE(sources.sockets().size() == 3);
    CHECK(sources.sockets()[0].source == SocketSource::kDiag);
    CHECK(sources.sockets()[1].source == SocketSource::kTables);
    CHECK(sources.details_trouble(Protocol::kTcp) == "");
    CHECK(sources.details_trouble(Protocol::kUdp).find("no udp_diag") != std::string::npos);
    CHECK(sources.details_trouble(Protocol::kUnix).find("no unix_diag") != std::string::npos);
    for (const Protocol protocol : kProtocols) CHECK(sources.trouble(protocol) == "");
  }
  // Not again at every tick: the kernel would look for a module each time.
  CHECK(asked == 2);
  unix_table = false;
  sources.read(processes);
  CHECK(sources.sockets().size() == 2);
  CHECK(sources.trouble(Protocol::kUdp) == "");
  CHECK(sources.trouble(Protocol::kUnix).find("net/unix: Permission denied") == 0);
}
