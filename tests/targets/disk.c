// SPDX-License-Identifier: MIT OR Apache-2.0
// Disk I/O of known size, on files in the working directory.
//   write N    N MiB past the page cache, 1 MiB a call      read N     the same, reading
//   sync N     N MiB in N calls, an fsync after each        cancel N   N MiB into the page cache, deleted before they are
//                                                                      written
//   lay N      N MiB, then an fsync                         dirty N    the same file again, but no fsync
//   append N   N times 512 bytes, an fsync after each       cached N   N MiB of that file through an empty page cache
//   again N    the same, but the cache stays as it is       mapped N   N MiB of it by touching its mapped pages, from an empty
//   ahead N    as cached, but the kernel may read ahead                page cache
//   through N  N times 512 bytes into a file opened with O_DSYNC
// Answers "done"; append with the nanoseconds in fsync, mapped with the major page faults.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "commands.h"

enum { kMiB = 1 << 20 };

static char* block;

static int open_file(const char* name, int flags) {
  const int fd = open(name, flags | O_CREAT, 0600);
  if (fd < 0) die(name);
  return fd;
}

static void write_blocks(int fd, long count, int sync) {
  for (long i = 0; i < count; ++i)
    if (write(fd, block, kMiB) != kMiB || (sync && fsync(fd))) die("write");
}

/// Past what lies in the page cache; with POSIX_FADV_RANDOM nothing is read ahead.
static void empty_cache(int fd, int advice) {
  if (fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) || posix_fadvise(fd, 0, 0, advice)) die("posix_fadvise");
}

static long nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000L + now.tv_nsec;
}

static long append(long count) {
  const int fd = open_file("appended", O_WRONLY | O_APPEND);
  long waited = 0;
  for (long i = 0; i < count; ++i) {
    if (write(fd, block, 512) != 512) die("write");
    const long before = nanoseconds();
    if (fsync(fd)) die("fsync");
    waited += nanoseconds() - before;
  }
  close(fd);
  return waited;
}

static long touch(long mebibytes) {
  const int fd = open_file("laid", O_RDWR);
  const size_t size = (size_t)mebibytes * kMiB;
  struct rusage before, after;
  empty_cache(fd, POSIX_FADV_RANDOM);
  volatile char* at = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED || madvise((void*)at, size, MADV_RANDOM)) die("mmap");
  getrusage(RUSAGE_SELF, &before);
  for (size_t i = 0; i < size; i += 4096) (void)at[i];
  getrusage(RUSAGE_SELF, &after);
  munmap((void*)at, size);
  close(fd);
  return after.ru_majflt - before.ru_majflt;
}

int main(void) {
  if (posix_memalign((void**)&block, 4096, kMiB)) die("posix_memalign");
  memset(block, 'x', kMiB);
  answer("READY");
  for (;;) {
    const struct command command = next_command();
    if (is(&command, "write")) {
      const int fd = open_file("direct", O_RDWR | O_DIRECT | O_TRUNC);
      write_blocks(fd, command.a, 0);
      close(fd);
    } else if (is(&command, "read")) {
      const int fd = open_file("direct", O_RDWR | O_DIRECT);
      for (long i = 0; i < command.a; ++i)
        if (read(fd, block, kMiB) != kMiB) die("read");
      close(fd);
    } else if (is(&command, "sync")) {
      const int fd = open_file("synced", O_RDWR | O_TRUNC);
      write_blocks(fd, command.a, 1);
      close(fd);
    } else if (is(&command, "cancel")) {
      const int fd = open_file("cancelled", O_RDWR | O_TRUNC);
      write_blocks(fd, command.a, 0);
      unlink("cancelled");
      close(fd);
    } else if (is(&command, "lay") || is(&command, "dirty")) {
      const int fd = open_file("laid", O_RDWR);
      write_blocks(fd, command.a, 0);
      if (is(&command, "lay") && fsync(fd)) die("fsync");
      close(fd);
    } else if (is(&command, "append")) {
      answer("%ld", append(command.a));
      continue;
    } else if (is(&command, "mapped")) {
      answer("%ld", touch(command.a));
      continue;
    } else if (is(&command, "through")) {
      const int fd = open_file("through", O_WRONLY | O_APPEND | O_DSYNC);
      for (long i = 0; i < command.a; ++i)
        if (write(fd, block, 512) != 512) die("write");
      close(fd);
    } else if (is(&command, "cached") || is(&command, "again") || is(&command, "ahead")) {
      const int fd = open_file("laid", O_RDWR);
      if (!is(&command, "again")) empty_cache(fd, is(&command, "cached") ? POSIX_FADV_RANDOM : POSIX_FADV_SEQUENTIAL);
      for (long i = 0; i < command.a; ++i)
        if (read(fd, block, kMiB) != kMiB) die("read");
      close(fd);
    }
    answer("done");
  }
}
