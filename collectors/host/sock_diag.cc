// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/sock_diag.h"

#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>

// linux/tcp.h and netinet/tcp.h cannot both be included; only the kernel's tcp_info has all members.
#include <linux/tcp.h>

#include "collectors/reading.h"

namespace boxo::host {

namespace {

constexpr std::size_t kBuffer = 65536;
// Sockets of no process: those that wait for late segments, and connections that are not accepted yet. There
// may be tens of thousands of them.
constexpr std::uint32_t kStates =
    ~((1U << kSynReceived) | (1U << kTimeWait) | (1U << 12 /* TCP_NEW_SYN_RECV */));

struct Close {
  void operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
};
using MnlSocket = std::unique_ptr<mnl_socket, Close>;

std::uint64_t cookie_of(const std::uint32_t (&halves)[2]) {
  return static_cast<std::uint64_t>(halves[1]) << 32 | halves[0];
}

/// Kernels differ in how much of the structure they fill in; what is missing stays zero.
template <class T>
T attribute(const nlattr* from) {
  T value{};
  std::memcpy(&value, ::mnl_attr_get_payload(from),
              std::min<std::size_t>(sizeof value, ::mnl_attr_get_payload_len(from)));
  return value;
}

void take_tcp_info(const nlattr* attr, Socket& socket) {
  const auto info = attribute<tcp_info>(attr);
  // Since Linux 4.19; before, what was acknowledged is the next best, in which a SYN or FIN counts as a byte.
  constexpr std::size_t kUpToRetransmitted =
      offsetof(tcp_info, tcpi_bytes_retrans) + sizeof info.tcpi_bytes_retrans;
  const bool has_again = ::mnl_attr_get_payload_len(attr) >= kUpToRetransmitted;
  socket.sent = has_again
                    ? info.tcpi_bytes_sent - std::min(info.tcpi_bytes_sent, info.tcpi_bytes_retrans)
                    : info.tcpi_bytes_acked;
  socket.received = payload_received(socket.state, info.tcpi_bytes_received);
  socket.segments_out = info.tcpi_segs_out;
  socket.segments_in = info.tcpi_segs_in;
  socket.data_segments_out = info.tcpi_data_segs_out;
  socket.retransmits = has_again ? payload_retransmits(info.tcpi_total_retrans, info.tcpi_bytes_retrans) : info.tcpi_total_retrans;
  socket.rtt_us = info.tcpi_rtt;
}

struct Reader {
  Protocol protocol;
  std::vector<Socket>* out;
};

int on_inet_attribute(const nlattr* attr, void* data) {
  struct Memory {
    std::uint32_t values[SK_MEMINFO_VARS];
  };
  Socket& socket = *static_cast<Socket*>(data);
  const std::uint16_t type = ::mnl_attr_get_type(attr);
  if (type == INET_DIAG_INFO && socket.protocol == Protocol::kTcp)
    take_tcp_info(attr, socket);
  else if (type == INET_DIAG_SKMEMINFO)
    socket.drops = attribute<Memory>(attr).values[SK_MEMINFO_DROPS];
  return MNL_CB_OK;
}

int on_inet(const nlmsghdr* header, void* data) {
  const Reader& reader = *static_cast<Reader*>(data);
  if (::mnl_nlmsg_get_payload_len(header) < sizeof(inet_diag_msg)) return MNL_CB_OK;
  const auto* message = static_cast<const inet_diag_msg*>(::mnl_nlmsg_get_payload(header));
  if (message->idiag_inode == 0) return MNL_CB_OK;
  Socket socket;
  socket.protocol = reader.protocol;
  socket.state = message->idiag_state;
  socket.inode = message->idiag_inode;
  socket.source = SocketSource::kDiag;
  socket.id = cookie_of(message->id.idiag_cookie);
  if (socket.protocol == Protocol::kTcp) socket.cookie = socket.id;
  socket.receive_queue = message->idiag_rqueue;
  socket.send_queue = message->idiag_wqueue;
  ::mnl_attr_parse(header, sizeof(inet_diag_msg), on_inet_attribute, &socket);
  reader.out->push_back(socket);
  return MNL_CB_OK;
}

int on_unix(const nlmsghdr* header, void* data) {
  const Reader& reader = *static_cast<Reader*>(data);
  if (::mnl_nlmsg_get_payload_len(header) < sizeof(unix_diag_msg)) return MNL_CB_OK;
  const auto* message = static_cast<const unix_diag_msg*>(::mnl_nlmsg_get_payload(header));
  Socket socket;
  socket.protocol = Protocol::kUnix;
  socket.state = message->udiag_state;
  socket.inode = message->udiag_ino;
  socket.source = SocketSource::kDiag;
  socket.id = cookie_of(message->udiag_cookie);
  if (socket.inode != 0) reader.out->push_back(socket);
  return MNL_CB_OK;
}

}  // namespace

struct SockDiag::Impl {
  MnlSocket socket;
  std::vector<char> buffer = std::vector<char>(kBuffer);
  std::uint32_t sequence = 0;
  bool both_families = true;

