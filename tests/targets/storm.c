// SPDX-License-Identifier: MIT OR Apache-2.0
// Many children, one after the other, each over before anybody could look at it.
//   signals N K    N children that send themselves SIGUSR1 K times
//   threads N K    N children with K sleeping threads, which end with the child
// Each answers "DONE" once all are gone.
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "commands.h"

static void ignore(int signal) { (void)signal; }

static void* sleeper(void* unused) {
  for (;;) pause();
  return unused;
}

static void signals(long count) {
  for (long i = 0; i < count; ++i) raise(SIGUSR1);
}

static void threads(long count) {
  pthread_t thread;
  for (long i = 0; i < count; ++i)
    if (pthread_create(&thread, NULL, sleeper, NULL)) _exit(1);
}

int main(void) {
  signal(SIGUSR1, ignore);
  answer("READY");
  for (;;) {
    const struct command command = next_command();
    for (long i = 0; i < command.a; ++i) {
      const pid_t child = fork();
      if (child < 0) die("fork");
      if (child == 0) {
        if (is(&command, "signals")) signals(command.b);
        if (is(&command, "threads")) threads(command.b);
        _exit(0);
      }
      int status;
      if (waitpid(child, &status, 0) < 0 || status != 0) die("waitpid");
    }
    answer("DONE");
  }
}
