// SPDX-License-Identifier: MIT OR Apache-2.0
// Sockets that do on command what the network probes count. Each command answers with one number:
//   udp ADDRESS PORT               makes a UDP socket and binds it; its port
//   send ADDRESS PORT SIZE COUNT   COUNT datagrams of SIZE bytes from that socket; the bytes sent
//   gso ADDRESS PORT SIZE COUNT    the same in one call that the kernel cuts (UDP_SEGMENT)
//   quic ADDRESS PORT SIZE VERSION a datagram with a long header of that QUIC version (hexadecimal)
//   first ADDRESS PORT SIZE BYTE   a datagram whose first byte is BYTE (hexadecimal), the others zeros
//   gro                            lets the kernel hand over several datagrams as one (UDP_GRO)
//   deaf                           a socket filter that takes nothing in
//   receive COUNT                  waits for COUNT datagrams (recvmmsg); the bytes received
//   shut                           closes the UDP socket
//   listen ADDRESS PORT            listens for TCP with SO_REUSEPORT; the port
//   multipath ADDRESS PORT         the same with a multipath socket (MPTCP), as Go does
//   accept                         accepts what is waiting; how many connections it has
//   connect ADDRESS PORT           begins to connect and does not wait; 0 or the errno
//   connect ADDRESS PORT multipath the same with a multipath socket
//   connected                      waits until it is; 0 or the errno
//   hangup                         closes the one that it began to connect
//   write SIZE                     SIZE bytes over every connection; the bytes sent
//   read SIZE                      SIZE bytes from every connection
//   close                          closes every connection; how many
//   reset                          closes every connection with a reset; how many
#include <arpa/inet.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "commands.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { kMost = 1024, kBatch = 16, kLargest = 65536 };

static int datagrams = -1, listener = -1, dialled = -1;
static int connections[kMost];
static long connected;
static char bytes[kLargest];

static struct addrinfo* resolve(const char* address, const char* port, int type) {
  const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = type};
  struct addrinfo* found = NULL;
  if (getaddrinfo(address, port, &hints, &found)) die("getaddrinfo");
  return found;
}

static int bound(const char* address, const char* port, int type, int protocol) {
  const int on = 1;
  struct addrinfo* at = resolve(address, port, type);
  const int fd = socket(at->ai_family, type | SOCK_CLOEXEC, protocol);
  if (type == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  const int room = 1 << 22;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  const struct timeval patience = {60, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (fd < 0 || bind(fd, at->ai_addr, at->ai_addrlen)) die("bind");
  freeaddrinfo(at);
  return fd;
}

static long port_of(int fd) {
  struct sockaddr_in6 address; // both families have the port in the same place
  socklen_t length = sizeof address;
  if (getsockname(fd, (struct sockaddr*)&address, &length)) die("getsockname");
  return ntohs(address.sin6_port);
}

static long send_one(const struct addrinfo* to, size_t size, uint16_t segment) {
  struct iovec part = {bytes, size};
  char control[CMSG_SPACE(sizeof segment)] = "";
  struct msghdr message = {.msg_name = to->ai_addr, .msg_namelen = to->ai_addrlen, .msg_iov = &part, .msg_iovlen = 1};
  if (segment) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr* head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof segment), .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT};
    memcpy(CMSG_DATA(head), &segment, sizeof segment);
  }
  const ssize_t sent = sendmsg(datagrams, &message, 0);
  if (sent != (ssize_t)size) die("sendmsg");
  return sent;
}

static long receive(long count) {
  static char room[kBatch][kLargest];
  static char controls[kBatch][CMSG_SPACE(sizeof(int))];
  long total = 0;
  while (count > 0) {
    struct mmsghdr messages[kBatch] = {0};
    struct iovec parts[kBatch];
    for (int i = 0; i < kBatch; ++i) {
      parts[i] = (struct iovec){room[i], kLargest};
      messages[i].msg_hdr = (struct msghdr){
          .msg_iov = &parts[i], .msg_iovlen = 1, .msg_control = controls[i], .msg_controllen = sizeof controls[i]};
    }
    const int got = recvmmsg(datagrams, messages, kBatch, MSG_WAITFORONE, NULL);
    if (got < 0) die("recvmmsg");
    for (int i = 0; i < got; ++i) {
      int segment = 0;
      for (struct cmsghdr* c = CMSG_FIRSTHDR(&messages[i].msg_hdr); c; c = CMSG_NXTHDR(&messages[i].msg_hdr, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) memcpy(&segment, CMSG_DATA(c), sizeof segment);
      const long size = messages[i].msg_len;
      total += size;
      count -= segment ? (size + segment - 1) / segment : 1;
    }
  }
  return total;
}

static long accept_all(void) {
  struct pollfd wait = {.fd = listener, .events = POLLIN};
  while (poll(&wait, 1, 0) > 0 && connected < kMost) connections[connected++] = accept(listener, NULL, NULL);
  return connected;
}

static long dial(const char* address, const char* port, int protocol) {
  struct addrinfo* to = resolve(address, port, SOCK_STREAM);
  dialled = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK, protocol);
  const int error = connect(dialled, to->ai_addr, to->ai_addrlen) && errno != EINPROGRESS ? errno : 0;
  if (error) close(dialled);
  freeaddrinfo(to);
  return error;
}

