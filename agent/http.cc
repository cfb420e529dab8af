// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/http.h"

#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string_view>
#include <thread>

#include "collectors/fd.h"
#include "collectors/log.h"
#include "collectors/thread.h"

namespace boxo {

using std::chrono::steady_clock;

namespace {

// Scrapers are few. What is above, or says nothing for so long, is somebody else's mistake and must not cost memory.
constexpr unsigned kMaxConnections = 64;
constexpr unsigned kIdleSeconds = 10;
// The idle time begins anew with every byte: a request's head that comes byte by byte, and an answer that is fetched so,
// have an end too.
constexpr std::chrono::seconds kHeadTime{10};
constexpr std::chrono::seconds kAnswerTime{60};
// While all places are taken, one that has not asked for anything yet soon makes room for those that wait.
constexpr std::chrono::milliseconds kHeadTimeWhenFull{250};
// How long a connection waits that cannot be accepted, as without a free descriptor.
constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr std::size_t kConnectionMemory = 8192;  // the request's head and ours

struct Address {
  std::string host;
  std::string port;
  bool ipv6 = false;
};

Result<Address> parse(const std::string& text) {
  const Error wrong{"not an address and port", "write ADDR:PORT, such as 127.0.0.1:9559 or [::1]:9559", EINVAL};
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return wrong;
  Address address{text.substr(0, colon), text.substr(colon + 1)};
  if (address.host.size() >= 2 && address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
    address.ipv6 = true;
  } else if (address.host.find(':') != std::string::npos) {
    return wrong;
  }
  const bool digits = !address.port.empty() && address.port.size() <= 5 &&
                      address.port.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || std::stoi(address.port) > 65535) return wrong;
  if (address.host == "localhost") address.host = "127.0.0.1";
  return address;
}

Result<Fd> listen_on(const Address& address) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_family = address.ipv6 ? AF_INET6 : AF_INET;
  addrinfo* found = nullptr;
  const char* host = address.host.empty() ? nullptr : address.host.c_str();
  if (const int code = ::getaddrinfo(host, address.port.c_str(), &hints, &found); code != 0)
    return Error{"not an IP address: " + address.host, "give a numeric address", EINVAL};
  Fd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    const int code = errno;
    ::freeaddrinfo(found);
    return errno_error("cannot listen", address.ipv6 ? "where there is no IPv6, listen on 0.0.0.0 or 127.0.0.1" : "", code);
  }
  const int on = 1;
  const int off = 0;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // [::] means every address, IPv4 too, whatever net.ipv6.bindv6only says.
  if (address.ipv6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  const bool listens = ::bind(fd.get(), found->ai_addr, found->ai_addrlen) == 0 && ::listen(fd.get(), 128) == 0;
  const int code = errno;
  ::freeaddrinfo(found);
  if (listens) return fd;
  return errno_error("cannot listen",
                     code == EADDRINUSE ? "another program listens there; choose another port, or 0 for a free one"
                                        : "choose another address or port",
                     code);
}

