// SPDX-License-Identifier: MIT OR Apache-2.0
// What the probes cost, as the table of docs/probes.md: for each kind of event each probe that is at it alone, and all that
// are on by default together. Each row takes turns: no probe, programs that do nothing on the same hooks, the probe with
// somebody else working, with the target working; what counts is the difference within one turn. Needs root.
// Usage: kernel_bench [TURNS [EVENT]], where EVENT is how an event begins.
#include <bpf/bpf.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "bpf/readings.h"
#include "collectors/cgroup.h"
#include "collectors/kernel/membership.h"
#include "collectors/kernel/probe.h"
#include "tests/bench/kernel_place.h"
#include "tests/bench/kernel_work.h"

namespace boxo::kernel {

std::span<const EmbeddedProbe> empty_probes();

namespace {

template <class T>
T must(Result<T> result) {
  if (!result) die(result.error().text());
  return std::move(*result);
}

void must(const Result<>& result) {
  if (!result) die(result.error().text());
}

/// A child that does a round of work when told to.
class Worker {
 public:
  explicit Worker(const std::function<Cost()>& work) {
    if (::pipe(to_.data()) != 0 || ::pipe(from_.data()) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ != 0) {
      ::close(to_[0]);
      ::close(from_[1]);  // so that the end of the child is seen
      return;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    char c = 0;
    while (::read(to_[0], &c, 1) == 1) {
      const Cost cost = work();
      if (::write(from_[1], &cost, sizeof(cost)) != sizeof(cost)) break;
    }
    ::_exit(0);
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    for (const int fd : {to_[1], from_[0]}) ::close(fd);
  }
  Cost run() const {
    char c = 1;
    Cost cost;
    if (::write(to_[1], &c, 1) != 1 || ::read(from_[0], &cost, sizeof(cost)) != sizeof(cost)) die("the work failed");
    return cost;
  }
  pid_t pid() const { return pid_; }

 private:
  std::array<int, 2> to_{}, from_{};
  pid_t pid_ = -1;
};

/// Who works, seen from the probes.
enum Who {
  kNobody,    ///< there are no probes
  kFloor,     ///< there are, but they do nothing
  kElse,      ///< somebody else; the target has a cgroup of its own
  kNeighbour, ///< somebody else in the target's cgroup
  kTarget,
  kWho
};

/// Reads a process as the agent does each interval, but without a pause.
std::jthread read_all_the_time(const Probe& readers, pid_t pid) {
  return std::jthread([&readers, pid](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      must(readers.iterate<thread_reading>("read_threads", {.process = pid}, [](const thread_reading&) {}));
      must(readers.iterate<socket_reading>("read_sockets", {.thread = pid}, [](const socket_reading&) {}));
    }
  });
}

/// Of one event.
struct Figures {
  double nanoseconds = 0;
  double own = 0;   ///< the part of them that the programs took, by the kernel's account
  double runs = 0;  ///< of programs
};

/// The middle, and between which values the middle half lies.
struct Spread {
  double low, middle, high;
};

Spread spread(std::vector<double> values) {
  std::ranges::sort(values);
  const auto at = [&](std::size_t quarter) { return values[(values.size() - 1) * quarter / 4]; };
  return {at(1), at(2), at(3)};
}

class Bench {
 public:
  explicit Bench(int turns) : turns_(turns), types_(must(KernelTypes::read())) {
    struct stat pidns {};
    ::stat("/proc/self/ns/pid", &pidns);
    LoadContext context{&types_, {}, true, static_cast<std::uint32_t>(pidns.st_ino)};
    members_ = &probes_.emplace("members", must(load_members(named(descriptions(), "members"), context))).first->second;
    membership_.emplace(must(Membership::make(*members_, pidns.st_ino == kFirstPidNamespace)));
    for (const EmbeddedProbe& object : empty_probes()) empty_.push_back(must(describe(object)));
    for (const auto& list : {std::cref(descriptions()), std::cref(empty_)})
      for (const Description& description : list.get())
        if (description.object.name != "members")
          probes_.emplace(description.object.name, must(Probe::load(description, context)));
    const auto all = must(Cgroups::find("/sys/fs/cgroup"));
    own_ = must(must(all.view_of("", must(Dir::open("/proc/self")))).levels.front().dir("."));
    other_ = must(Dir::open(place_.other_group()));
  }

  void measure_all(std::string_view beginning) {
    std::puts(
        "| event | with | without | empty programs | somebody else | in the target's cgroup | the target | programs' own |\n"
        "|---|---|---|---|---|---|---|---|");
    for (const Work& work : all_work(place_)) {
      if (!work.event.starts_with(beginning)) continue;
      const Worker worker(work.round);
      if (worker.run().events == 0) {
        std::printf("| %s | not on this kernel | | | | | | |\n", work.event.c_str());
        continue;
      }
      for (const std::string& name : work.probes) measure(work, worker, name, {name});
      measure(work, worker, "", defaults());
    }
  }

 private:
  static const Description& named(const std::vector<Description>& list, std::string_view name) {
    for (const Description& description : list)
      if (description.object.name == name) return description;
    die("no probe " + std::string(name));
  }

  static std::vector<std::string> defaults() {
    std::vector<std::string> names;
    for (const Description& description : descriptions())
      if (!description.on_request) names.emplace_back(description.object.name);
    return names;
  }

