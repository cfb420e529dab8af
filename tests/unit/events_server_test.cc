// SPDX-License-Identifier: MIT OR Apache-2.0
#include <grp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "collectors/events/server.h"
#include "tests/unit/events_helpers.h"

using namespace boxo;
using namespace boxo::events;
namespace fs = std::filesystem;

namespace {

/// A directory for sockets that everybody may enter.
class Folder {
 public:
  Folder() : path_(::mkdtemp(name_)) { ::chmod(path_.c_str(), 0755); }
  ~Folder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  char name_[32] = "/tmp/events-XXXXXX";
  std::string path_;
};

/// A client's socket, connected to the path; blocking.
class Sender {
 public:
  explicit Sender(std::string path, int type = SOCK_DGRAM, bool now = true)
      : fd_(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0)), path_(std::move(path)) {
    const timeval patience{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    connected_ = now && connect();
  }
  bool connect() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path_.c_str());
    return ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  bool connected() const { return connected_; }
  bool send(std::string_view bytes) const {
    return ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }
  bool frame(std::string_view bytes) const {
    std::string out;
    for (int i = 0; i < 4; ++i) out += static_cast<char>(bytes.size() >> (8 * i));
    return send(out.append(bytes));
  }
  /// Whether the other side has closed.
  bool closed() const {
    char byte;
    const ssize_t n = ::recv(fd_.get(), &byte, 1, 0);
    return n == 0 || (n < 0 && errno != EAGAIN);
  }

 private:
  Fd fd_;
  std::string path_;
  bool connected_ = false;
};

EventOptions at(const std::string& path, const std::string& stream = {}) {
  EventOptions options;
  options.socket = path;
  options.stream = stream;
  return options;
}

std::unique_ptr<EventServer> open(const EventOptions& options) {
  auto server = EventServer::open(options);
  if (!server) FAIL(server.error().text());
  return std::move(*server);
}

Reading take(EventServer& server, const EventServer::Notice& notice = {}) {
  Reading reading;
  REQUIRE(server.take(notice, reading));
  return reading;
}

