// SPDX-License-Identifier: MIT OR Apache-2.0
#include "tests/bench/kernel_work.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <utility>

namespace boxo::kernel {

namespace {

double cpu_nanoseconds() {
  double sum = 0;
  for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage use{};
    ::getrusage(who, &use);
    for (const timeval& t : {use.ru_utime, use.ru_stime})
      sum += static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_usec) * 1e3;
  }
  return sum;
}

void check(bool good) {
  if (!good) std::abort();
}

/// `times` calls of `once`, each of which makes one event.
template <class Once>
Cost repeat(int times, Once once) {
  const double before = cpu_nanoseconds();
  for (int i = 0; i < times; ++i) check(once(i));
  return {cpu_nanoseconds() - before, static_cast<double>(times)};
}

/// The same with a file of `size` bytes without content.
template <class Once>
Cost on_file(const std::string& name, int flags, off_t size, int times, Once once) {
  const Fd file(::open(name.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600));
  check(file && ::ftruncate(file.get(), size) == 0);
  const Cost cost = repeat(times, [&](int i) { return once(file.get(), i); });
  ::unlink(name.c_str());
  return cost;
}

using Pipe = std::array<int, 2>;

/// Two processes on one CPU hand a byte to and fro: two switches a turn.
Cost switches() {
  constexpr int kTurns = 10'000;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(::sysconf(_SC_NPROCESSORS_ONLN) - 1, &set);
  ::sched_setaffinity(0, sizeof(set), &set);
  Pipe to{}, from{};
  check(::pipe(to.data()) == 0 && ::pipe(from.data()) == 0);
  const double before = cpu_nanoseconds();
  const pid_t partner = ::fork();
  char c = 0;
  if (partner == 0) {
    for (int i = 0; i < kTurns; ++i)
      if (::read(to[0], &c, 1) != 1 || ::write(from[1], &c, 1) != 1) ::_exit(1);
    ::_exit(0);
  }
  for (int i = 0; i < kTurns; ++i) check(::write(to[1], &c, 1) == 1 && ::read(from[0], &c, 1) == 1);
  ::waitpid(partner, nullptr, 0);
  for (const int fd : {to[0], to[1], from[0], from[1]}) ::close(fd);
  return {cpu_nanoseconds() - before, 2 * kTurns};
}

Cost calls() {
  return repeat(100'000, [](int) { return ::getppid() > 0; });
}

Cost faults() {
  constexpr std::size_t kPages = 10'000;
  void* memory = ::mmap(nullptr, kPages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(memory != MAP_FAILED);
  ::madvise(memory, kPages * 4096, MADV_NOHUGEPAGE);
  const Cost cost = repeat(kPages, [&](int i) {
    static_cast<volatile char*>(memory)[static_cast<std::size_t>(i) * 4096] = 1;
    return true;
  });
  ::munmap(memory, kPages * 4096);
  return cost;
}

sockaddr_in loopback(in_port_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = port;
  return address;
}

/// A socket that is bound to a port of the loopback, and where that is.
std::pair<Fd, sockaddr_in> bound(int type) {
  Fd fd(::socket(AF_INET, type, 0));
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof(address);
  check(fd && ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
        ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return {std::move(fd), address};
}

/// Sent over the loopback and received: the packet passes a cgroup twice.
Cost datagrams() {
  std::array<char, 1200> bytes{};
  const auto from = bound(SOCK_DGRAM);
  const auto to = bound(SOCK_DGRAM);
  return repeat(10'000, [&](int) {
    return ::sendto(from.first.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to.second),
                    sizeof(to.second)) > 0 &&
           ::recv(to.first.get(), bytes.data(), bytes.size(), 0) > 0;
  });
}

/// Sent to a socket whose buffer is full: dropped there.
Cost dropped() {
  std::array<char, 1200> bytes{};
  const auto from = bound(SOCK_DGRAM);
  const auto to = bound(SOCK_DGRAM);
  const auto send = [&](int) {
    return ::sendto(from.first.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to.second),
                    sizeof(to.second)) > 0;
  };
  const int least = 1;
  check(::setsockopt(to.first.get(), SOL_SOCKET, SO_RCVBUF, &least, sizeof(least)) == 0);
  for (int i = 0; i < 16; ++i) check(send(i));
  return repeat(10'000, send);
}

/// Made, accepted and reset, so that no port stays taken.
Cost connections() {
  const auto listener = bound(SOCK_STREAM);
  check(::listen(listener.first.get(), 16) == 0);
  return repeat(1'000, [&](int) {
    const linger at_once{1, 0};
    const Fd from(::socket(AF_INET, SOCK_STREAM, 0));
    const auto* address = reinterpret_cast<const sockaddr*>(&listener.second);
    if (::connect(from.get(), address, sizeof(listener.second)) != 0) return false;
    const Fd to(::accept(listener.first.get(), nullptr, nullptr));
    return to && ::setsockopt(from.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) == 0;
  });
}

