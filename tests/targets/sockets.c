// SPDX-License-Identifier: MIT OR Apache-2.0
// Sockets of known number on the loopback.
//   sockets [PAIRS [UDP [UNIX]]]   one listening TCP socket, PAIRS connections with both ends here, UDP
//   unconnected UDP
//                                  sockets, UNIX pairs of Unix sockets
//   move N      N bytes over each connection one way          back N    the other way
//   connect N   N connections to here that are not accepted   close     closes all connections
//   drop N      N datagrams to a socket that has no room for them; answers with how many did not arrive
//   lose MS     for so long the first connection loses everything on the way; answers with the segments it
//   sent again hurry N     N connections one after the other that live for one exchange of 1,000 bytes each
//   way
#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "commands.h"

enum { kMost = 16384, kDatagram = 1000, kExchange = 1000 };

static int clients[kMost], servers[kMost], pairs, listener;
static struct sockaddr_in address;
static socklen_t length = sizeof address;

static int dial(void) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr*)&address, length)) die("connect");
  return fd;
}

static void move(int from, int to, long bytes) {
  char chunk[4096];
  memset(chunk, 'x', sizeof chunk);
  while (bytes > 0) {
    const size_t size = bytes < (long)sizeof chunk ? (size_t)bytes : sizeof chunk;
    if (send(from, chunk, size, 0) != (ssize_t)size || recv(to, chunk, size, MSG_WAITALL) != (ssize_t)size)
      die("move");
    bytes -= (long)size;
  }
}

static long drop(long count) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  static int receiver = -1;
  static int sender = -1;
  if (receiver < 0) {
    const int least = 1;
    receiver = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    sender = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(receiver, SOL_SOCKET, SO_RCVBUF, &least, sizeof least);
    if (bind(receiver, (struct sockaddr*)&to, length)) die("bind");
  }
  socklen_t size = sizeof to;
  getsockname(receiver, (struct sockaddr*)&to, &size);
  char datagram[kDatagram] = "";
  for (long i = 0; i < count; ++i)
    if (sendto(sender, datagram, sizeof datagram, 0, (struct sockaddr*)&to, size) < 0) die("sendto");
  long arrived = 0;
  while (recv(receiver, datagram, sizeof datagram, 0) > 0) ++arrived;
  return count - arrived;
}

static long lose(long ms) {
  struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
  const struct sock_fprog filter = {.len = 1, .filter = &nothing};
  if (setsockopt(servers[0], SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter)) die("SO_ATTACH_FILTER");
  if (send(clients[0], "x", 1, 0) != 1) die("send");
  usleep((useconds_t)ms * 1000);
  if (setsockopt(servers[0], SOL_SOCKET, SO_DETACH_FILTER, &filter, sizeof filter)) die("SO_DETACH_FILTER");
  char byte;
  if (recv(servers[0], &byte, 1, 0) != 1) die("recv");
  struct tcp_info info;
  socklen_t size = sizeof info;
  if (getsockopt(clients[0], IPPROTO_TCP, TCP_INFO, &info, &size)) die("TCP_INFO");
  return info.tcpi_total_retrans;
}

int main(int argc, char** argv) {
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr*)&address, length) || listen(listener, 4096))
    die("listen");
  getsockname(listener, (struct sockaddr*)&address, &length);
  for (long i = number(argc, argv, 1, 0); i > 0 && pairs < kMost; --i, ++pairs) {
    clients[pairs] = dial();
    servers[pairs] = accept(listener, NULL, NULL);
    if (servers[pairs] < 0) die("accept");
  }
  for (long i = number(argc, argv, 2, 0); i > 0; --i)
    if (bind(socket(AF_INET, SOCK_DGRAM, 0), (struct sockaddr*)&(struct sockaddr_in){.sin_family = AF_INET},
             length))
      die("bind");
  for (long i = number(argc, argv, 3, 0); i > 0; --i) {
    int both[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, both)) die("socketpair");
  }
  answer("READY %d", ntohs(address.sin_port));
  for (;;) {
    const struct command command = next_command();
    long result = 0;
    for (int i = 0; i < pairs; ++i) {
      if (is(&command, "move")) move(clients[i], servers[i], command.a);
      if (is(&command, "back")) move(servers[i], clients[i], command.a);
      if (is(&command, "close") && (close(clients[i]) || close(servers[i]))) die("close");
    }
    if (is(&command, "close")) pairs = 0;
    for (long i = 0; is(&command, "connect") && i < command.a; ++i) dial();
    if (is(&command, "lose")) result = lose(command.a);
    if (is(&command, "drop")) result = drop(command.a);
    for (long i = 0; is(&command, "hurry") && i < command.a; ++i) {
      const int client = dial();
      const int server = accept(listener, NULL, NULL);
      move(client, server, kExchange);
      move(server, client, kExchange);
      close(client);
      close(server);
    }
    answer("%ld", result);
  }
}
