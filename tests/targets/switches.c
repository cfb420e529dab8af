// SPDX-License-Identifier: MIT OR Apache-2.0
// Switches context a known number of times.
//   switch N   sleeps N times (a voluntary switch each); answers with the kernel's own counts, voluntary and
//   involuntary.
//              Waiting for the next command is one voluntary switch more.
#include <sys/resource.h>
#include <time.h>

#include "commands.h"

int main(void) {
  answer("READY");
  for (;;) {
    const struct command command = next_command();
    const struct timespec moment = {.tv_nsec = 200000};
    for (long i = 0; is(&command, "switch") && i < command.a; ++i) nanosleep(&moment, NULL);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    answer("%ld %ld", used.ru_nvcsw, used.ru_nivcsw);
  }
}
