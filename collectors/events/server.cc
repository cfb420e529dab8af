// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/server.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <utility>

#include "collectors/events/frames.h"
#include "collectors/log.h"
#include "collectors/thread.h"

namespace boxo::events {

namespace {

constexpr unsigned kBatch = 32;
// Buffers a power of two apart would share the few places of a cache that such addresses map to.
constexpr std::size_t kStride = kMaxPacket + 320;
// Batches and reads at one wake-up, so that no socket keeps the others waiting.
constexpr int kRounds = 16;
constexpr std::size_t kMaxConnections = 256;
constexpr std::size_t kStreamBuffer = 4 * kMaxPacket;
constexpr std::chrono::seconds kPatience{2};
// For so long connections are left waiting when there was no descriptor for one.
constexpr std::uint64_t kAcceptPause = kSecond;

std::uint64_t nanoseconds(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

/// The sender of a message; nobody if the kernel did not say.
ucred sender_of(msghdr& message) {
  ucred out{0, static_cast<uid_t>(-1), static_cast<gid_t>(-1)};
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part))
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_CREDENTIALS)
      std::memcpy(&out, CMSG_DATA(part), sizeof out);
  return out;
}

std::string describe(const ucred& sender) {
  return "uid " + std::to_string(sender.uid) + ", gid " + std::to_string(sender.gid) + ", pid " +
         std::to_string(sender.pid);
}

