// SPDX-License-Identifier: MIT OR Apache-2.0
// Does on command what the kernel's probes count: "sleep N", "yield N", "fsync N", "read N" (O_DIRECT), "threads N",
// "connect N PORT", "child sleep N" (the same in a child process that then ends). Answers "DONE blocked=B preempted=P"
// with how often the process that worked gave up its CPU to wait and was taken from it meanwhile, as the scheduler says.
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char* file;

static void* nothing(void* argument) { return argument; }

static int work(const char* what, int n, int port) {
  static char page[4096] __attribute__((aligned(4096)));
  int fd = -1;
  if (!strcmp(what, "fsync") || !strcmp(what, "read")) fd = open(file, O_RDWR | O_CREAT, 0600);
  if (!strcmp(what, "read")) {
    for (int i = 0; i < n; ++i)
      if (pwrite(fd, page, sizeof page, (off_t)i * 4096) != sizeof page) return 1;
    fsync(fd);
    close(fd);
    if ((fd = open(file, O_RDONLY | O_DIRECT)) < 0) return 2;
  }
  for (int i = 0; i < n; ++i) {
    if (!strcmp(what, "sleep")) {
      const struct timespec pause = {0, 5000000};
      nanosleep(&pause, NULL);
    } else if (!strcmp(what, "yield")) {
      sched_yield();
    } else if (!strcmp(what, "fsync")) {
      if (pwrite(fd, page, sizeof page, 0) != sizeof page || fsync(fd)) return 1;
    } else if (!strcmp(what, "read")) {
      if (pread(fd, page, sizeof page, (off_t)i * 4096) != sizeof page) return 1;
    } else if (!strcmp(what, "threads")) {
      pthread_t thread;
      if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL)) return 1;
    } else if (!strcmp(what, "connect")) {
      struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      const int s = socket(AF_INET, SOCK_STREAM, 0);
      connect(s, (struct sockaddr*)&to, sizeof to);
      close(s);
    } else {
      return 3;
    }
  }
  if (fd >= 0) close(fd);
  return 0;
}

static int run(const char* what, int n, int port) {
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  const int result = work(what, n, port);
  getrusage(RUSAGE_SELF, &after);
  printf("DONE blocked=%ld preempted=%ld result=%d\n", after.ru_nvcsw - before.ru_nvcsw,
         after.ru_nivcsw - before.ru_nivcsw, result);
  fflush(stdout);
  return result;
}

int main(int argc, char** argv) {
  file = argc > 1 ? argv[1] : "/var/tmp/boxo-kernel-work";
  char line[128], what[32];
  printf("READY pid=%d\n", getpid());
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    int n = 0, port = 0;
    if (sscanf(line, "child %31s %d %d", what, &n, &port) >= 2) {
      const pid_t child = fork();
      if (child == 0) _exit(run(what, n, port));
      waitpid(child, NULL, 0);
    } else if (sscanf(line, "%31s %d %d", what, &n, &port) >= 2) {
      run(what, n, port);
    }
  }
  unlink(file);
}