  /// One row. No name: all.
  void measure(const Work& work, const Worker& worker, const std::string& name, const std::vector<std::string>& probes) {
    const bool real = probes_.contains(probes.front());
    std::array<std::vector<Figures>, kWho> seen;
    for (int turn = 0; turn < turns_; ++turn)
      for (int who = kNobody; who < kWho; ++who)
        if (real || who <= kFloor) seen[static_cast<std::size_t>(who)].push_back(once(static_cast<Who>(who), probes, worker));
    print(work.event, name.empty() ? "all" : "`" + name + "`", seen);
  }

  static void print(const std::string& event, const std::string& with, const std::array<std::vector<Figures>, kWho>& seen) {
    const auto of = [](const std::vector<Figures>& all, auto value) {
      std::vector<double> values;
      for (std::size_t i = 0; i < all.size(); ++i) values.push_back(value(i));
      return spread(values);
    };
    const auto& plain = seen[kNobody];
    std::printf("| %s | %s | %.0f", event.c_str(), with.c_str(),
                of(plain, [&](std::size_t i) { return plain[i].nanoseconds; }).middle);
    for (int who = kFloor; who < kWho; ++who) {
      const auto& figures = seen[static_cast<std::size_t>(who)];
      if (figures.empty()) {
        std::printf(" | ");
        continue;
      }
      const Spread added = of(figures, [&](std::size_t i) { return figures[i].nanoseconds - plain[i].nanoseconds; });
      std::printf(" | %+.0f (%.0f to %.0f)", added.middle, added.low, added.high);
    }
    std::printf(" | ");
    for (const Who who : {kFloor, kElse, kNeighbour, kTarget})
      if (const auto& figures = seen[who]; !figures.empty())
        std::printf("%s%.1f", who == kFloor ? "" : ", ", of(figures, [&](std::size_t i) { return figures[i].own; }).middle);
    const auto& runs = seen[seen[kTarget].empty() ? kFloor : kTarget];
    std::printf(" in %.2f runs", of(runs, [&](std::size_t i) { return runs[i].runs; }).middle);
    std::puts(" |");
    std::fflush(stdout);
  }

  Figures once(Who who, const std::vector<std::string>& names, const Worker& worker) {
    std::vector<Probe*> probes;
    const auto add = [&](const std::string& name) { probes.push_back(&probes_.at((who == kFloor ? "empty_" : "") + name)); };
    if (who != kNobody) {
      add("members");  // which all others go with
      for (const std::string& name : names)
        if (name != "members") add(name);
    }
    for (Probe* probe : probes) {
      must(probe->attach());
      if (probe->in_cgroup()) must(probe->enter(who == kElse ? other_ : own_));
    }
    tell(who, worker.pid());
    std::jthread reading;
    if (who > kFloor && names.front() == "readers")
      reading = read_all_the_time(probes_.at("readers"), who == kTarget ? worker.pid() : idle_.pid());

    Figures out;
    {  // The kernel's account costs, too: it is kept of a round that does not count otherwise.
      const Fd account(::bpf_enable_stats(BPF_STATS_RUN_TIME));
      if (!account) die("BPF_ENABLE_STATS needs Linux 5.8");
      const auto before = stats(probes);
      const double events = worker.run().events;
      const auto after = stats(probes);
      out.own = static_cast<double>(after.kernel_nanoseconds - before.kernel_nanoseconds) / events;
      out.runs = static_cast<double>(after.kernel_runs - before.kernel_runs) / events;
    }
    const Cost cost = worker.run();
    out.nanoseconds = cost.nanoseconds / cost.events;
    for (Probe* probe : probes) probe->detach();
    return out;
  }

  static RunStats stats(const std::vector<Probe*>& probes) {
    RunStats sum;
    for (Probe* probe : probes) {
      const RunStats one = probe->stats();
      sum.kernel_runs += one.kernel_runs;
      sum.kernel_nanoseconds += one.kernel_nanoseconds;
    }
    return sum;
  }

  /// Lets the probes know whose work it is. There always is a target; it may be one that does nothing.
  void tell(Who who, pid_t worker) {
    const pid_t pid = who == kTarget ? worker : idle_.pid();
    std::vector<Process> processes;
    processes.push_back({{pid, 1}, {}, {}, must(Dir::open("/proc/" + std::to_string(pid)))});
    // Nobody's: all of a stranger's cgroups are looked at.
    const std::uint64_t cgroup = who == kNeighbour ? 0 : ~std::uint64_t{0};
    membership_->set_cgroups(cgroup, cgroup);
    if (must(membership_->sync(processes, processes.data(), ++generation_))) must(members_->remember());
  }

  const int turns_;
  const Place place_;
  const Worker idle_{[] { return Cost{}; }};
  KernelTypes types_;
  std::vector<Description> empty_;
  std::map<std::string, Probe, std::less<>> probes_;
  Probe* members_ = nullptr;
  std::optional<Membership> membership_;
  std::uint64_t generation_ = 0;
  Dir own_, other_;  ///< cgroups of version 2
};

}  // namespace

}  // namespace boxo::kernel

int main(int argc, char** argv) {
  boxo::kernel::Bench bench(argc > 1 ? std::atoi(argv[1]) : 9);
  bench.measure_all(argc > 2 ? argv[2] : "");
}