/// Threads started while one of these lives receive no signals: those are for the main thread.
class NoSignals {
 public:
  NoSignals() {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~NoSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  NoSignals(const NoSignals&) = delete;
  NoSignals& operator=(const NoSignals&) = delete;
  NoSignals(NoSignals&&) = delete;
  NoSignals& operator=(NoSignals&&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

std::uint64_t boot_time() { return nanoseconds(CLOCK_BOOTTIME); }

struct EventServer::Batch {
  // Room for credentials and nothing else: descriptors that somebody sends are closed by the kernel.
  struct alignas(cmsghdr) Control {
    char bytes[CMSG_SPACE(sizeof(ucred))];
  };
  // Not initialised: pages that no datagram fills are never touched.
  std::unique_ptr<char[]> buffer = std::make_unique_for_overwrite<char[]>(kBatch * kStride);
  std::array<iovec, kBatch> parts{};
  std::array<Control, kBatch> controls{};
  std::array<mmsghdr, kBatch> messages{};

  Batch() {
    for (unsigned i = 0; i < kBatch; ++i) {
      parts[i] = {buffer.get() + i * kStride, kMaxPacket};
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
      messages[i].msg_hdr.msg_control = controls[i].bytes;
      reset(i);
    }
  }
  void reset(unsigned i) { messages[i].msg_hdr.msg_controllen = sizeof controls[i].bytes; }
};

Result<std::unique_ptr<EventServer>> EventServer::open(const EventOptions& options) {
  std::optional<gid_t> group;
  if (!options.group.empty()) {
    auto found = find_group(options.group);
    if (!found) return found.error();
    group = *found;
  }
  const mode_t mode = options.mode != 0 ? options.mode : group ? 0660 : 0666;
  const auto socket = [&](int type, const char* option, const std::string& path) -> Result<UnixSocket> {
    if (auto inherited = UnixSocket::inherited(type)) return std::move(*inherited);
    if (path.empty()) return UnixSocket();
    return UnixSocket::bind(type, {option, path, mode, group});
  };
  auto datagrams = socket(SOCK_DGRAM, "--events", options.socket);
  if (!datagrams) return datagrams.error();
  auto streams = socket(SOCK_STREAM, "--events-stream", options.stream);
  if (!streams) return streams.error();
  const auto closed_to_others = [&](const UnixSocket& s) { return !s || s.only_for(*group); };
  const bool by_mode = group && closed_to_others(*datagrams) && closed_to_others(*streams);

  std::unique_ptr<EventServer> server(new EventServer(options, std::move(*datagrams), std::move(*streams)));
  server->senders_ = Senders(group, by_mode);
  if (auto ready = server->prepare(); !ready) return ready.error();
  const NoSignals no_signals;
  server->thread_ = std::thread([raw = server.get()] { raw->run(); });
  return server;
}

EventServer::EventServer(const EventOptions& options, UnixSocket datagrams, UnixSocket streams)
    : ledger_(options),
      datagrams_(std::move(datagrams)),
      streams_(std::move(streams)),
      batch_(std::make_unique<Batch>()) {}

Result<> EventServer::prepare() {
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_ || !wake_) return errno_error("events: no descriptor for waiting");
  const auto watch = [&](int fd, void* what) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = what;
    return fd < 0 || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  };
  if (!watch(wake_.get(), &wake_) || !watch(datagrams_.fd(), &datagrams_) || !watch(streams_.fd(), &streams_))
    return errno_error("events: cannot wait for the sockets");
  const int on = 1;
  // The kernel's noting and telling who sent it is some 5 % of what receiving a datagram costs.
  if (datagrams_ && senders_.must_be_known() &&
      ::setsockopt(datagrams_.fd(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0)
    return errno_error("events: the kernel does not tell who sends");
  return {};
}

EventServer::~EventServer() {
  stop_ = true;
  const std::uint64_t one = 1;
  if (wake_) [[maybe_unused]]
    const ssize_t n = ::write(wake_.get(), &one, sizeof one);
  if (thread_.joinable()) thread_.join();
}

void EventServer::run() {
  enter_unprivileged_thread("events");
  std::array<epoll_event, 64> ready{};
  while (!stop_.load(std::memory_order_relaxed)) {
    const int n = ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), pause_left());
    for (int i = 0; i < n; ++i) {
      void* const what = ready[static_cast<std::size_t>(i)].data.ptr;
      if (what == &wake_) {
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t size = ::read(wake_.get(), &count, sizeof count);
      } else if (what == &datagrams_) {
        receive_datagrams();
      } else if (what == &streams_) {
        accept_connections();
      } else if (auto* const connection = static_cast<Connection*>(what); !receive_frames(*connection)) {
        end_connection(connection);
      }
      hand_over();
    }
  }
}

void EventServer::receive_datagrams() {
  for (int round = 0; round < kRounds && !stop_.load(std::memory_order_relaxed); ++round) {
    const int n = ::recvmmsg(datagrams_.fd(), batch_->messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (n <= 0) return;
    const std::uint64_t now = boot_time();
    queue_peak_ = std::max(queue_peak_, static_cast<std::uint64_t>(n));
    for (unsigned i = 0; i < static_cast<unsigned>(n); ++i) {
      mmsghdr& message = batch_->messages[i];
      const ucred sender = sender_of(message.msg_hdr);
      if (senders_.allows(sender))
        ledger_.packet({batch_->buffer.get() + i * kStride, message.msg_len}, now,
                       (message.msg_hdr.msg_flags & MSG_TRUNC) != 0);
      else
        ledger_.reject(Reason::kCredentials, describe(sender));
      batch_->reset(i);
    }
    hand_over();
    // The queue was empty then. Asking again would mostly be told so, at the cost of a system call a wake-up.
    if (static_cast<unsigned>(n) < kBatch) return;
  }
}

void EventServer::accept_connections() {
  for (int round = 0; round < kRounds; ++round) {
    Fd fd(::accept4(streams_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      // The connection still waits: without a pause epoll would tell of it at once, again and again.
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) pause_accepting();
      return;
    }
    ucred sender{0, static_cast<uid_t>(-1), static_cast<gid_t>(-1)};
    socklen_t size = sizeof sender;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &sender, &size);
    if (!senders_.allows(sender)) {
      ledger_.reject(Reason::kCredentials, describe(sender));
      continue;
    }
    if (connections_.size() >= kMaxConnections) {
      ledger_.reject(Reason::kConnections, describe(sender));
      continue;
    }
    auto connection = std::make_unique<Connection>();
    connection->fd = std::move(fd);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = connection.get();
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection->fd.get(), &event) == 0)
      connections_.push_back(std::move(connection));
    else
      ledger_.reject(Reason::kConnections, describe(sender));
  }
}