/// Takes until so much has been received: what senders have sent may still be in the kernel's queue.
Reading take_until(EventServer& server, std::uint64_t received, const EventServer::Notice& notice = {}) {
  for (int i = 0; i < 2000; ++i) {
    Reading reading = take(server, notice);
    if (reading.received >= received) return reading;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return take(server, notice);
}

double count(const Reading& reading, Count which) {
  return reading.counts[static_cast<std::size_t>(which)].value;
}
std::uint64_t rejected(const Reading& reading, Reason reason) {
  return reading.rejected[static_cast<std::size_t>(reason)];
}

/// Runs `work` in a child process; what it returns is the child's exit status.
int in_child(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::string repeated(std::string_view line, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += line;
  return out;
}

}  // namespace

TEST_CASE("events: a million lines through the socket are a million") {
  const Folder folder;
  const auto server = open(at(folder / "e"));
  const Sender sender(folder / "e");
  const std::string packet = repeated("bitswap.requests:1|c\n", 250);
  for (int i = 0; i < 4000; ++i) REQUIRE(sender.send(packet));
  const Reading reading = take_until(*server, 1'000'000);
  CHECK(reading.received == 1'000'000);
  CHECK(count(reading, Count::kRequests) == 1e6);
  CHECK(reading.cpu_seconds > 0);
  CHECK(reading.queue_peak >= 1);
}

TEST_CASE("events: four senders that wait lose nothing while ticks go on") {
  const Folder folder;
  const auto server = open(at(folder / "e", folder / "s"));
  std::vector<std::thread> senders;
  for (int i = 0; i < 4; ++i)
    senders.emplace_back([&folder, i] {
      const bool stream = i == 3;
      const Sender sender(folder / (stream ? "s" : "e"), stream ? SOCK_STREAM : SOCK_DGRAM);
      const std::string packet = repeated(
          "network.bytes_sent:3|c|#peer:p" + std::to_string(i) + "\nown.x:1|c\nnetwork.latency:1|ms\n", 50);
      for (int n = 0; n < 1000; ++n) stream ? sender.frame(packet) : sender.send(packet);
    });
  double last = 0;
  for (int tick = 0; tick < 100; ++tick) {
    const auto before = std::chrono::steady_clock::now();
    const Reading reading = take(*server);
    CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(1));
    CHECK(count(reading, Count::kBytesSent) >= last);
    last = count(reading, Count::kBytesSent);
  }
  for (std::thread& sender : senders) sender.join();
  const Reading reading = take_until(*server, 600'000);
  CHECK(reading.received == 600'000);
  CHECK(count(reading, Count::kBytesSent) == 600'000);
  REQUIRE(reading.custom.size() == 1);
  CHECK(reading.custom[0].cell.value == 200'000);
}

TEST_CASE("events: stops at once under a flood") {
  const Folder folder;
  auto server = open(at(folder / "e"));
  std::thread flood([path = folder / "e"] {
    const Sender sender(path);
    const std::string packet = repeated("a:1|c\n", 10000);
    while (sender.send(packet)) {
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const auto before = std::chrono::steady_clock::now();
  server.reset();
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::milliseconds(500));
  flood.join();
  CHECK(!fs::exists(folder / "e"));
}

TEST_CASE("events: a stale socket is replaced, a live one is not stolen") {
  const Folder folder;
  {
    // Bound and closed without unlink: what a process leaves that was killed.
    auto left = UnixSocket::bind(SOCK_DGRAM, {"--events", folder / "other", 0666, {}});
    REQUIRE(left);
    fs::rename(folder / "other", folder / "e");
  }
  REQUIRE(fs::exists(folder / "e"));
  const auto server = open(at(folder / "e", folder / "s"));
  for (const auto& options : {at(folder / "e"), at("", folder / "s"), at("", folder / "e")}) {
    const auto second = EventServer::open(options);
    REQUIRE(!second);
    CHECK(second.error().text().find(options.socket.empty() ? "--events-stream" : "--events") == 0);
    CHECK(second.error().text().find("another process") != std::string::npos);
  }
  CHECK(Sender(folder / "e").send("bitswap.requests:1|c"));
  CHECK(count(take_until(*server, 1), Count::kRequests) == 1);
}

TEST_CASE("events: only its own path is removed at the end") {
  const Folder folder;
  auto server = open(at(folder / "e"));
  fs::rename(folder / "e", folder / "moved");
  const auto second = open(at(folder / "e"));
  server.reset();
  CHECK(fs::exists(folder / "e"));
}

TEST_CASE("events: paths that cannot be") {
  const Folder folder;
  std::FILE* const file = std::fopen((folder / "file").c_str(), "w");
  std::fclose(file);
  fs::create_symlink(folder / "nowhere", folder / "link");
  for (const std::string& path : {folder / "file", folder / "link", folder / "no/folder",
                                  folder / std::string(200, 'x'), std::string("/proc/e")}) {
    CAPTURE(path);
    const auto server = EventServer::open(at(path));
    REQUIRE(!server);
    CHECK(server.error().text().find("--events " + path) == 0);
    CHECK(!server.error().hint.empty());
  }
  CHECK(fs::exists(folder / "file"));
  EventOptions options = at(folder / "e");
  options.group = "no-such-group";
  CHECK(!EventServer::open(options));
}

TEST_CASE("events: mode and group of the socket") {
  const Folder folder;
  struct Row {
    unsigned mode;
    const char* group;
    mode_t expected;
  };
  for (const Row& row :
       {Row{0, "", 0666}, Row{0600, "", 0600}, Row{0, "12345", 0660}, Row{0666, "12345", 0666}}) {
    if (*row.group != '\0' && ::geteuid() != 0) continue;
    EventOptions options = at(folder / "e", folder / "s");
    options.mode = row.mode;
    options.group = row.group;
    const auto server = open(options);
    for (const char* name : {"e", "s"}) {
      struct stat found {};
      REQUIRE(::stat((folder / name).c_str(), &found) == 0);
      CHECK((found.st_mode & 07777) == row.expected);
      if (*row.group != '\0') CHECK(found.st_gid == 12345);
    }
  }
}

TEST_CASE("events: who may send") {
  if (::geteuid() != 0) return;
  const Folder folder;
  const auto send_as = [&](uid_t uid, gid_t gid, gid_t also) {
    return in_child([&] {
      const gid_t groups[] = {also};
      if (::setgroups(also != 0 ? 1 : 0, groups) != 0 || ::setresgid(gid, gid, gid) != 0 ||
          ::setresuid(uid, uid, uid) != 0)
        return 9;
      const Sender datagrams(folder / "e");
      const Sender streams(folder / "s", SOCK_STREAM);
      if (!datagrams.connected() || !streams.connected()) return 1;
      streams.frame("bitswap.requests:1|c");
      return datagrams.send("bitswap.requests:1|c") ? 0 : 2;
    });
  };
  EventOptions options = at(folder / "e", folder / "s");
  {
    const auto server = open(options);
    CHECK(send_as(0, 0, 0) == 0);
    CHECK(count(take_until(*server, 2), Count::kRequests) == 2);
    CHECK(send_as(4321, 4321, 0) == 0);
    Reading reading = take_until(*server, 4);
    CHECK(rejected(reading, Reason::kCredentials) == 2);
    CHECK(reading.last_refused.find("uid 4321, gid 4321") != std::string::npos);
    CHECK(send_as(4321, 4321, 0) == 0);
    reading = take_until(*server, 6);
    take(*server, {{4321}, 0});
    CHECK(send_as(4321, 4321, 0) == 0);
    reading = take_until(*server, 8, {{4321}, 0});
    CHECK(rejected(reading, Reason::kCredentials) == 4);
    CHECK(count(reading, Count::kRequests) == 4);
  }
  {
    options.group = "12345";
    options.mode = 0666;
    const auto server = open(options);
    CHECK(send_as(4321, 12345, 0) == 0);
    CHECK(count(take_until(*server, 2), Count::kRequests) == 2);
    CHECK(send_as(4321, 4321, 0) == 0);
    CHECK(rejected(take_until(*server, 4), Reason::kCredentials) == 2);
  }
  {
    // Its second group lets the sender through the mode, and nobody gets there without.
    options.mode = 0;
    const auto server = open(options);
    CHECK(send_as(4321, 4321, 12345) == 0);
    CHECK(send_as(4321, 4321, 0) == 1);
    CHECK(count(take_until(*server, 2), Count::kRequests) == 2);
  }
}

TEST_CASE("events: frames on a stream") {
  const Folder folder;
  const auto server = open(at("", folder / "s"));
  const Sender sender(folder / "s", SOCK_STREAM);
  std::string bytes;
  for (const std::string& packet :
       {std::string("bitswap.requests:1|c"), std::string("bitswap.requests:1|c\nbad\n"),
        repeated("bitswap.requests:1|c\n", 3000)}) {
    for (int i = 0; i < 4; ++i) bytes += static_cast<char>(packet.size() >> (8 * i));
    bytes += packet;
  }
  // Cut anywhere, the frames are the same.
  for (std::size_t at = 0; at < 64; ++at) sender.send(bytes.substr(at, 1));
  sender.send(bytes.substr(64));
  Reading reading = take_until(*server, 3003);
  CHECK(count(reading, Count::kRequests) == 3002);
  CHECK(rejected(reading, Reason::kMalformed) == 1);
  sender.frame("");
  CHECK(rejected(take_until(*server, 3004), Reason::kEmpty) == 1);
  sender.send("\xff\xff\xff\xff");
  CHECK(sender.closed());
  { Sender(folder / "s", SOCK_STREAM).send("\x05"); }
  CHECK(rejected(take_until(*server, 3006), Reason::kFrame) == 2);
  std::vector<std::unique_ptr<Sender>> many;
  for (int i = 0; i < 300; ++i) many.push_back(std::make_unique<Sender>(folder / "s", SOCK_STREAM));
  CHECK(rejected(take_until(*server, 3006 + 44), Reason::kConnections) == 44);
  CHECK(many.back()->closed());
  many.front()->frame("bitswap.requests:1|c");
  CHECK(count(take_until(*server, 3051), Count::kRequests) == 3003);
}

TEST_CASE("events: a connection has ended also where another process holds its socket") {
  const Folder folder;
  const auto server = open(at("", folder / "s"));
  const Sender sender(folder / "s", SOCK_STREAM);
  sender.frame("bitswap.requests:1|c");
  REQUIRE(take_until(*server, 1).received == 1);
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  sender.send("\xff\xff\xff\xff");
  CHECK(rejected(take_until(*server, 2), Reason::kFrame) == 1);
  CHECK(sender.closed());
  // Nothing that the thread would wake up for, again and again, is left.
  const double cpu = take(*server).cpu_seconds;
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const Reading reading = take(*server);
  CHECK(reading.cpu_seconds - cpu < 0.1);
  CHECK(reading.received == 2);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST_CASE("events: without a descriptor for a connection the thread does not spin, and goes on afterwards") {
  const Folder folder;
  const int status = in_child([&] {
    auto server = open(at(folder / "e", folder / "s"));
    const Sender datagrams(folder / "e");
    const Sender first(folder / "s", SOCK_STREAM);
    first.frame("bitswap.requests:1|c");
    if (take_until(*server, 1).received != 1) return 1;
    // The one for the client's end is there already, the agent's end gets none.
    const Sender late(folder / "s", SOCK_STREAM, false);
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit low{3, limit.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &low);
    if (!late.connect()) return 2;
    late.frame("bitswap.requests:1|c");
    Reading reading = take(*server);
    for (int i = 0; i < 1000 && reading.accept_failures == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      reading = take(*server);
    }
    if (reading.accept_failures == 0) return 3;
    const double cpu = reading.cpu_seconds;
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    // What is open goes on meanwhile.
    datagrams.send("bitswap.requests:1|c");
    first.frame("bitswap.requests:1|c");
    reading = take_until(*server, 3);
    if (reading.received != 3) return 4;
    if (reading.accept_failures > 10) return 5;
    if (reading.cpu_seconds - cpu > 0.5) return 6;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    return take_until(*server, 4).received == 4 ? 0 : 7;
  });
  CHECK(status == 0);
}

TEST_CASE("events: datagrams that are too large are cut after their last whole line") {
  const Folder folder;
  const auto server = open(at(folder / "e"));
  const Sender sender(folder / "e");
  REQUIRE(sender.send(repeated("bitswap.requests:1|c\n", 4000)));
  REQUIRE(sender.send(""));
  const Reading reading = take_until(*server, 3122);
  CHECK(count(reading, Count::kRequests) == 65536 / 21);
  CHECK(rejected(reading, Reason::kTooLong) == 1);
  CHECK(rejected(reading, Reason::kEmpty) == 1);
}

TEST_CASE("events: sockets that systemd opened keep what was queued") {
  const Folder folder;
  const int status = in_child([&] {
    auto ours = UnixSocket::bind(SOCK_DGRAM, {"--events", folder / "e", 0666, {}});
    const int on = 1;
    ::setsockopt(ours->fd(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on);  // PassCredentials=yes
    const Sender sender(folder / "e");
    sender.send("bitswap.requests:5|c");
    // The descriptor 3 of a child may be in use for something of the test's own.
    ::dup2(ours->fd(), 3);
    ::setenv("LISTEN_FDS", "1", 1);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    {
      auto server = EventServer::open(at("/nonexistent/e"));
      if (!server) return 1;
      Reading reading;
      for (int i = 0; i < 200 && reading.received < 1; ++i) {
        if (!(*server)->take({}, reading)) return 2;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      if (count(reading, Count::kRequests) != 5) return 3;
      if ((*server)->datagram_path() != folder / "e") return 4;
    }
    if (!fs::exists(folder / "e")) return 5;  // systemd's, not ours to remove
    ::setenv("LISTEN_PID", "1", 1);
    return EventServer::open(at("/nonexistent/e")) ? 6 : 0;
  });
  CHECK(status == 0);
}
