// SPDX-License-Identifier: MIT OR Apache-2.0
// What a tick of the host's collectors costs, in microseconds of CPU time (not of waiting), beside the
// target's refresh.
//   host_bench                                                  the table in docs/performance.md
//   host_bench THREADS SOCKETS [TICKS [PAUSE_MS [OTHERS]]]      each collector by itself
// Each without BPF and, where that is possible, with it: then the probes' collector counts too. OTHERS: so many processes
// of others on the host. The target is a child with so many sleeping threads and so many ends of TCP connections on the
// loopback. The table's yardstick: one pass over the target's /proc/PID/task/*/stat, opened and read one by one as most
// monitors do, after each tick and right after another, so that as much as possible is in the caches. Ticks at which a
// collector showed an earlier reading again are left out: with pauses that are too short for so many sockets they would
// seem to cost nothing.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "collectors/catalogue.h"

namespace {

using namespace boxo;

constexpr std::array<std::string_view, 10> kHost = {"process", "memory",   "threads", "fds",   "disk",
                                                    "cgroup",  "pressure", "sockets", "netns", "kernel"};

double cpu_us() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

/// A network namespace of one's own, where that is allowed: TIME_WAIT sockets that the row before left behind end with its
/// namespace, and are not looked at.
void leave_network() {
  if (::unshare(CLONE_NEWNET) != 0) return;
  ifreq loopback{};
  std::strcpy(loopback.ifr_name, "lo");
  loopback.ifr_flags = IFF_UP;
  const int any = ::socket(AF_INET, SOCK_DGRAM, 0);
  if (any < 0 || ::ioctl(any, SIOCSIFFLAGS, &loopback) != 0) die("lo");
  ::close(any);
}

void be_target(int threads, int sockets) {
  leave_network();
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

/// What a monitor takes that reads each thread's file.
double pass_over_threads(pid_t pid) {
  char text[4096];
  const double begin = cpu_us();
  std::snprintf(text, sizeof text, "/proc/%d/task", pid);
  DIR* const threads = ::opendir(text);
  if (threads == nullptr) die("task");
  while (const dirent* thread = ::readdir(threads)) {
    if (thread->d_name[0] == '.') continue;
    std::snprintf(text, sizeof text, "/proc/%d/task/%s/stat", pid, thread->d_name);
    const int file = ::open(text, O_RDONLY | O_CLOEXEC);
    if (file < 0 || ::read(file, text, sizeof text) <= 0) die("stat");
    ::close(file);
  }
  ::closedir(threads);
  return cpu_us() - begin;
}

struct Costs {
  std::vector<std::string_view> names;      ///< of the parts of a tick
  std::vector<std::vector<double>> of_part;  ///< for each of them, one a tick
  std::vector<double> of_all;
  std::vector<double> of_pass;  ///< the yardstick, if wanted
  std::size_t left_out = 0;
};

double least(const std::vector<double>& costs) { return *std::min_element(costs.begin(), costs.end()); }
double most(const std::vector<double>& costs) { return *std::max_element(costs.begin(), costs.end()); }
double median(std::vector<double> costs) {
  std::sort(costs.begin(), costs.end());
  return costs[costs.size() / 2];
}

Costs measure(int threads, int sockets, int ticks, int pause_ms, bool bpf, bool yardstick) {
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
  Costs costs;
  costs.names = {"refresh"};
  std::vector<std::unique_ptr<Collector>> collectors;
  for (const CollectorInfo* info : catalogue()) {
    if (std::find(kHost.begin(), kHost.end(), info->name) == kHost.end()) continue;
    if (info->name == "kernel" && !bpf) continue;
    costs.names.push_back(info->name);
    collectors.push_back(info->make(*target, options));
  }
  costs.of_part.resize(costs.names.size());
  for (int tick = 0; tick < ticks; ++tick) {
    ::usleep(static_cast<useconds_t>(pause_ms) * 1000);
    std::vector<double> parts;
    bool rested = false;
    const double begin = cpu_us();
    target->refresh();
    double last = cpu_us();
    parts.push_back(last - begin);
    for (std::size_t i = 0; i < collectors.size(); ++i) {
      Snapshot out;
      if (auto done = collectors[i]->collect(out); !done)
        std::fprintf(stderr, "%s: %s\n", std::string(costs.names[i + 1]).c_str(), done.error().text().c_str());
      const double now = cpu_us();
      parts.push_back(now - last);
      last = now;
      rested = rested || collectors[i]->age().count() > 0;
    }
    if (yardstick) {
      pass_over_threads(pid);
      costs.of_pass.push_back(pass_over_threads(pid));
    }
    if (rested) {
      ++costs.left_out;
      continue;
    }
    costs.of_all.push_back(last - begin);
    for (std::size_t i = 0; i < parts.size(); ++i) costs.of_part[i].push_back(parts[i]);
  }
  collectors.clear();
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  return costs;
}

void print_parts(int threads, int sockets, int ticks, int pause_ms, bool bpf) {
  const Costs costs = measure(threads, sockets, ticks, pause_ms, bpf, false);
  std::printf("\n%d threads, %d sockets, %s BPF, %zu ticks (%zu left out), us of CPU a tick\n\n", threads, sockets,
              bpf ? "with" : "without", costs.of_all.size(), costs.left_out);
  std::printf("| %-10s | %9s | %9s | %9s | %9s |\n|---|---|---|---|---|\n", "", "first", "least", "median", "most");
  const auto print = [](std::string_view name, const std::vector<double>& all) {
    std::printf("| %-10.*s | %9.1f | %9.1f | %9.1f | %9.1f |\n", static_cast<int>(name.size()), name.data(),
                all.front(), least(all), median(all), most(all));
  };
  for (std::size_t i = 0; i < costs.names.size(); ++i) print(costs.names[i], costs.of_part[i]);
  print("all", costs.of_all);
  std::fflush(stdout);
}

/// What docs/performance.md shows.
void print_table() {
  struct Case {
    int threads;
    int sockets;
    double wanted_ms[2];  // without BPF, with it
  };
  constexpr Case kCases[] = {{1, 10, {2.5, 2.5}}, {2000, 5000, {15, 6}}};
  constexpr int kOthers[] = {0, 500, 3000};
  // What a pass over 2,000 threads takes on the machine that these times are meant for.
  constexpr double kPassThere = 18.8;
  const auto number = [](double value) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), "%.3g", value);
    return value > 0 ? std::string(text.data()) : "";
  };
  // Long enough for a reading at every tick.
  constexpr int kTicks = 20, kPause = 700;
  std::printf(
      "| target | | other processes | least, ms | median, ms | of a pass | wanted, ms | wanted, of a pass | the pass, ms |\n"
      "|---|---|---|---|---|---|---|---|---|\n");
  int there = 0;
  for (const int others : kOthers) {
    start_others(others - there);
    there = others;
    for (const Case& one : kCases)
      for (const bool bpf : {false, true}) {
        if (bpf && ::geteuid() != 0) continue;
        const Costs costs = measure(one.threads, one.sockets, kTicks, kPause, bpf, true);
        if (costs.of_all.empty()) continue;
        const double wanted = others == 500 ? one.wanted_ms[bpf] : 0, all = median(costs.of_all), pass = median(costs.of_pass);
        std::printf("| %d thread%s, %d sockets | %s BPF | %d | %.2f | %.2f | %s | %s | %s | %.2f |\n", one.threads,
                    one.threads == 1 ? "" : "s", one.sockets, bpf ? "with" : "without", others,
                    least(costs.of_all) / 1000, all / 1000, number(one.threads > 1 ? all / pass : 0).c_str(),
                    number(wanted).c_str(), number(one.threads > 1 ? wanted / kPassThere : 0).c_str(), pass / 1000);
        std::fflush(stdout);
      }
  }
}

}  // namespace

int main(int argc, char** argv) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const auto number = [&](int at, int otherwise) { return argc > at ? std::atoi(argv[at]) : otherwise; };
  if (argc <= 2) {
    print_table();
    return 0;
  }
  start_others(number(5, 0));
  for (const bool bpf : {false, true})
    if (!bpf || ::geteuid() == 0) print_parts(number(1, 1), number(2, 10), number(3, 50), number(4, 700), bpf);
}
