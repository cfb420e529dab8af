// SPDX-License-Identifier: MIT OR Apache-2.0
// Threads that wait for ever, each for what is known: 1 for a futex, 2 in poll, 3 to read a pipe (and the main thread for
// its standard input), 4 to receive from a socket, 5 asleep, 6 for the child of a vfork. The children of vfork wait for a
// signal. "READY" when all are on their way.
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "commands.h"

static sem_t started, never;

static void* in_futex(void* unused) {
  sem_post(&started);
  while (sem_wait(&never)) {
  }
  return unused;
}

static void* in_poll(void* unused) {
  sem_post(&started);
  for (;;) poll(NULL, 0, -1);
  return unused;
}

static void* in_pipe(void* unused) {
  int ends[2];
  char byte;
  if (pipe(ends)) die("pipe");
  sem_post(&started);
  (void)!read(ends[0], &byte, 1);
  return unused;
}

static void* in_socket(void* unused) {
  int ends[2];
  char byte;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) die("socketpair");
  sem_post(&started);
  (void)!recv(ends[0], &byte, 1, 0);
  return unused;
}

static void* in_sleep(void* unused) {
  sem_post(&started);
  for (;;) sleep(1000000);
  return unused;
}

static void* in_kernel(void* unused) {
  sem_post(&started);
  if (vfork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  return unused;
}

int main(void) {
  void* (*const work[])(void*) = {in_futex, in_poll, in_pipe, in_socket, in_sleep, in_kernel};
  sem_init(&started, 0, 0);
  sem_init(&never, 0, 0);
  for (unsigned i = 0; i < sizeof work / sizeof work[0]; ++i)
    for (unsigned n = 0; n <= i; ++n) {
      pthread_t thread;
      if (pthread_create(&thread, NULL, work[i], NULL)) die("pthread_create");
      sem_wait(&started);
    }
  answer("READY");
  for (;;) next_command();
}