int port_of(const Fd& fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  // sin_port and sin6_port are at the same place.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

HttpResponse plain(int status, const char* text) {
  return {.status = status, .body = std::make_shared<const std::string>(text)};
}

/// The body is sent from where it is; the response holds a reference until the client has all of it.
MHD_Response* library_response(const HttpResponse& from) {
  const std::string& body = *from.body;
  auto* owner = new std::shared_ptr<const std::string>(from.body);
  MHD_Response* to = MHD_create_response_from_buffer_with_free_callback_cls(
      body.size(), const_cast<char*>(body.data()), [](void* held) { delete static_cast<std::shared_ptr<const std::string>*>(held); },
      owner);
  if (to == nullptr) {
    delete owner;
    return nullptr;
  }
  MHD_add_response_header(to, MHD_HTTP_HEADER_CONTENT_TYPE, from.content_type.c_str());
  MHD_add_response_header(to, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
  if (from.status == MHD_HTTP_METHOD_NOT_ALLOWED) MHD_add_response_header(to, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
  return to;
}

}  // namespace

struct HttpServer::Impl {
  std::map<std::string, Handler> pages;
  std::string url;
  Fd listener;
  Fd spare;  // given up for a connection when no other descriptor is left: that is when somebody wants to see the page
  bool listening = false;
  steady_clock::time_point accept_again{};
  bool told = false;
  Fd epoll;
  Fd stop;
  MHD_Daemon* daemon = nullptr;
  struct Patience {
    steady_clock::time_point deadline;
    std::optional<steady_clock::time_point> silent_since;  // it is our turn to wait
  };
  std::map<MHD_Connection*, Patience> connections;  // that are open, for the serving thread
  std::thread thread;

  ~Impl() {
    if (thread.joinable()) {
      const std::uint64_t one = 1;
      (void)!::write(stop.get(), &one, sizeof one);
      thread.join();
    }
    if (daemon != nullptr) MHD_stop_daemon(daemon);
  }

  HttpResponse respond(std::string_view path, std::string_view method) const {
    if (method != "GET" && method != "HEAD") return plain(MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    const auto page = pages.find(std::string(path));
    return page == pages.end() ? plain(MHD_HTTP_NOT_FOUND, "no such page; see /\n") : page->second();
  }

  void wait_for_head(MHD_Connection* connection) {
    const auto now = steady_clock::now();
    connections[connection] = {now + kHeadTime, now};
  }
  bool full() const { return connections.size() >= kMaxConnections; }

  static void on_connection(void* self, MHD_Connection* connection, void**, MHD_ConnectionNotificationCode what) {
    auto* const impl = static_cast<Impl*>(self);
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
      impl->wait_for_head(connection);
    else
      impl->connections.erase(connection);
  }

  static void on_answered(void* self, MHD_Connection* connection, void**, MHD_RequestTerminationCode) {
    static_cast<Impl*>(self)->wait_for_head(connection);
  }

  /// The library's own accepting would try again at once, and again, while there is no descriptor for a connection.
  void accept_connections() {
    while (!full()) {
      sockaddr_storage address{};
      socklen_t size = sizeof address;
      const auto accept = [&] {
        return Fd(::accept4(listener.get(), reinterpret_cast<sockaddr*>(&address), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
      };
      Fd fd = accept();
      if (!fd && (errno == EMFILE || errno == ENFILE) && spare) {
        spare.reset();
        fd = accept();
      }
      if (!fd) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) pause_accepting();
        return;
      }
      MHD_add_connection(daemon, fd.release(), reinterpret_cast<const sockaddr*>(&address), size);
    }
  }

  void pause_accepting() {
    const Error error = errno_error("HTTP: a connection waits, it cannot be accepted", "raise the limit of open files (ulimit -Hn)");
    if (!told) log_warn(error.text());
    told = true;
    accept_again = steady_clock::now() + kAcceptPause;
  }

  /// Looks at the listening socket while a connection can be taken. Returns how many milliseconds a pause has left, or -1.
  int listen_or_pause() {
    if (!spare) spare = Fd(::fcntl(stop.get(), F_DUPFD_CLOEXEC, 0));
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(accept_again - steady_clock::now());
    const bool wanted = left.count() <= 0 && !full();
    if (wanted != listening) {
      epoll_event event{};
      if (wanted) event.events = EPOLLIN;
      event.data.fd = listener.get();
      ::epoll_ctl(epoll.get(), EPOLL_CTL_MOD, listener.get(), &event);
      listening = wanted;
    }
    return left.count() > 0 ? static_cast<int>(left.count()) : -1;
  }

  /// Ends the connections that took too long; the library notices that. Returns how many milliseconds the next one has.
  int enforce_deadlines() {
    const auto now = steady_clock::now();
    auto next = std::chrono::milliseconds(1000 * kIdleSeconds);
    for (auto& [connection, patience] : connections) {
      auto& deadline = patience.deadline;
      if (full() && patience.silent_since) deadline = std::min(deadline, *patience.silent_since + kHeadTimeWhenFull);
      if (deadline <= now) {
        const MHD_ConnectionInfo* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        if (info != nullptr) ::shutdown(info->connect_fd, SHUT_RDWR);
        patience = {now + kHeadTime, {}};
      }
      next = std::min(next, std::chrono::ceil<std::chrono::milliseconds>(deadline - now));
    }
    return static_cast<int>(next.count());
  }

  static MHD_Result handle(void* self, MHD_Connection* connection, const char* path, const char* method, const char*,
                           const char*, std::size_t* body_size, void** seen) {
    // Called once for the head, once for each part of a body, which nobody wants, and once at the end.
    static char head;
    if (*seen == nullptr) {
      *seen = &head;
      static_cast<Impl*>(self)->connections[connection] = {steady_clock::now() + kAnswerTime, {}};
      return MHD_YES;
    }
    if (*body_size != 0) {
      *body_size = 0;
      return MHD_YES;
    }
    const HttpResponse answer = static_cast<const Impl*>(self)->respond(path, method);
    MHD_Response* response = library_response(answer);
    if (response == nullptr) return MHD_NO;
    const MHD_Result queued = MHD_queue_response(connection, static_cast<unsigned>(answer.status), response);
    MHD_destroy_response(response);
    return queued;
  }

  /// One thread serves all connections: nobody waits for a slow client.
  void run() {
    enter_unprivileged_thread("http");
    while (true) {
      const int next = enforce_deadlines();
      MHD_UNSIGNED_LONG_LONG timeout = 0;
      int wait = listen_or_pause();
      if (MHD_get_timeout(daemon, &timeout) == MHD_YES) {
        const auto library = static_cast<int>(std::min<MHD_UNSIGNED_LONG_LONG>(timeout, static_cast<unsigned>(next)));
        wait = wait < 0 ? library : std::min(wait, library);
      }
      epoll_event events[3];
      const int n = ::epoll_wait(epoll.get(), events, 3, wait);
      for (int i = 0; i < n; ++i) {
        if (events[i].data.fd == stop.get()) return;
        if (events[i].data.fd == listener.get()) accept_connections();
      }
      MHD_run(daemon);
    }
  }

  Result<> start() {
    daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, nullptr, nullptr, &Impl::handle, this,
                              MHD_OPTION_CONNECTION_LIMIT, kMaxConnections,
                              MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                              kConnectionMemory, MHD_OPTION_NOTIFY_CONNECTION, &Impl::on_connection, this,
                              MHD_OPTION_NOTIFY_COMPLETED, &Impl::on_answered, this, MHD_OPTION_END);
    if (daemon == nullptr) return errno_error("the HTTP server does not start");
    const MHD_DaemonInfo* info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD);
    epoll = Fd(::epoll_create1(EPOLL_CLOEXEC));
    stop = Fd(::eventfd(0, EFD_CLOEXEC));
    if (info == nullptr || !epoll || !stop) return errno_error("the HTTP server does not start");
    for (const int fd : {info->epoll_fd, stop.get(), listener.get()}) {
      epoll_event event{};
      if (fd != listener.get()) event.events = EPOLLIN;  // see listen_or_pause()
      event.data.fd = fd;
      if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
        return errno_error("the HTTP server does not start");
    }
    thread = std::thread([this] { run(); });
    return {};
  }
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

const std::string& HttpServer::url() const { return impl_->url; }

Result<std::unique_ptr<HttpServer>> HttpServer::listen(const std::string& text, std::map<std::string, Handler> pages) {
  const auto address = parse(text);
  if (!address) return address.error();
  auto listener = listen_on(*address);
  if (!listener) return listener.error();

  auto impl = std::make_unique<Impl>();
  impl->pages = std::move(pages);
  impl->listener = std::move(*listener);
  const std::string host = address->ipv6 ? "[" + address->host + "]" : address->host;
  impl->url = "http://" + (host.empty() ? "0.0.0.0" : host) + ":" + std::to_string(port_of(impl->listener));
  if (auto started = impl->start(); !started) return started.error();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace boxo
