// SPDX-License-Identifier: MIT OR Apache-2.0
// Switches context a known number of times.
//   switch N   sleeps N times (a voluntary switch each); answers with the kernel's own counts, voluntary and
//   involuntary.
//              Waiting for the next command is one voluntary switch more.
//   thread N   the same in a second thread, which goes on to wait
//   exec       lets that thread become this program, which says READY again
//   threads N W   N threads, one after the other, that sleep W times each and end
//   children N W  N children, the same; each is waited for
//   ignored N W   N children at once, whose end is ignored
// Each of these three answers with the kernel's counts of the program and of the children that were waited for, and what
// the ignored ones said of themselves: voluntary and involuntary.
//   busy N MS     N threads at once that use MS of CPU time each, and end; answers with what they say of themselves then:
//                 how long they have waited for a CPU, in ns
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
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

static void* brief(void* count) {
  nap((long)count);
  return NULL;
}

static void thread_by_thread(long number, long count) {
  for (long i = 0; i < number; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, brief, (void*)count)) die("pthread_create");
    pthread_join(thread, NULL);
  }
}

/// In children; each tells of itself at its end, if there is a pipe.
static void child_by_child(long number, long count, const int* report) {
  for (long i = 0; i < number; ++i) {
    const pid_t child = fork();
    if (child < 0) die("fork");
    if (child > 0 && report) continue;
    if (child > 0) {
      if (waitpid(child, NULL, 0) < 0) die("waitpid");
      continue;
    }
    nap(count);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    const long counts[2] = {used.ru_nvcsw, used.ru_nivcsw};
    if (report && write(report[1], counts, sizeof counts) != sizeof counts) _exit(1);
    _exit(0);
  }
}

static void ignored(long number, long count, long* sum) {
  int report[2];
  long counts[2];
  if (pipe(report)) die("pipe");
  signal(SIGCHLD, SIG_IGN);
  child_by_child(number, count, report);
  for (long i = 0; i < number; ++i) {
    if (read(report[0], counts, sizeof counts) != sizeof counts) die("read");
    sum[0] += counts[0];
    sum[1] += counts[1];
  }
  while (wait(NULL) > 0 || errno == EINTR) {
  }
  signal(SIGCHLD, SIG_DFL);
  close(report[0]), close(report[1]);
}

static long busy_ms;

static void* busy(void* waited) {
  struct timespec now;
  do clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  while (now.tv_sec * 1000 + now.tv_nsec / 1000000 < busy_ms);
  FILE* const file = fopen("/proc/thread-self/schedstat", "r");
  if (!file || fscanf(file, "%*s %ld", (long*)waited) != 1) die("schedstat");
  fclose(file);
  return NULL;
}

static long busy_all(long number, long ms) {
  pthread_t threads[64];
  long waited[64], sum = 0;
  busy_ms = ms;
  if (number > 64) exit(1);
  for (long i = 0; i < number; ++i)
    if (pthread_create(&threads[i], NULL, busy, &waited[i])) die("pthread_create");
  for (long i = 0; i < number; ++i) {
    pthread_join(threads[i], NULL);
    sum += waited[i];
  }
  return sum;
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
    if (is(&command, "busy")) {
      answer("%ld", busy_all(command.a, command.b));
      continue;
    }
    static long ended[2];
    struct rusage used;
    if (is(&command, "threads")) thread_by_thread(command.a, command.b);
    if (is(&command, "children")) child_by_child(command.a, command.b, NULL);
    if (is(&command, "ignored")) ignored(command.a, command.b, ended);
    long voluntary = ended[0], involuntary = ended[1];
    for (int whose = RUSAGE_CHILDREN; whose <= RUSAGE_SELF; ++whose) {
      getrusage(whose, &used);
      voluntary += used.ru_nvcsw;
      involuntary += used.ru_nivcsw;
    }
    answer("%ld %ld", voluntary, involuntary);
  }
}
