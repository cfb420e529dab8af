// SPDX-License-Identifier: MIT OR Apache-2.0
// Memory of known size and kind, in the working directory.
//   anon N, shmem N, file N   touches N MiB more (anonymous, shared, of a file); map N: maps N MiB and does
//   not touch them
//   drop                      gives everything back
//   fork                      a child, READY once it has touched the same memory; it ends with this process
//   faults                    nothing
// Each but fork answers with the minor and major page faults of the process.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "commands.h"

enum { kMaps = 64, kPage = 4096 };

static struct {
  char* at;
  size_t size;
} maps[kMaps];
static int used_maps;

static char* map(size_t size, int flags, int fd) {
  char* at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (at == MAP_FAILED || used_maps == kMaps) die("mmap");
  // One fault a page, so that faults can be counted.
  madvise(at, size, MADV_NOHUGEPAGE);
  maps[used_maps].at = at;
  maps[used_maps++].size = size;
  return at;
}

static int new_file(size_t size) {
  char name[] = "memory.XXXXXX";
  const int fd = mkstemp(name);
  if (fd < 0 || ftruncate(fd, (off_t)size)) die("mkstemp");
  unlink(name);
  return fd;
}

static void touch(char* at, size_t size) {
  for (size_t i = 0; i < size; i += kPage) at[i] = 1;
}

static void child(void) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  for (int i = 0; i < used_maps; ++i) touch(maps[i].at, maps[i].size);
  answer("READY");
  for (;;) pause();
}

int main(void) {
  answer("READY");
  for (;;) {
    const struct command command = next_command();
    const size_t size = (size_t)command.a << 20;
    char* at = NULL;
    if (is(&command, "anon")) at = map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (is(&command, "shmem")) at = map(size, MAP_SHARED | MAP_ANONYMOUS, -1);
    if (is(&command, "file")) {
      const int fd = new_file(size);
      at = map(size, MAP_SHARED, fd);
      close(fd);
    }
    if (at) touch(at, size);
    if (is(&command, "fork")) {
      child();
      continue;
    }
    if (is(&command, "map")) map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (is(&command, "drop"))
      while (used_maps) {
        --used_maps;
        munmap(maps[used_maps].at, maps[used_maps].size);
      }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    answer("%ld %ld", used.ru_minflt, used.ru_majflt);
  }
}
