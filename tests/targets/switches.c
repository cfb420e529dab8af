// SPDX-License-Identifier: MIT OR Apache-2.0
// Switches context a known number of times.
//   switch N   sleeps N times (a voluntary switch each); answers with the kernel's own counts, voluntary and
//   involuntary.
//              Waiting for the next command is one voluntary switch more.
//   thread N   the same in a second thread, which goes on to wait
//   exec       lets that thread become this program, which says READY again
#include <pthread.h>
#include <semaphore.h>
#include <sys/resource.h>
#include <time.h>

#include "commands.h"

static sem_t napped, wanted_exec;

static void nap(long count) {
  const struct timespec moment = {.tv_nsec = 200000};
  for (long i = 0; i < count; ++i) nanosleep(&moment, NULL);
}

static void* second(void* count) {
  nap((long)count);
  sem_post(&napped);
  while (sem_wait(&wanted_exec)) {
  }
  execl("/proc/self/exe", "switches", NULL);
  die("exec");
  return NULL;
}

int main(void) {
  sem_init(&napped, 0, 0);
  sem_init(&wanted_exec, 0, 0);
  answer("READY");
  for (;;) {
    const struct command command = next_command();
    if (is(&command, "switch")) nap(command.a);
    if (is(&command, "thread")) {
      pthread_t thread;
      if (pthread_create(&thread, NULL, second, (void*)command.a)) die("pthread_create");
      while (sem_wait(&napped)) {
      }
    }
    if (is(&command, "exec")) {
      sem_post(&wanted_exec);
      for (;;) pause();
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    answer("%ld %ld", used.ru_nvcsw, used.ru_nivcsw);
  }
}
