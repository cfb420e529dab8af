// SPDX-License-Identifier: MIT OR Apache-2.0
// A process whose main thread has ended, by pthread_exit, while others go on.
//   headless MIB DESCRIPTORS [CHILD]
// One thread keeps MIB of memory and that many open descriptors beside the usual three, of which one is a UDP socket
// that is bound. With CHILD not 0 it is a child of a process that waits.
//   end    ends that thread once another has begun, which goes on; the answer is its thread id
#include <netinet/in.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "commands.h"

static long mib, descriptors;
static pthread_t first;

static void keep(void) {
  const size_t size = (size_t)mib << 20;
  memset(malloc(size), 1, size);
  const int udp = socket(AF_INET, SOCK_DGRAM, 0);
  const struct sockaddr_in any = {.sin_family = AF_INET};
  if (udp < 0 || bind(udp, (const struct sockaddr*)&any, sizeof any)) die("udp");
  for (long i = 1; i < descriptors; ++i)
    if (dup(0) < 0) die("dup");
}

static void* serve(void* known) {
  pthread_join(*(pthread_t*)known, NULL);
  answer("%s%ld", known == &first ? "READY " : "", (long)syscall(SYS_gettid));
  for (;;) {
    const struct command command = next_command();
    if (!is(&command, "end")) continue;
    static pthread_t self;
    pthread_t next;
    self = pthread_self();
    if (pthread_create(&next, NULL, serve, &self)) die("pthread_create");
    pthread_exit(NULL);
  }
}

int main(int argc, char** argv) {
  mib = number(argc, argv, 1, 0);
  descriptors = number(argc, argv, 2, 1);
  if (number(argc, argv, 3, 0)) {
    const pid_t child = fork();
    if (child != 0) {
      waitpid(child, NULL, 0);
      return 0;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  keep();
  first = pthread_self();
  pthread_t thread;
  if (pthread_create(&thread, NULL, serve, &first)) die("pthread_create");
  pthread_exit(NULL);
}
