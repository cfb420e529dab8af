// SPDX-License-Identifier: MIT OR Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectors/collector.h"
#include "collectors/events/publisher.h"
#include "collectors/events/server.h"

namespace boxo::events {

namespace {

// More users than this do not run one node.
constexpr std::size_t kMaxUsers = 32;

/// The user that a process acts as, from the text of its status file.
std::optional<uid_t> user_of(std::string_view status) {
  const std::size_t line = status.find("\nUid:\t");
  if (line == std::string_view::npos) return std::nullopt;
  const std::size_t effective = status.find('\t', line + 6);
  if (effective == std::string_view::npos) return std::nullopt;
  uid_t user = 0;
  const auto [rest, error] =
      std::from_chars(status.data() + effective + 1, status.data() + status.size(), user);
  return error == std::errc{} ? std::optional(user) : std::nullopt;
}

/// What the application says: everything that arrives on the event sockets.
class EventsCollector final : public Collector {
 public:
  EventsCollector(const Target& target, const CollectorOptions& options)
      : target_(target), options_(options.events), publisher_(options.events.history, boot_time()) {}

  Result<> start() override {
    auto server = EventServer::open(options_);
    if (server) {
      server_ = std::move(*server);
      return {};
    }
    closed_ = server.error().text();
    return options_.required ? server.error() : Result<>();
  }

  Result<> collect(Snapshot& out) override {
    if (!server_) {
      for (const Metric& metric : Publisher::metrics()) out.absent(metric.name, closed_);
      return {};
    }
    look_at_target();
    if (auto taken = server_->take(notice_, reading_); !taken) return taken.error();
    publisher_.publish(reading_, out);
    return {};
  }

  std::vector<std::string> debug_lines() override {
    if (reading_.last_refused.empty()) return {};
    return {"rejected since the last tick, the last one: " + std::exchange(reading_.last_refused, {})};
  }

  std::vector<Capability> check() override {
    const auto row = [](const char* name, const char* option, const std::string& path) {
      return Capability{name, !path.empty(),
                        path.empty() ? std::string("off: ") + option + " PATH opens it" : path};
    };
    if (!server_) return {{"sockets", false, closed_}};
    return {row("datagrams", "--events", server_->datagram_path()),
            row("streams", "--events-stream", server_->stream_path())};
  }

 private:
  void look_at_target() {
    // What gauges say ends with the process that set them.
    const Process* const main = target_.main();
    if (main != nullptr)
      notice_.forget_before = main->id != main_ && main_.pid != 0 ? start_time(main->id) : 0;
    else
      notice_.forget_before = main_.pid != 0 ? boot_time() : 0;
    if (main != nullptr) main_ = main->id;
    if (target_.generation() == generation_ || !target_.up()) return;
    generation_ = target_.generation();
    notice_.users.clear();
    for (const Process& process : target_.processes()) {
      const auto status = process.proc.read("status");
      const auto user = status ? user_of(*status) : std::nullopt;
      if (user && std::find(notice_.users.begin(), notice_.users.end(), *user) == notice_.users.end() &&
          notice_.users.size() < kMaxUsers)
        notice_.users.push_back(*user);
    }
  }
  static std::uint64_t start_time(const ProcessId& id) {
    return id.start_ticks * (1'000'000'000 / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK)));
  }

  const Target& target_;
  EventOptions options_;
  std::unique_ptr<EventServer> server_;
  std::string closed_ = "not started";  ///< why there is no server
  Publisher publisher_;
  Reading reading_;
  EventServer::Notice notice_;
  ProcessId main_;
  std::uint64_t generation_ = ~std::uint64_t{0};
};

std::unique_ptr<Collector> make(const Target& target, const CollectorOptions& options) {
  return std::make_unique<EventsCollector>(target, options);
}

}  // namespace

}  // namespace boxo::events

namespace boxo {

extern const CollectorInfo events_collector;
const CollectorInfo events_collector = {"events", "what the application sends to the event socket",
                                        &events::Publisher::metrics, &events::make};

}  // namespace boxo
