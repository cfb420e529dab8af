// SPDX-License-Identifier: MIT OR Apache-2.0
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <optional>

#include "agent/child.h"
#include "agent/exporter.h"
#include "agent/http.h"
#include "agent/monitor.h"
#include "agent/options.h"
#include "agent/pages.h"
#include "agent/privileges.h"
#include "agent/report.h"
#include "agent/version.h"
#include "collectors/catalogue.h"
#include "collectors/kernel/description.h"
#include "collectors/log.h"

namespace boxo {
namespace {

// Exit codes, as the contract fixes them.
constexpr int kDone = 0;
constexpr int kBadCommandLine = 2;
constexpr int kCannotOpen = 3;
constexpr int kNoSuchProcess = 4;

int fail(int status, const Error& error) {
  log_error(error.text());
  return status;
}

/// How the user named the target, for messages; "" if it was not by an option.
std::string option_of(const TargetSpec& spec) {
  switch (spec.kind) {
    case TargetSpec::Kind::kPid: return "--pid " + std::to_string(spec.pid);
    case TargetSpec::Kind::kComm: return "--comm " + spec.name;
    case TargetSpec::Kind::kCgroup: return "--cgroup " + spec.name;
    case TargetSpec::Kind::kContainer: return "--container " + spec.name;
    case TargetSpec::Kind::kDiscover: break;
  }
  return {};
}

/// To standard output: the exit code.
int print(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return written ? kDone : fail(kCannotOpen, errno_error("standard output", "give it a place that can be written"));
}

KnownNames known_names() {
  KnownNames names;
  for (const CollectorInfo* info : catalogue()) names.collectors.emplace_back(info->name);
  for (const kernel::Description& probe : kernel::descriptions()) {
    names.probes.emplace_back(probe.object.name);
    if (probe.on_request) names.with_share.emplace_back(probe.object.name);
  }
  if (!names.probes.empty()) names.base = names.probes.front();
  return names;
}

/// The signals that the ticking thread takes by a descriptor; blocked before any thread is made.
Result<Fd> take_signals(bool with_command) {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT}) ::sigaddset(&signals, signal);
  // The terminal was closed, unless somebody took care that this does not matter (nohup(1)).
  struct sigaction hangup {};
  ::sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) ::sigaddset(&signals, SIGHUP);
  if (with_command)
    for (const int signal : {SIGCHLD, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT}) ::sigaddset(&signals, signal);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  Fd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return errno_error("signalfd");
  return fd;
}

/// Descriptors are kept open for every process and thread of the target: as many as allowed. Returns the limit before.
rlimit raise_descriptor_limit() {
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const rlimit raised{.rlim_cur = before.rlim_max, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &raised);
  return before;
}

/// One run of the agent: the parts in the order in which they are made, and taken down in the opposite one.
class Agent {
 public:
  explicit Agent(Options options) : options_(std::move(options)) {}

  int run() {
    auto signals = take_signals(!options_.command.empty());
    if (!signals) return fail(kCannotOpen, signals.error());
    signals_ = std::move(*signals);
    if (const int status = make_target(); status != kDone) return status;
    if (const int status = make_monitor(); status != kDone) return status;
    if (options_.once || options_.check) return look_once();
    return serve();
  }

 private:
  int make_target() {
    const rlimit descriptors = raise_descriptor_limit();
    if (!options_.command.empty()) {
      auto child = Child::fork_held(options_.command, descriptors);
      if (!child) return fail(kBadCommandLine, child.error());
      child_ = std::move(*child);
      options_.target = {TargetSpec::Kind::kPid, child_->pid_in_proc(), {}};
    }
    auto target = Target::make(options_.target, "/proc", options_.collection.cgroup_root);
    if (!target) {
      const bool no_process = target.error().code == ESRCH && options_.target.kind == TargetSpec::Kind::kPid;
      Error error = target.error();
      if (const std::string option = option_of(options_.target); !option.empty())
        error.message = option + ": " + error.message;
      return fail(no_process ? kNoSuchProcess : kBadCommandLine, error);
    }
    target_ = std::move(*target);
    return kDone;
  }

  int make_monitor() {
    auto monitor = PerformanceMonitor::make(*target_);
    if (!monitor) return fail(kCannotOpen, monitor.error());
    monitor_ = std::move(*monitor);
    target_->use(options_.collection.handover);
    target_->refresh();
    for (const CollectorInfo* info : catalogue())
      if (options_.wants(info->name))
        monitor_->register_collector(std::string(info->name), info->make(*target_, options_.collection));
    if (auto started = monitor_->start_collectors(); !started) return fail(kCannotOpen, started.error());
    return kDone;
  }

