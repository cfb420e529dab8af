// SPDX-License-Identifier: MIT OR Apache-2.0
// Threads in known states.
//   threads SLEEPING [RUNNING [DISK_SLEEP [STOPPED [ZOMBIE]]]]
// The main thread sleeps as well. A thread in disk sleep is one that waits for the child of a vfork, which
// adds a sleeping process; stopped and zombie ones are processes of their own.
//   start N    N more sleeping threads      end N    ends N of them
// Each answers with the context switches of all threads that ever were, voluntary and involuntary.
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "commands.h"

static sem_t started, wanted_end;
static pthread_attr_t small;

static void* sleeper(void* unused) {
  sem_post(&started);
  while (sem_wait(&wanted_end) && errno == EINTR) {
  }
  return unused;
}

static void* runner(void* unused) {
  sem_post(&started);
  for (;;) clock();
  return unused;
}

static void* waits_for_vfork(void* unused) {
  sem_post(&started);
  if (vfork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  return unused;
}

static void start(long count, void* (*work)(void*)) {
  for (long i = 0; i < count; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, &small, work, NULL)) die("pthread_create");
    pthread_detach(thread);
    sem_wait(&started);
  }
}

static void start_processes(long stopped, long zombies) {
  for (long i = 0; i < stopped + zombies; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (i < stopped) raise(SIGSTOP);
      _exit(0);
    }
    siginfo_t info;
    if (waitid(P_PID, (id_t)child, &info, WEXITED | WSTOPPED | WNOWAIT)) die("waitid");
  }
}

int main(int argc, char** argv) {
  sem_init(&started, 0, 0);
  sem_init(&wanted_end, 0, 0);
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  start_processes(number(argc, argv, 4, 0), number(argc, argv, 5, 0));
  start(number(argc, argv, 1, 0), sleeper);
  start(number(argc, argv, 2, 0), runner);
  start(number(argc, argv, 3, 0), waits_for_vfork);
  const struct timespec moment = {.tv_nsec = 100000000};
  nanosleep(&moment, NULL);
  answer("READY");
  for (;;) {
    const struct command command = next_command();
    if (is(&command, "start")) start(command.a, sleeper);
    for (long i = 0; is(&command, "end") && i < command.a; ++i) sem_post(&wanted_end);
    nanosleep(&moment, NULL);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    answer("%ld %ld", used.ru_nvcsw, used.ru_nivcsw);
  }
}