static long wait_for_dialled(void) {
  struct pollfd wait = {.fd = dialled, .events = POLLOUT};
  int error = 0;
  socklen_t length = sizeof error;
  if (poll(&wait, 1, -1) != 1 || getsockopt(dialled, SOL_SOCKET, SO_ERROR, &error, &length)) die("poll");
  connections[connected++] = dialled;
  return error;
}

static long over_all(const char* verb, long size) {
  const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  long total = 0;
  for (long i = 0; i < connected; ++i) {
    if (!strcmp(verb, "reset") || !strcmp(verb, "close")) {
      if (!strcmp(verb, "reset")) setsockopt(connections[i], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
      close(connections[i]);
      ++total;
      continue;
    }
    for (long done = 0; done < size;) {
      const size_t part = size - done < kLargest ? (size_t)(size - done) : kLargest;
      const ssize_t n = !strcmp(verb, "write") ? write(connections[i], bytes, part) : read(connections[i], bytes, part);
      if (n <= 0) die(verb);
      done += n;
      total += n;
    }
  }
  if (!strcmp(verb, "reset") || !strcmp(verb, "close")) connected = 0;
  return total;
}

static long run(const char* verb, const char* address, const char* port, const char* size, const char* extra) {
  const size_t length = (size_t)atol(size);
  memset(bytes, 0, sizeof bytes);
  if (!strcmp(verb, "udp")) return port_of(datagrams = bound(address, port, SOCK_DGRAM, 0));
  if (!strcmp(verb, "shut")) return close(datagrams);
  if (!strcmp(verb, "gro")) {
    const int on = 1;
    return setsockopt(datagrams, SOL_UDP, UDP_GRO, &on, sizeof on);
  }
  if (!strcmp(verb, "deaf")) {
    struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
    const struct sock_fprog filter = {.len = 1, .filter = &nothing};
    return setsockopt(datagrams, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
  }
  if (!strcmp(verb, "receive")) return receive(atol(address));
  if (!strcmp(verb, "listen") || !strcmp(verb, "multipath")) {
    listener = bound(address, port, SOCK_STREAM, !strcmp(verb, "listen") ? 0 : IPPROTO_MPTCP);
    if (listen(listener, kMost)) die("listen");
    return port_of(listener);
  }
  if (!strcmp(verb, "accept")) return accept_all();
  if (!strcmp(verb, "connect")) return dial(address, port, strcmp(size, "multipath") ? 0 : IPPROTO_MPTCP);
  if (!strcmp(verb, "connected")) return wait_for_dialled();
  if (!strcmp(verb, "hangup")) return close(dialled);
  if (!strcmp(verb, "write") || !strcmp(verb, "read") || !strcmp(verb, "close") || !strcmp(verb, "reset"))
    return over_all(verb, atol(address));

  struct addrinfo* to = resolve(address, port, SOCK_DGRAM);
  long sent = 0;
  if (!strcmp(verb, "gso")) {
    sent = send_one(to, length * (size_t)atol(extra), (uint16_t)length);
  } else if (!strcmp(verb, "quic")) {
    const uint32_t version = htonl((uint32_t)strtoul(extra, NULL, 16));
    bytes[0] = (char)0xc3;
    memcpy(bytes + 1, &version, sizeof version);
    sent = send_one(to, length, 0);
  } else if (!strcmp(verb, "first")) {
    bytes[0] = (char)strtoul(extra, NULL, 16);
    sent = send_one(to, length, 0);
  } else if (!strcmp(verb, "send")) {
    for (long i = atol(extra); i > 0; --i) sent += send_one(to, length, 0);
  } else {
    die("no such command");
  }
  freeaddrinfo(to);
  return sent;
}

int main(void) {
  char line[256];
  answer("READY");
  while (fgets(line, sizeof line, stdin)) {
    char verb[32] = "", address[64] = "", port[16] = "", size[16] = "", extra[16] = "";
    if (sscanf(line, "%31s %63s %15s %15s %15s", verb, address, port, size, extra) >= 1)
      answer("%ld", run(verb, address, port, size, extra));
  }
}
