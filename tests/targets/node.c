// SPDX-License-Identifier: MIT OR Apache-2.0
// Stands for an IPFS node in a pod: under the name that the program file has, with known numbers.
//   node version            a short-lived call of the node's command line
//   node daemon DATA SOCK   the node: DATA is a directory to write to, SOCK the agent's event socket
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { kThreads = 5, kPairs = 4, kFiles = 20, kMemory = 32 << 20, kBlock = 1 << 20, kBlocks = 8 };

static void die(const char* what) {
  perror(what);
  exit(1);
}

static void* sleeper(void* unused) {
  for (;;) pause();
  return unused;
}

static void open_sockets(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (listener < 0 || bind(listener, (struct sockaddr*)&address, length) || listen(listener, kPairs)) die("listen");
  getsockname(listener, (struct sockaddr*)&address, &length);
  for (int i = 0; i < kPairs; ++i) {
    int out = socket(AF_INET, SOCK_STREAM, 0);
    if (out < 0 || connect(out, (struct sockaddr*)&address, length) || accept(listener, NULL, NULL) < 0) die("connect");
  }
}

static void write_blocks(const char* directory) {
  char path[4096];
  snprintf(path, sizeof path, "%s/blocks", directory);
  int file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
  char* block = malloc(kBlock);
  if (file < 0 || !block) die(path);
  memset(block, 'b', kBlock);
  for (int i = 0; i < kBlocks; ++i)
    if (write(file, block, kBlock) != kBlock || fsync(file)) die("write");
  free(block);
  close(file);
}

static void burn(double seconds) {
  struct timespec now;
  do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  while ((double)now.tv_sec + (double)now.tv_nsec / 1e9 < seconds);
}

static const char* send_event(const char* path, const char* line) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  int sender = socket(AF_UNIX, SOCK_DGRAM, 0);
  ssize_t sent = sendto(sender, line, strlen(line), 0, (struct sockaddr*)&address, sizeof address);
  int error = errno;
  close(sender);
  return sent < 0 ? strerror(error) : "sent";
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "version") == 0) return usleep(700000) < 0;
  if (argc != 4) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  pthread_t thread;
  for (int i = 1; i < kThreads; ++i)
    if (pthread_create(&thread, NULL, sleeper, NULL)) die("pthread_create");
  for (int i = 0; i < kFiles; ++i)
    if (open("/dev/null", O_RDONLY) < 0) die("/dev/null");
  open_sockets();
  char* memory = mmap(NULL, kMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  memset(memory, 'm', kMemory);
  write_blocks(argv[2]);
  burn(0.5);
  printf("READY threads=%d tcp=%d memory=%d written=%d\n", kThreads, 2 * kPairs, kMemory, kBlock * kBlocks);
  // Commands: "write" writes the blocks again; "send LINE" answers "sent" or why not; "unlink" tries to remove the event socket.
  char line[4096];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (strncmp(line, "send ", 5) == 0) puts(send_event(argv[3], line + 5));
    else if (strcmp(line, "write") == 0) write_blocks(argv[2]), puts("written");
    else if (strcmp(line, "unlink") == 0) puts(unlink(argv[3]) ? strerror(errno) : "removed");
    else puts("?");
  }
  return 0;
}