  template <class Request>
  Result<> dump(std::uint16_t type, const Request& request, mnl_cb_t each, Protocol protocol,
                std::vector<Socket>& out) {
    nlmsghdr* header = ::mnl_nlmsg_put_header(buffer.data());
    header->nlmsg_type = type;
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    header->nlmsg_seq = ++sequence;
    std::memcpy(::mnl_nlmsg_put_extra_header(header, sizeof request), &request, sizeof request);
    if (::mnl_socket_sendto(socket.get(), header, header->nlmsg_len) < 0) return errno_error("sock_diag");
    Reader reader{protocol, &out};
    const unsigned port = ::mnl_socket_get_portid(socket.get());
    for (;;) {
      const ssize_t n = ::mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno_error("sock_diag");
      const int go_on =
          ::mnl_cb_run(buffer.data(), static_cast<std::size_t>(n), sequence, port, each, &reader);
      if (go_on == MNL_CB_STOP) return {};
      // What is left of an answer that was given up on the last time.
      if (go_on < 0 && errno == EPROTO) continue;
      if (go_on < 0) return errno_error("sock_diag");
    }
  }

  Result<> inet(int family, int protocol, int extension, Protocol as, std::vector<Socket>& out) {
    inet_diag_req_v2 request{};
    request.sdiag_family = static_cast<std::uint8_t>(family);
    request.sdiag_protocol = static_cast<std::uint8_t>(protocol);
    request.idiag_ext = static_cast<std::uint8_t>(1 << (extension - 1));
    request.idiag_states = kStates;
    return dump(SOCK_DIAG_BY_FAMILY, request, on_inet, as, out);
  }

  Result<> tcp(std::vector<Socket>& out) {
    if (both_families) {
      // The older request has no family: IPv4 and IPv6 in one walk over the kernel's table, which is most of
      // the cost.
      inet_diag_req request{};
      request.idiag_ext = 1 << (INET_DIAG_INFO - 1);
      request.idiag_states = kStates;
      auto done = dump(TCPDIAG_GETSOCK, request, on_inet, Protocol::kTcp, out);
      if (done || done.error().code == EAGAIN) return done;
      both_families = false;
    }
    if (auto done = inet(AF_INET, IPPROTO_TCP, INET_DIAG_INFO, Protocol::kTcp, out); !done) return done;
    return inet(AF_INET6, IPPROTO_TCP, INET_DIAG_INFO, Protocol::kTcp, out);
  }
};

SockDiag::SockDiag(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SockDiag::SockDiag(SockDiag&&) noexcept = default;
SockDiag& SockDiag::operator=(SockDiag&&) noexcept = default;
SockDiag::~SockDiag() = default;

Result<std::uint64_t> network_namespace(const Dir& process) {
  struct stat info {};
  if (::fstatat(process.fd(), "ns/net", &info, 0) != 0) return errno_error("ns/net");
  return static_cast<std::uint64_t>(info.st_ino);
}

namespace {

Result<MnlSocket> open_here() {
  MnlSocket socket(::mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC));
  if (!socket || ::mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0)
    return errno == EMFILE || errno == ENFILE ? errno_error("sock_diag")
                                              : errno_error("sock_diag", "let the agent open sockets of the family AF_NETLINK");
  const timeval second{1, 0};
  ::setsockopt(::mnl_socket_get_fd(socket.get()), SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
  return socket;
}

/// A socket belongs for ever to the namespace in which it was made, so only the making needs to be there: a
/// thread that goes there and ends, since a thread that came back would need the same privilege once more.
Result<MnlSocket> open_in(const Fd& ns) {
  Result<MnlSocket> made = Error{};
  try {
    std::thread([&] {
      if (::setns(ns.get(), CLONE_NEWNET) == 0)
        made = open_here();
      else
        made = errno_error("setns", "sockets of another network namespace need CAP_SYS_ADMIN");
    }).join();
  } catch (const std::system_error& error) {
    return errno_error("cannot start a thread", kMoreThreads, error.code().value());
  }
  return made;
}

}  // namespace

Result<SockDiag> SockDiag::open(const Process& process) {
  auto theirs = network_namespace(process.shared());
  if (!theirs) return theirs.error();
  struct stat own {};
  const bool same = ::stat("/proc/self/ns/net", &own) == 0 && own.st_ino == *theirs;
  auto ns = process.shared().file("ns/net");
  if (!same && !ns) return ns.error();
  auto socket = same ? open_here() : open_in(*ns);
  if (!socket) return socket.error();
  auto impl = std::make_unique<Impl>();
  impl->socket = std::move(*socket);
  return SockDiag(std::move(impl));
}

Result<> SockDiag::read(Protocol protocol, std::vector<Socket>& out) {
  if (protocol == Protocol::kTcp) return impl_->tcp(out);
  if (protocol == Protocol::kUdp) {
    if (auto done = impl_->inet(AF_INET, IPPROTO_UDP, INET_DIAG_SKMEMINFO, protocol, out); !done) return done;
    auto done = impl_->inet(AF_INET6, IPPROTO_UDP, INET_DIAG_SKMEMINFO, protocol, out);
    // Without IPv6 there is no such handler.
    return !done && done.error().code == ENOENT ? Result<>() : done;
  }
  unix_diag_req request{};
  request.sdiag_family = AF_UNIX;
  request.udiag_states = ~0U;
  return impl_->dump(SOCK_DIAG_BY_FAMILY, request, on_unix, protocol, out);
}

}  // namespace boxo::host