Cost processes() {
  return repeat(300, [](int) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    return ::waitpid(child, nullptr, 0) == child;
  });
}

Cost descriptors() {
  return repeat(20'000, [](int) { return Fd(::dup(STDERR_FILENO)).get() >= 0; });
}

Cost threads() {
  return repeat(1'000, [](int) {
    std::thread([] {}).join();
    return true;
  });
}

Cost signals() {
  std::signal(SIGUSR1, [](int) {});
  return repeat(20'000, [](int) { return std::raise(SIGUSR1) == 0; });
}

char* page() {
  alignas(4096) static char bytes[4096];
  return bytes;
}

Cost file_reads(const std::string& file) {
  return on_file(file, 0, 4096, 50'000, [](int fd, int) { return ::pread(fd, page(), 1, 0) == 1; });
}

Cost file_writes(const std::string& file) {
  return on_file(file, 0, 0, 20'000, [](int fd, int i) { return ::pwrite(fd, page(), 512, (i % 4096) * off_t{512}) == 512; });
}

/// No disk is needed for pages of a file without content.
Cost misses(const std::string& file, int pages) {
  return on_file(file, 0, off_t{pages} * 4096, pages, [](int fd, int i) {
    if (i == 0) ::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    return ::pread(fd, page(), 1, off_t{i} * 4096) == 1;
  });
}

Cost syncs(const std::string& file) {
  return on_file(file, 0, 4096, 300, [](int fd, int) { return ::pwrite(fd, page(), 1, 0) == 1 && ::fsync(fd) == 0; });
}

/// Around the page cache, to blocks that there are already.
Cost blocks(const std::string& file, bool write) {
  return on_file(file, O_DIRECT, 0, 1'000, [&](int fd, int i) {
    return write || i == 0 ? ::pwrite(fd, page(), 4096, 0) == 4096 : ::pread(fd, page(), 4096, 0) == 4096;
  });
}

/// More of them than its memory cgroup may have.
Cost misses_at_limit(const Place& place) {
  std::ofstream(place.memory_group() + "/cgroup.procs") << ::getpid();
  return misses(place.file(), 16'384);
}

/// Faster than the disk may take.
Cost writes_held_back(const Place& place) {
  if (!place.hold_back(true)) return {};
  const Cost cost =
      on_file(place.file(), 0, 0, 2'048, [](int fd, int i) { return ::pwrite(fd, page(), 4096, i * off_t{4096}) == 4096; });
  place.hold_back(false);
  return cost;
}

}  // namespace

std::vector<Work> all_work(const Place& place) {
  const std::string file = place.file();
  return {
      {"context switch", {"sched"}, switches},
      {"system call", {"syscalls"}, calls},
      {"page fault", {"fault"}, faults},
      {"block read, 4 KiB", {"blockio"}, [=] { return blocks(file, false); }},
      {"block write, 4 KiB", {"blockio"}, [=] { return blocks(file, true); }},
      {"byte read from the page cache", {"filecalls"}, [=] { return file_reads(file); }},
      {"512 bytes written into the page cache", {"files"}, [=] { return file_writes(file); }},
      {"page read that is not in the page cache", {"pagecache"}, [=] { return misses(file, 8'192); }},
      {"byte written and fsync", {"fsync"}, [=] { return syncs(file); }},
      {"datagram of 1,200 bytes sent and received", {"udp"}, datagrams},
      {"datagram dropped because the buffer is full", {"udp"}, dropped},
      {"TCP connection made, accepted, reset", {"tcp", "udp"}, connections},
      {"process forked, ended, waited for", {"members", "tasks", "endings", "udp"}, processes},
      {"thread made and ended", {"members", "tasks", "readers", "udp"}, threads},
      {"descriptor made and closed", {"readers"}, descriptors},
      {"signal", {"tasks"}, signals},
      {"page read that is not there, memory cgroup full", {"throttling"}, [&] { return misses_at_limit(place); }},
      {"page written where too many are dirty", {"throttling"}, [&] { return writes_held_back(place); }},
  };
}

}  // namespace boxo::kernel
