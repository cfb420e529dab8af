// SPDX-License-Identifier: MIT OR Apache-2.0
// What a context switch, a block read, a system call, a datagram, a connection and others cost more with the probes: for
// the target, for everybody else, and with an empty program. Each round measures all cases one after the other; what counts
// is the difference to the plain case of the same round. Needs root. Usage: kernel_bench [ROUNDS [WHAT]], where WHAT is how
// what is measured begins.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

#include "collectors/cgroup.h"
#include "collectors/kernel/membership.h"
#include "collectors/kernel/probe.h"
#include "tests/bench/kernel_work.h"

namespace boxo::kernel {

std::span<const EmbeddedProbe> bench_probes();

namespace {

double cpu_seconds(int who) {
  rusage use{};
  ::getrusage(who, &use);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ::sched_setaffinity(0, sizeof(set), &set);
}

/// A child that does a round of work when told to and answers with the CPU nanoseconds it took per operation.
class Worker {
 public:
  explicit Worker(const std::function<double()>& work) {
    if (::pipe(to_.data()) != 0 || ::pipe(from_.data()) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    char c = 0;
    while (::read(to_[0], &c, 1) == 1) {
      const double cost = work();
      if (::write(from_[1], &cost, sizeof(cost)) != sizeof(cost)) break;
    }
    ::_exit(0);
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  double run() const {
    char c = 1;
    double cost = 0;
    if (::write(to_[1], &c, 1) != 1 || ::read(from_[0], &cost, sizeof(cost)) != sizeof(cost)) std::abort();
    return cost;
  }
  pid_t pid() const { return pid_; }

 private:
  std::array<int, 2> to_{}, from_{};
  pid_t pid_ = -1;
};

/// Two processes on one CPU hand a byte to and fro: two switches a turn.
double switches() {
  constexpr int kTurns = 40'000;
  pin(1);
  std::array<int, 2> to{}, from{};
  if (::pipe(to.data()) != 0 || ::pipe(from.data()) != 0) std::abort();
  const double before = cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN);
  const pid_t partner = ::fork();
  char c = 0;
  if (partner == 0) {
    for (int i = 0; i < kTurns; ++i)
      if (::read(to[0], &c, 1) != 1 || ::write(from[1], &c, 1) != 1) ::_exit(1);
    ::_exit(0);
  }
  for (int i = 0; i < kTurns; ++i)
    if (::write(to[1], &c, 1) != 1 || ::read(from[0], &c, 1) != 1) std::abort();
  ::waitpid(partner, nullptr, 0);
  for (const int fd : {to[0], to[1], from[0], from[1]}) ::close(fd);
  return (cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN) - before) * 1e9 / (2 * kTurns);
}

double calls() {
  constexpr int kCalls = 300'000;
  char c = 0;
  const double before = cpu_seconds(RUSAGE_SELF);
  for (int i = 0; i < kCalls; ++i)
    if (::pread(STDIN_FILENO, &c, 0, 0) > 0) std::abort();
  return (cpu_seconds(RUSAGE_SELF) - before) * 1e9 / kCalls;
}

double blocks() {
  constexpr int kReads = 3'000;
  alignas(4096) static char page[4096];
  const int fd = ::open("/var/tmp/boxo-kernel-bench", O_RDWR | O_CREAT | O_DIRECT, 0600);
  if (fd < 0 || ::pwrite(fd, page, sizeof(page), 0) != sizeof(page)) std::abort();
  const double before = cpu_seconds(RUSAGE_SELF);
  for (int i = 0; i < kReads; ++i)
    if (::pread(fd, page, sizeof(page), 0) != sizeof(page)) std::abort();
  const double cost = (cpu_seconds(RUSAGE_SELF) - before) * 1e9 / kReads;
  ::close(fd);
  ::unlink("/var/tmp/boxo-kernel-bench");
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
std::pair<int, sockaddr_in> bound(int type) {
  const int fd = ::socket(AF_INET, type, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof(address);
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    std::abort();
  return {fd, address};
}

/// A datagram of 1,200 bytes sent over the loopback and received: the packet passes a cgroup twice.
double datagrams() {
  constexpr int kDatagrams = 20'000;
  std::array<char, 1200> bytes{};
  const auto [from, unused] = bound(SOCK_DGRAM);
  const auto [to, address] = bound(SOCK_DGRAM);
  const double before = cpu_seconds(RUSAGE_SELF);
  for (int i = 0; i < kDatagrams; ++i)
    if (::sendto(from, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) < 0 ||
        ::recv(to, bytes.data(), bytes.size(), 0) < 0)
      std::abort();
  const double cost = (cpu_seconds(RUSAGE_SELF) - before) * 1e9 / kDatagrams;
  for (const int fd : {from, to}) ::close(fd);
  return cost;
}

/// A TCP connection made, accepted and reset, so that no port stays taken.
double connections() {
  constexpr int kConnections = 2'000;
  const auto [listener, address] = bound(SOCK_STREAM);
  const linger at_once{1, 0};
  if (::listen(listener, 16) != 0) std::abort();
  const double before = cpu_seconds(RUSAGE_SELF);
  for (int i = 0; i < kConnections; ++i) {
    const int from = ::socket(AF_INET, SOCK_STREAM, 0);
    if (::connect(from, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) std::abort();
    const int to = ::accept(listener, nullptr, nullptr);
    ::setsockopt(from, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    ::close(from);
    ::close(to);
  }
  const double cost = (cpu_seconds(RUSAGE_SELF) - before) * 1e9 / kConnections;
  ::close(listener);
  return cost;
}

[[noreturn]] void die(const Error& error) {
  std::fprintf(stderr, "kernel_bench: %s\n", error.text().c_str());
  std::exit(1);
}

template <class T>
T must(Result<T> result) {
  if (!result) die(result.error());
  return std::move(*result);
}

void must(Result<> result) {
  if (!result) die(result.error());
}

struct Case {
  const char* name;
  const char* probe;  ///< nullptr: none
  bool target;
  bool elsewhere = false;  ///< a probe of a cgroup is in another one than who works
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

class Bench {
 public:
  ~Bench() {
    if (!other_.empty()) ::rmdir(other_.c_str());
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Bench() : types_(must(KernelTypes::read())) {
    struct stat pidns {};
    ::stat("/proc/self/ns/pid", &pidns);
    context_ = {&types_, {}, true, static_cast<std::uint32_t>(pidns.st_ino)};
    members_.emplace(must(load_members(named("members"), context_)));
    must(members_->attach());
    membership_.emplace(must(Membership::make(*members_, pidns.st_ino == 0xEFFFFFFC)));
    for (const EmbeddedProbe& probe : bench_probes()) empty_.push_back(must(describe(probe)));
  }

  void only(std::string_view beginning) { only_ = beginning; }

  void measure(const char* what, const std::function<double()>& work, std::span<const Case> cases, int rounds) {
    if (!std::string_view(what).starts_with(only_)) return;
    const Worker worker(work);
    std::vector<std::vector<double>> costs(cases.size());
    for (int round = 0; round < rounds; ++round)
      for (std::size_t i = 0; i < cases.size(); ++i) costs[i].push_back(once(cases[i], worker));
    for (std::size_t i = 0; i < cases.size(); ++i) {
      std::vector<double> added;
      for (int round = 0; round < rounds; ++round) {
        const auto r = static_cast<std::size_t>(round);
        added.push_back(costs[i][r] - costs[0][r]);
      }
      std::printf("%-12s %-34s %8.0f ns  added %6.0f ns (median of %d, %.0f to %.0f)\n", what, cases[i].name,
                  median(costs[i]), median(added), rounds, *std::ranges::min_element(added),
                  *std::ranges::max_element(added));
    }
    std::fflush(stdout);
  }

 private:
  const Description& named(std::string_view name) const {
    for (const auto& list : {std::cref(descriptions()), std::cref(empty_)})
      for (const Description& description : list.get())
        if (description.object.name == name) return description;
    die(Error{"no probe " + std::string(name)});
  }

  double once(const Case& which, const Worker& worker) {
    std::optional<Probe> probe;
    if (which.probe != nullptr) {
      probe.emplace(must(Probe::load(named(which.probe), context_)));
      must(probe->attach());
      if (probe->in_cgroup()) enter(*probe, which.elsewhere);
    }
    std::vector<Process> processes;
    if (which.target)
      processes.push_back({{worker.pid(), 1}, {}, {}, must(Dir::open("/proc/" + std::to_string(worker.pid())))});
    if (must(membership_->sync(processes, processes.empty() ? nullptr : processes.data(), ++generation_)))
      must(members_->remember());
    worker.run();  // warm
    return worker.run();
  }

  void enter(Probe& probe, bool elsewhere) {
    const auto own = must(Cgroups::find("/sys/fs/cgroup")).view_of("", must(Dir::open("/proc/self")));
    if (!own) die(own.error());
    const std::string path = "/proc/self/fd/" + std::to_string(own->group().fd());
    if (!elsewhere) return must(probe.enter(own->group()));
    const auto name = path + "/boxo-kernel-bench";
    ::mkdir(name.c_str(), 0755);
    must(probe.enter(must(Dir::open(name))));
    if (other_.empty()) other_ = std::filesystem::read_symlink(path) / "boxo-kernel-bench";
  }

  KernelTypes types_;
  LoadContext context_;
  std::optional<Probe> members_;
  std::optional<Membership> membership_;
  std::vector<Description> empty_;
  std::uint64_t generation_ = 0;
  std::filesystem::path other_;  ///< a cgroup made for the bench
  std::string_view only_;
};

}  // namespace

}  // namespace boxo::kernel

int main(int argc, char** argv) {
  using boxo::kernel::Case;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 11;
  boxo::kernel::Bench bench;
  if (argc > 2) bench.only(argv[2]);
  const Case on_switch[] = {{"no probe", nullptr, false},
                            {"empty program", "empty", false},
                            {"sched, somebody else", "sched", false},
                            {"sched, the target", "sched", true}};
  bench.measure("switch", boxo::kernel::switches, on_switch, rounds);
  const Case on_call[] = {{"no probe", nullptr, false},
                          {"syscalls, somebody else", "syscalls", false},
                          {"syscalls, the target", "syscalls", true}};
  bench.measure("system call", boxo::kernel::calls, on_call, rounds);
  const Case on_block[] = {{"no probe", nullptr, false},
                           {"blockio, somebody else", "blockio", false},
                           {"blockio, the target", "blockio", true}};
  bench.measure("block read", boxo::kernel::blocks, on_block, rounds);
  const Case on_datagram[] = {{"no probe", nullptr, false},
                              {"empty programs", "empty", false},
                              {"udp, somebody else", "udp", false},
                              {"udp, another cgroup", "udp", false, true},
                              {"udp, the target", "udp", true}};
  bench.measure("datagram", boxo::kernel::datagrams, on_datagram, rounds);
  const Case on_connection[] = {{"no probe", nullptr, false},
                                {"empty programs", "empty", false},
                                {"tcp, somebody else", "tcp", false},
                                {"tcp, the target", "tcp", true},
                                {"udp, somebody else", "udp", false},
                                {"udp, another cgroup", "udp", false, true},
                                {"udp, the target", "udp", true}};
  bench.measure("connection", boxo::kernel::connections, on_connection, rounds);
  const Case on_read[] = {{"no probe", nullptr, false},
                          {"filecalls, somebody else", "filecalls", false},
                          {"filecalls, the target", "filecalls", true}};
  bench.measure("file read", boxo::kernel::small_reads, on_read, rounds);
  const Case on_write[] = {{"no probe", nullptr, false},
                           {"files, somebody else", "files", false},
                           {"files, the target", "files", true}};
  bench.measure("file write", boxo::kernel::small_writes, on_write, rounds);
  const Case on_miss[] = {{"no probe", nullptr, false},
                          {"pagecache, somebody else", "pagecache", false},
                          {"pagecache, the target", "pagecache", true}};
  bench.measure("cache miss", boxo::kernel::misses, on_miss, rounds);
  const Case on_fsync[] = {{"no probe", nullptr, false},
                           {"fsync, somebody else", "fsync", false},
                           {"fsync, the target", "fsync", true}};
  bench.measure("fsync", boxo::kernel::fsyncs, on_fsync, rounds);
  const Case on_fault[] = {{"no probe", nullptr, false}, {"empty program", "empty_fault", false}};
  bench.measure("page fault", boxo::kernel::faults, on_fault, rounds);
  const Case on_task[] = {{"no probe", nullptr, false},
                          {"tasks, somebody else", "tasks", false},
                          {"tasks, the target", "tasks", true}};
  bench.measure("thread", boxo::kernel::threads, on_task, rounds);
  bench.measure("signal", boxo::kernel::signals, on_task, rounds);
}
