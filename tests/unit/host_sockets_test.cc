// SPDX-License-Identifier: MIT OR Apache-2.0
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>
#include <map>

#include "collectors/reading.h"
#include "collectors/host/sock_diag.h"
#include "collectors/host/socket_ledger.h"
#include "tests/unit/host_helpers.h"
#include "tests/unit/tree.h"

using namespace boxo;
using namespace boxo::host;
using boxo::test::Child;
using boxo::test::only;
using boxo::test::process_of;
using boxo::test::Tree;

namespace {

sockaddr_in loopback(std::uint16_t port = 0) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

/// A listening socket, and its address.
int listen_on_loopback(sockaddr_in& address, int protocol = 0, int backlog = 16) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, protocol);
  address = loopback();
  socklen_t size = sizeof address;
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, backlog) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return -1;
  return fd;
}

int connect_to(const sockaddr_in& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) std::abort();
  return fd;
}

/// A fixed set of sockets: 1 listening, 3 pairs over which 10,000 bytes went one way and 10 the other, 2
/// connections not accepted, 2 UDP (one connected), a Unix pair.
void open_sockets() {
  sockaddr_in address{};
  const int listener = listen_on_loopback(address);
  const std::string text(10'000, 'x');
  for (int i = 0; i < 3; ++i) {
    const int client = connect_to(address);
    const int server = ::accept(listener, nullptr, nullptr);
    if (::write(client, text.data(), text.size()) != 10'000) std::abort();
    std::string got(text.size(), '\0');
    for (std::size_t read = 0; read < text.size();)
      read += static_cast<std::size_t>(::read(server, got.data(), got.size()));
    if (::write(server, text.data(), 10) != 10 || ::read(client, got.data(), 10) != 10) std::abort();
  }
  for (int i = 0; i < 2; ++i) connect_to(address);
  auto any = loopback();
  const int plain = ::socket(AF_INET, SOCK_DGRAM, 0);
  ::bind(plain, reinterpret_cast<sockaddr*>(&any), sizeof any);
  auto fixed = loopback(9);
  ::connect(::socket(AF_INET, SOCK_DGRAM, 0), reinterpret_cast<sockaddr*>(&fixed), sizeof fixed);
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) std::abort();
}

using Counts = std::map<std::pair<Protocol, int>, int>;

Counts counts(const SocketLedger& ledger) {
  Counts out;
  for (const Socket& socket : ledger.own()) ++out[{socket.protocol, socket.state}];
  return out;
}

const Counts kExpected = {{{Protocol::kTcp, kListening}, 1},
                          {{Protocol::kTcp, kEstablished}, 8},
                          {{Protocol::kUdp, kEstablished}, 1},
                          {{Protocol::kUdp, kClosed}, 1},
                          {{Protocol::kUnix, kEstablished}, 2}};

std::vector<Socket> diag(const std::vector<Process>& processes) {
  auto diag = SockDiag::open(processes.front());
  REQUIRE_MESSAGE(diag, diag.error().text());
  std::vector<Socket> sockets;
  for (const Protocol protocol : kProtocols) CHECK(diag->read(protocol, sockets));
  return sockets;
}

void check_bytes(const SocketLedger& ledger) {
  CHECK(ledger.total(SocketLedger::kSent) == 3 * 10'010);
  CHECK(ledger.total(SocketLedger::kReceived) == 3 * 10'010);
}

}  // namespace

TEST_CASE("sockets: states and bytes of one process, and not of others") {
  const Child other(open_sockets);
  Child child(open_sockets);
  const auto processes = only(child.pid());
  SocketLedger ledger;
  for (int round = 0; round < 2; ++round) {
    ledger.update(processes, diag(processes));
    CHECK(ledger.owner().trouble() == "");
    CHECK(counts(ledger) == kExpected);
    check_bytes(ledger);
  }
  int with_rtt = 0;
  for (const Socket& socket : ledger.own()) {
    if (socket.protocol == Protocol::kTcp && socket.state == kListening) {
      CHECK(socket.receive_queue == 2);
      CHECK(socket.send_queue == 16);
    }
    if (socket.rtt_us > 0) ++with_rtt;
  }
  CHECK(with_rtt >= 6);

  // Closed sockets keep what they had counted.
  const auto sockets = diag(processes);
  child.end();
  ledger.update({}, sockets);
  CHECK(ledger.own().empty());
  check_bytes(ledger);
}

TEST_CASE("sockets: in another network namespace") {
  const Child child([] {
    if (::unshare(CLONE_NEWNET) != 0) return;
    const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    ::ioctl(fd, SIOCSIFFLAGS, &request);
    ::close(fd);
    open_sockets();
  });
  const auto processes = only(child.pid());
  const auto self = network_namespace(*Dir::open("/proc/self"));
  if (*network_namespace(processes.front().proc) == *self) {
    MESSAGE("skipped: unshare(CLONE_NEWNET) is not allowed here");
    return;
  }
  SocketLedger ledger;
  ledger.update(processes, diag(processes));
  CHECK(counts(ledger) == kExpected);
  check_bytes(ledger);
  // This thread has not moved.
  CHECK(*network_namespace(*Dir::open("/proc/thread-self")) == *self);

  // The same by the text tables: states, no bytes.
  SocketLedger tables;
  std::vector<Socket> sockets;
  for (const Protocol protocol : kProtocols) REQUIRE(read_socket_table(processes.front(), protocol, sockets));
  tables.update(processes, sockets);
  CHECK(counts(tables) == kExpected);
  CHECK(tables.total(SocketLedger::kSent) == 0);
}

TEST_CASE("sockets: the FIN of the other side is no byte, and what was sent is counted when it is sent") {
  sockaddr_in address{};
  const int listener = listen_on_loopback(address);
  const int client = connect_to(address);
  const int server = ::accept(listener, nullptr, nullptr);
  REQUIRE(::write(client, "12345", 5) == 5);
  ::close(client);
  ::usleep(50'000);
  const auto processes = only(::getpid());
  const auto sockets = diag(processes);
  const std::string link = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(server));
  bool found = false;
  for (const Socket& socket : sockets) {
    if (link != "socket:[" + std::to_string(socket.inode) + "]") continue;
    found = true;
    CHECK(socket.state == kCloseWait);
    CHECK(socket.received == 5);
    CHECK(socket.receive_queue >= 5);
  }
  CHECK(found);
  ::close(server);
  ::close(listener);
}

TEST_CASE(
    "sockets: a descriptor that is used again for a socket is noticed though the number of descriptors is "
    "the same") {
  const auto processes = only(::getpid());
  SocketLedger ledger;
  const int file = ::open("/dev/null", O_RDONLY);
  ledger.update(processes, diag(processes));
  const std::size_t before = ledger.own().size();
  // A file becomes a socket.
  ::close(file);
  sockaddr_in address{};
  const int listener = listen_on_loopback(address);
  CHECK(listener == file);
  const auto update = [&] {
    ::usleep(20'000);  // looks are at least a few of their own durations apart
    ledger.update(processes, diag(processes));
    return ledger.own().size() - before;
  };
  CHECK(update() == 1);
  // A socket becomes another socket.
  ::close(listener);
  CHECK(listen_on_loopback(address) == listener);
  CHECK(update() == 1);
  // A socket becomes a file.
  ::close(listener);
  CHECK(::open("/dev/null", O_RDONLY) == listener);
  CHECK(update() == 0);
  ::close(listener);
}

TEST_CASE("sockets: one that two processes of the target share counts once") {
  const Child child([] {
    open_sockets();
    const pid_t parent = ::getpid();
    if (::fork() == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (::getppid() == parent) ::pause();
      ::_exit(0);
    }
  });
  pid_t grandchild = 0;
  const std::string children = *Dir::open("/proc/" + std::to_string(child.pid()))
                                    ->read("task/" + std::to_string(child.pid()) + "/children");
  grandchild = static_cast<pid_t>(std::strtol(children.c_str(), nullptr, 10));
  auto processes = only(child.pid());
  processes.push_back(process_of(grandchild));
  SocketLedger ledger;
  ledger.update(processes, diag(processes));
  CHECK(counts(ledger) == kExpected);
  check_bytes(ledger);
}

TEST_CASE("sockets: with MPTCP, which Go uses for listening, the sockets are found as well") {
  sockaddr_in address{};
  constexpr int kMptcp = 262;
  const int listener = listen_on_loopback(address, kMptcp);
  if (listener < 0) {
    MESSAGE("skipped: this kernel has no MPTCP");
    return;
  }
  const auto processes = only(::getpid());
  SocketLedger ledger;
  ledger.update(processes, diag(processes));
  Counts before = counts(ledger);
  const int client = connect_to(address);
  const int server = ::accept(listener, nullptr, nullptr);
  Counts after;
  // Looks are at least twenty times their own duration apart, which is long on a busy machine.
  for (int tries = 0; tries < 250 && after[{Protocol::kTcp, kEstablished}] == before[{Protocol::kTcp, kEstablished}];
       ++tries) {
    ::usleep(20'000);
    ledger.update(processes, diag(processes));
    after = counts(ledger);
  }
  CHECK(after[{Protocol::kTcp, kEstablished}] == before[{Protocol::kTcp, kEstablished}] + 2);
  CHECK(after[{Protocol::kTcp, kListening}] == before[{Protocol::kTcp, kListening}]);
  CHECK(before[{Protocol::kTcp, kListening}] >= 1);
  ::close(client);
  ::close(server);
  ::close(listener);
}

TEST_CASE("sockets: text tables, well-formed and not") {
  const std::string heading =
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
  Tree tree(
      {{"stat", ""},
       {"net/tcp",
        heading +
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 123 "
            "1 0 100 0\n"
            "   1: 0100007F:1F90 0100007F:A000 01 0000000A:00000014 01:00000014 00000000     0        0 124 "
            "1 0 100 0\n"
            "   2: 0100007F:1F90 0100007F:A001 06 00000000:00000000 03:00000014 00000000     0        0 0 3 "
            "0\n"
            "garbage\n   3: x y ZZ 0:0 0 0 0 0 9\n   4: a b 01 00000000 0 0 0 0 99999999999999999999\n\n"},
       {"net/udp", heading + " 10: 0100007F:0035 00000000:0000 07 00000000:00000900 00:00000000 00000000   "
                             "101        0 125 2 0 77\n"},
       {"net/unix",
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 126 /run/a b\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 127\n"
        "0000000000000000: 00000002 00000000 00000000 0002 01 128\nx\n"}});
  const Process process{{1, 1}, {}, "", *Dir::open(tree.path())};
  std::vector<Socket> sockets;
  for (const Protocol protocol : kProtocols) REQUIRE(read_socket_table(process, protocol, sockets));
  REQUIRE(sockets.size() == 6);
  CHECK(sockets[0].state == kListening);
  CHECK(sockets[0].receive_queue == 3);
  CHECK(sockets[1].inode == 124);
  CHECK(sockets[1].send_queue == 10);
  CHECK(sockets[1].receive_queue == 20);
  CHECK(sockets[2].protocol == Protocol::kUdp);
  CHECK(sockets[2].drops == 77);
  CHECK(sockets[3].state == kListening);
  CHECK(sockets[4].state == kEstablished);
  CHECK(sockets[5].state == kClosed);
}

TEST_CASE("sockets: without a descriptor to spare that is the reason, and the mend") {
  const auto processes = only(::getpid());
  std::string text;
  {
    const test::NoDescriptors none;
    const auto opened = SockDiag::open(processes.front());
    if (!opened) text = reason(opened.error());
  }
  CHECK(text.find("Too many open files: raise how many") != std::string::npos);
}