  /// --once and --check: two collections, one interval apart, for what needs two readings.
  int look_once() {
    monitor_->collect_metrics();
    if (child_)
      if (auto released = child_->release(); !released) return fail(kBadCommandLine, command_error(released.error()));
    if (options_.once) wait_one_interval();
    monitor_->collect_metrics();
    if (!options_.check && !target_->up()) log_warn("nothing to watch: " + target_->describe());
    const int status = print(options_.check ? table_of_checks(*monitor_, *target_)
                                            : *Exporter(*monitor_, options_.labels).page());
    if (child_) end_command();
    return status;
  }

  /// The command was for this one look: asked to end, then made to.
  void end_command() {
    constexpr timespec kPause{.tv_sec = 0, .tv_nsec = 10'000'000};
    child_->signal(SIGTERM);
    for (int i = 0; i < 100 && !child_->ended(); ++i) ::nanosleep(&kPause, nullptr);
    child_->signal(SIGKILL);
    child_->wait();
  }

  /// Shorter if a signal or the command's end says so.
  void wait_one_interval() {
    using std::chrono::steady_clock;
    const auto end = steady_clock::now() + options_.collection.interval;
    while (!over_) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - steady_clock::now());
      if (left.count() <= 0) return;
      pollfd signals{signals_.get(), POLLIN, 0};
      if (::poll(&signals, 1, static_cast<int>(left.count())) > 0) handle_signals();
    }
  }

  int serve() {
    const Exporter exporter(*monitor_, options_.labels);
    auto server = HttpServer::listen(options_.listen, pages(*monitor_, exporter));
    if (!server)
      return fail(server.error().code == EINVAL ? kBadCommandLine : kCannotOpen,
                  {"--listen " + options_.listen + ": " + server.error().message, server.error().hint});
    log_info("serving " + (*server)->url() + "/metrics; target: " + target_->describe());
    if (auto watched = monitor_->watch(signals_.get(), [this] { handle_signals(); }); !watched)
      return fail(kCannotOpen, watched.error());
    monitor_->collect_metrics();
    if (child_)
      if (auto released = child_->release(); !released) return fail(kBadCommandLine, command_error(released.error()));
    if (auto dropped = shed_privileges(); !dropped) log_warn(dropped.error().text());
    if (auto ran = monitor_->start_collection(options_.collection.interval); !ran) return fail(kCannotOpen, ran.error());
    return child_ ? child_->wait() : kDone;
  }

  /// After the first collection everything is open and attached. CAP_SYS_ADMIN stays while the target may live in another
  /// network namespace, whose sockets cannot be asked for otherwise; CAP_NET_ADMIN while another process may become the target.
  Result<> shed_privileges() {
    const auto own = Dir::open("/proc/self/ns");
    const auto ours = own ? own->link("net") : Result<std::string>(own.error());
    const auto theirs = target_->up() ? target_->main()->shared().link("ns/net") : Result<std::string>(Error{"no target"});
    const bool same = ours && theirs && *ours == *theirs;
    auto dropped = drop_privileges({.network = target_->spec().kind != TargetSpec::Kind::kPid, .admin = !same, .kill = child_.has_value()});
    if (dropped) log_debug("capabilities left: " + privileges_left());
    return dropped;
  }

  Error command_error(const Error& error) const {
    return {"-- " + options_.command[0] + ": " + error.message, error.hint, error.code};
  }

  /// SIGTERM, SIGINT and SIGHUP end the agent; with a command they are the command's, and its end is the agent's.
  void handle_signals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (!child_ || (signal == SIGCHLD && child_->ended())) {
        over_ = true;
        monitor_->stop_collection();
      } else if (signal != SIGCHLD && (info.ssi_code <= 0 || signal != SIGINT)) {
        // A SIGINT from the terminal has reached the command already: it is in the same process group.
        child_->signal(signal);
      }
    }
  }

  Options options_;
  Fd signals_;
  bool over_ = false;
  std::optional<Child> child_;
  std::optional<Target> target_;
  std::unique_ptr<PerformanceMonitor> monitor_;
};

int run(int argc, const char* const* argv) {
  auto parsed = parse_options(argc, argv, known_names());
  if (!parsed) return fail(kBadCommandLine, parsed.error());
  if (const auto* printout = std::get_if<Printout>(&*parsed)) return print(printout->text);
  Options options = std::get<Options>(std::move(*parsed));
  set_log_level(options.log_level);
  if (options.list) return print(list_of_metrics());
  return Agent(std::move(options)).run();
}

}  // namespace
}  // namespace boxo

int main(int argc, char** argv) { return boxo::run(argc, argv); }
