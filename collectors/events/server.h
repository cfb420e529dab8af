// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "collectors/collector.h"
#include "collectors/events/ledger.h"
#include "collectors/events/reading.h"
#include "collectors/events/senders.h"
#include "collectors/events/socket.h"
#include "collectors/fd.h"
#include "collectors/result.h"

namespace boxo::events {

/// Nanoseconds since boot, also while the machine slept: the clock of process start times.
std::uint64_t boot_time();

/// Receives events on its own thread and counts them in a Ledger that only this thread touches. Whoever wants
/// the counts asks, and the thread copies them between two batches: a flood delays a tick by one batch at
/// most, and a tick stops the thread only while it copies.
class EventServer {
 public:
  /// Opens the sockets (those of systemd, if it opened them, else the paths of the options) and starts the
  /// thread.
  static Result<std::unique_ptr<EventServer>> open(const EventOptions& options);
  ~EventServer();
  EventServer(const EventServer&) = delete;
  EventServer& operator=(const EventServer&) = delete;
  EventServer(EventServer&&) = delete;
  EventServer& operator=(EventServer&&) = delete;

  /// What the ticking thread knows and the receiving one needs.
  struct Notice {
    std::vector<uid_t> users;         ///< of the target: they may send
    std::uint64_t forget_before = 0;  ///< gauges and samples of before this (since boot) are void
  };
  /// Fills `out` with the counts up to now. Any one thread.
  Result<> take(const Notice& notice, Reading& out);

  /// The paths of the sockets; "" for one that is not open.
  const std::string& datagram_path() const { return datagrams_.path(); }
  const std::string& stream_path() const { return streams_.path(); }

 private:
  struct Connection {
    Fd fd;
    std::string pending;  ///< the beginning of a frame whose end is still to come
  };
  /// The messages of one recvmmsg().
  struct Batch;

  EventServer(const EventOptions& options, UnixSocket datagrams, UnixSocket streams);
  Result<> prepare();
  void run();
  void receive_datagrams();
  void accept_connections();
  /// Leaves connections waiting for a while: there is no descriptor or memory for another one.
  void pause_accepting();
  /// Milliseconds until connections are accepted again; -1 when they are.
  int pause_left();
  void watch_streams(bool on);
  void end_connection(const Connection* connection);
  /// False when the connection is at its end.
  bool receive_frames(Connection& connection);
  void hand_over();
  std::uint64_t waiting_bytes() const;

  Ledger ledger_;
  Senders senders_;
  UnixSocket datagrams_;
  UnixSocket streams_;
  Fd epoll_;
  Fd wake_;
  std::unique_ptr<Batch> batch_;
  std::unique_ptr<char[]> stream_buffer_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::uint64_t queue_peak_ = 0;
  std::uint64_t accept_failures_ = 0;
  std::uint64_t accept_again_at_ = 0;  ///< since boot; 0: there is no pause

  std::atomic<bool> stop_{false};
  std::atomic<bool> asked_{false};  ///< there is a request: look at it between two batches
  std::mutex mutex_;                ///< guards the request
  std::condition_variable answered_;
  const Notice* notice_ = nullptr;  ///< of the request; nullptr: there is none
  Reading* reading_ = nullptr;
  std::thread thread_;  ///< last: it uses all of the above
};

}  // namespace boxo::events
