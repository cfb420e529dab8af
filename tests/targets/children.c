// SPDX-License-Identifier: MIT OR Apache-2.0
// CPU time of known amount, here and in children.
//   burn MS          here
//   reap MS [N]      in N children (1 if not given), one after the other, each waited for
//   forget MS        in a child that nobody waits for (its end is ignored), which lives for a second longer
//   start N          N children that sleep until the program ends; answers with the pids instead
// Each answers with user and system time in microseconds, own and children's, and minor faults, own and
// children's.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "commands.h"

static long used_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void burn(long ms) {
  const long end = used_ms() + ms;
  while (used_ms() < end) {
  }
}

static void tell(void) {
  struct rusage own, children;
  getrusage(RUSAGE_SELF, &own);
  getrusage(RUSAGE_CHILDREN, &children);
  answer("%ld %ld %ld %ld %ld %ld", own.ru_utime.tv_sec * 1000000 + own.ru_utime.tv_usec,
         own.ru_stime.tv_sec * 1000000 + own.ru_stime.tv_usec,
         children.ru_utime.tv_sec * 1000000 + children.ru_utime.tv_usec,
         children.ru_stime.tv_sec * 1000000 + children.ru_stime.tv_usec, own.ru_minflt, children.ru_minflt);
}

static pid_t start(long ms, unsigned seconds) {
  const pid_t child = fork();
  if (child < 0) die("fork");
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  burn(ms);
  sleep(seconds);
  _exit(0);
}

int main(void) {
  answer("READY");
  for (;;) {
    const struct command command = next_command();
    if (is(&command, "burn")) burn(command.a);
    for (long i = 0; is(&command, "reap") && i < (command.b ? command.b : 1); ++i)
      if (waitpid(start(command.a, 0), NULL, 0) < 0) die("waitpid");
    if (is(&command, "forget")) {
      signal(SIGCHLD, SIG_IGN);
      start(command.a, 1);
    }
    if (is(&command, "start")) {
      for (long i = 0; i < command.a; ++i) printf("%d ", start(0, 1000));
      answer("");
      continue;
    }
    tell();
  }
}
