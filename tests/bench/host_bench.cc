// SPDX-License-Identifier: MIT OR Apache-2.0
// What a tick of the host's collectors costs, in microseconds of CPU time (not of waiting), beside the
// target's refresh.
//   host_bench [THREADS SOCKETS [TICKS [PAUSE_MS [OTHERS]]]]     1 and 10, then 2,000 and 5,000, if no
//   numbers are given. Each without BPF and, where that is possible, with it: then the probes' collector
//   counts too. OTHERS: so many processes of others on the host.
// The target is a child with so many sleeping threads and so many ends of TCP connections on the loopback.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "collectors/catalogue.h"

namespace {

using namespace boxo;

constexpr std::array<std::string_view, 9> kHost = {"process", "memory",   "threads", "fds",   "disk",
                                                   "cgroup",  "pressure", "sockets", "kernel"};

double cpu_us() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

void be_target(int threads, int sockets) {
  pthread_attr_t small;
  ::pthread_attr_init(&small);
  ::pthread_attr_setstacksize(&small, 65536);
  for (int i = 1; i < threads; ++i) {
    pthread_t thread{};
    const auto sleeper = [](void*) -> void* {
      for (;;) ::pause();
    };
    if (::pthread_create(&thread, &small, sleeper, nullptr) != 0) die("pthread_create");
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  if (::bind(listener, any, size) != 0 || ::listen(listener, 128) != 0 ||
      ::getsockname(listener, any, &size) != 0)
    die("listen");
  for (int i = 0; i < sockets / 2; ++i) {
    const int client = ::socket(AF_INET, SOCK_STREAM, 0);
    if (client < 0 || ::connect(client, any, size) != 0 || ::accept(listener, nullptr, nullptr) < 0)
      die("connect");
  }
}

pid_t start_target(int threads, int sockets) {
  int ready[2];
  if (::pipe(ready) != 0) die("pipe");
  const pid_t pid = ::fork();
  if (pid < 0) die("fork");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    be_target(threads, sockets);
    if (::write(ready[1], "r", 1) != 1) die("write");
    for (;;) ::pause();
  }
  char byte = 0;
  if (::read(ready[0], &byte, 1) != 1) die("read");
  ::close(ready[0]);
  ::close(ready[1]);
  return pid;
}

/// Processes that are nobody's business; they end with this one.
void start_others(int count) {
  for (int i = 0; i < count; ++i) {
    const pid_t pid = ::fork();
    if (pid < 0) die("fork");
    if (pid != 0) continue;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) ::pause();
  }
}

void print(std::string_view name, std::vector<double> costs) {
  const double first = costs.front();
  std::sort(costs.begin(), costs.end());
  std::printf("| %-10.*s | %9.1f | %9.1f | %9.1f | %9.1f |\n", static_cast<int>(name.size()), name.data(),
              first, costs.front(), costs[costs.size() / 2], costs.back());
}

void bench(int threads, int sockets, int ticks, int pause_ms, bool bpf) {
  const pid_t pid = start_target(threads, sockets);
  TargetSpec spec;
  spec.kind = TargetSpec::Kind::kPid;
  spec.pid = pid;
  auto target = Target::make(spec);
  if (!target) {
    std::fprintf(stderr, "%s\n", target.error().text().c_str());
    std::exit(1);
  }
  CollectorOptions options;
  options.bpf = bpf;
  target->use(options.handover);
  std::vector<std::string_view> names = {"refresh"};
  std::vector<std::unique_ptr<Collector>> collectors;
  for (const CollectorInfo* info : catalogue()) {
    if (std::find(kHost.begin(), kHost.end(), info->name) == kHost.end()) continue;
    if (info->name == "kernel" && !bpf) continue;
    names.push_back(info->name);
    collectors.push_back(info->make(*target, options));
  }
  std::vector<std::vector<double>> costs(names.size());
  std::vector<double> totals;
  for (int tick = 0; tick < ticks; ++tick) {
    ::usleep(static_cast<useconds_t>(pause_ms) * 1000);
    const double begin = cpu_us();
    target->refresh();
    double last = cpu_us();
    costs[0].push_back(last - begin);
    for (std::size_t i = 0; i < collectors.size(); ++i) {
      Snapshot out;
      if (auto done = collectors[i]->collect(out); !done)
        std::fprintf(stderr, "%s: %s\n", std::string(names[i + 1]).c_str(), done.error().text().c_str());
      const double now = cpu_us();
      costs[i + 1].push_back(now - last);
      last = now;
    }
    totals.push_back(last - begin);
  }
  std::printf("\n%d threads, %d sockets, %d ticks, %s BPF (us of CPU a tick)\n\n", threads, sockets, ticks,
              bpf ? "with" : "without");
  std::printf("| %-10s | %9s | %9s | %9s | %9s |\n|---|---|---|---|---|\n", "", "first", "least", "median",
              "most");
  for (std::size_t i = 0; i < names.size(); ++i) print(names[i], costs[i]);
  print("all", totals);
  collectors.clear();
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

}  // namespace

int main(int argc, char** argv) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const auto number = [&](int at, int otherwise) { return argc > at ? std::atoi(argv[at]) : otherwise; };
  start_others(number(5, 0));
  for (const bool bpf : {false, true}) {
    if (bpf && ::geteuid() != 0) break;
    if (argc > 2) {
      bench(number(1, 1), number(2, 10), number(3, 50), number(4, 100), bpf);
      continue;
    }
    bench(1, 10, 50, 100, bpf);
    bench(2000, 5000, 50, 100, bpf);
  }
}
