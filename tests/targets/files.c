// SPDX-License-Identifier: MIT OR Apache-2.0
// A known number of open descriptors.
//   open N, close N   N more, N less       limit N   how many there may be
// Each answers with how many were opened.
#include <fcntl.h>
#include <sys/resource.h>

#include "commands.h"

enum { kMost = 65536 };

static int opened[kMost];
static int count;

int main(void) {
  answer("READY");
  for (;;) {
    const struct command command = next_command();
    if (is(&command, "limit")) {
      const struct rlimit limit = {(rlim_t)command.a, (rlim_t)command.a};
      if (setrlimit(RLIMIT_NOFILE, &limit)) die("setrlimit");
    }
    for (long i = 0; is(&command, "open") && i < command.a && count < kMost; ++i) {
      opened[count] = open("/dev/null", O_RDONLY | O_CLOEXEC);
      if (opened[count] < 0) die("open");
      ++count;
    }
    for (long i = 0; is(&command, "close") && i < command.a && count > 0; ++i) close(opened[--count]);
    answer("%d", count);
  }
}