void EventServer::end_connection(const Connection* connection) {
  // Closing is not enough where somebody else holds the socket too for a moment (a fork, an iterator over open files):
  // epoll would go on telling of a connection that is gone, and the other side would wait for an answer (epoll(7)).
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection->fd.get(), nullptr);
  ::shutdown(connection->fd.get(), SHUT_RDWR);
  std::erase_if(connections_, [&](const auto& open) { return open.get() == connection; });
}

void EventServer::watch_streams(bool on) {
  epoll_event event{};
  if (on) event.events = EPOLLIN;
  event.data.ptr = &streams_;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, streams_.fd(), &event);
}

void EventServer::pause_accepting() {
  if (accept_failures_++ == 0)
    log_warn(errno_error("events: a connection to --events-stream waits, it cannot be accepted").text());
  accept_again_at_ = boot_time() + kAcceptPause;
  watch_streams(false);
}

int EventServer::pause_left() {
  if (accept_again_at_ == 0) return -1;
  const std::uint64_t now = boot_time();
  if (now < accept_again_at_) return static_cast<int>((accept_again_at_ - now) / 1'000'000) + 1;
  accept_again_at_ = 0;
  watch_streams(true);
  return -1;
}

bool EventServer::receive_frames(Connection& connection) {
  if (!stream_buffer_) stream_buffer_ = std::make_unique_for_overwrite<char[]>(kStreamBuffer);
  for (int round = 0; round < kRounds && !stop_.load(std::memory_order_relaxed); ++round) {
    const std::size_t before = connection.pending.size();
    std::memcpy(stream_buffer_.get(), connection.pending.data(), before);
    const ssize_t n = ::recv(connection.fd.get(), stream_buffer_.get() + before, kStreamBuffer - before, 0);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) {
      if (before > 0) ledger_.reject(Reason::kFrame, "a frame without its end");
      return false;
    }
    std::string_view bytes(stream_buffer_.get(), before + static_cast<std::size_t>(n));
    const std::uint64_t now = boot_time();
    const FrameEnd end = cut_frames(bytes, [&](std::string_view frame) { ledger_.packet(frame, now); });
    if (!end.possible) {
      ledger_.reject(Reason::kFrame, "a frame of " + std::to_string(end.size) + " bytes");
      return false;
    }
    connection.pending.assign(bytes);
    hand_over();
  }
  return true;
}

std::uint64_t EventServer::waiting_bytes() const {
  const auto waiting = [](int fd) {
    int bytes = 0;
    return fd >= 0 && ::ioctl(fd, FIONREAD, &bytes) == 0 ? static_cast<std::uint64_t>(bytes) : 0;
  };
  std::uint64_t sum = waiting(datagrams_.fd());
  for (const auto& connection : connections_) sum += waiting(connection->fd.get());
  return sum;
}

void EventServer::hand_over() {
  if (!asked_.load(std::memory_order_relaxed)) return;
  {
    const std::lock_guard lock(mutex_);
    asked_.store(false, std::memory_order_relaxed);
    if (notice_ == nullptr) return;  // whoever asked has given up
    senders_.set_users(notice_->users);
    ledger_.forget(notice_->forget_before);
    ledger_.read(*reading_, boot_time());
    reading_->queued_bytes = waiting_bytes();
    reading_->accept_failures = accept_failures_;
    reading_->queue_peak = std::exchange(queue_peak_, 0);
    reading_->cpu_seconds = static_cast<double>(nanoseconds(CLOCK_THREAD_CPUTIME_ID)) / 1e9;
    notice_ = nullptr;
  }
  answered_.notify_one();
}

Result<> EventServer::take(const Notice& notice, Reading& out) {
  std::unique_lock lock(mutex_);
  notice_ = &notice;
  reading_ = &out;
  asked_.store(true, std::memory_order_relaxed);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
  if (answered_.wait_for(lock, kPatience, [&] { return notice_ == nullptr; })) return {};
  notice_ = nullptr;
  return Error{"the thread that receives events does not answer"};
}

}  // namespace boxo::events
