// SPDX-License-Identifier: MIT OR Apache-2.0
// Does on command what the kernel's probes count: "sleep N", "yield N", "fsync N", "read N" (O_DIRECT),
// "threads N", "connect N PORT", "child sleep N" (the same in a child process that then ends), and, MS
// milliseconds each time, "compute N MS" (of CPU time, and then a short sleep), "futex N MS", "poll N MS",
// "socket N MS", "wait N MS" (for a child), "uring N MS". Answers "DONE blocked=B preempted=P result=R
// away=NS": how often the process that worked gave up its CPU to wait and was taken from it meanwhile, as the
// scheduler says, and for how long it neither ran nor waited for a CPU.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char* file;

static void* nothing(void* argument) { return argument; }

static struct timespec length_of(int ms) {
  return (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
}

static long long clock_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/// Wall clock without what this thread has run or waited for a CPU, in ns.
static long long away(void) {
  long long waited = 0;
  FILE* const stat = fopen("/proc/thread-self/schedstat", "r");
  if (!stat || fscanf(stat, "%*s %lld", &waited) != 1) exit(1);
  fclose(stat);
  return clock_ns(CLOCK_MONOTONIC) - clock_ns(CLOCK_THREAD_CPUTIME_ID) - waited;
}

static void compute(int ms) {
  const long long end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + ms * 1000000LL;
  while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end) {
  }
  nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
}

static int in_futex(int ms) {
  static unsigned word;
  const struct timespec length = length_of(ms);
  return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &length, NULL, 0) != -1;
}

static int in_socket(int ms) {
  const struct timeval length = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
  int ends[2];
  char byte;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) return 1;
  if (setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &length, sizeof length)) return 1;
  const int nothing_came = recv(ends[0], &byte, 1, 0) < 0;
  close(ends[0]), close(ends[1]);
  return !nothing_came;
}

static char state_of(pid_t pid) {
  char path[32], state = 0;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE* const stat = fopen(path, "r");
  if (!stat || fscanf(stat, "%*d (%*[^)]) %c", &state) != 1) _exit(1);
  fclose(stat);
  return state;
}

/// The child begins to count when its parent waits.
static int in_wait(int ms) {
  const pid_t parent = getpid(), child = fork();
  int status = 1;
  if (child == 0) {
    const struct timespec length = length_of(ms);
    while (state_of(parent) != 'S') sched_yield();
    nanosleep(&length, NULL);
    _exit(0);
  }
  return waitpid(child, &status, 0) != child || status;
}

/// A request that is done after that time, and the wait for it.
static int in_uring(int ms) {
  static int ring = -1;
  static struct io_uring_params p;
  static struct io_uring_sqe* requests;
  static char *submitted, *completed;
  const struct timespec length = length_of(ms);
  const struct __kernel_timespec as_asked = {.tv_sec = length.tv_sec, .tv_nsec = length.tv_nsec};
  if (ring < 0) {
    if ((ring = (int)syscall(SYS_io_uring_setup, 4, &p)) < 0) return 1;
    const int rights = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    requests = mmap(NULL, p.sq_entries * sizeof *requests, rights, flags, ring, IORING_OFF_SQES);
    submitted =
        mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(unsigned), rights, flags, ring, IORING_OFF_SQ_RING);
    completed = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), rights, flags, ring,
                     IORING_OFF_CQ_RING);
    if (requests == MAP_FAILED || submitted == MAP_FAILED || completed == MAP_FAILED) return 1;
  }
  unsigned* const tail = (unsigned*)(submitted + p.sq_off.tail);
  const unsigned at = *tail & (p.sq_entries - 1);
  memset(&requests[at], 0, sizeof *requests);
  requests[at].opcode = IORING_OP_TIMEOUT;
  requests[at].fd = -1;
  requests[at].addr = (unsigned long)&as_asked;
  requests[at].len = 1;
  ((unsigned*)(submitted + p.sq_off.array))[at] = at;
  __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
  if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1) return 1;
  unsigned* const taken = (unsigned*)(completed + p.cq_off.head);
  if (__atomic_load_n((unsigned*)(completed + p.cq_off.tail), __ATOMIC_ACQUIRE) != *taken + 1) return 1;
  __atomic_store_n(taken, *taken + 1, __ATOMIC_RELEASE);
  return 0;
}

/// The file with N pages in it, to be read from the disk.
static int filled(int n) {
  static char page[4096];
  struct stat is;
  const int fd = open(file, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || fstat(fd, &is)) return -1;
  if (is.st_size < n * 4096L) {
    for (int i = 0; i < n; ++i)
      if (pwrite(fd, page, sizeof page, (off_t)i * 4096) != sizeof page) return -1;
    fsync(fd);
  }
  close(fd);
  return open(file, O_RDONLY | O_DIRECT);
}

static int work(const char* what, int n, int argument) {
  static char page[4096] __attribute__((aligned(4096)));
  int fd = -1;
  if (!strcmp(what, "fsync")) fd = open(file, O_RDWR | O_CREAT, 0600);
  if (!strcmp(what, "read") && (fd = filled(n)) < 0) return 2;
  for (int i = 0; i < n; ++i) {
    if (!strcmp(what, "sleep")) {
      const struct timespec pause = {0, 5000000};
      nanosleep(&pause, NULL);
    } else if (!strcmp(what, "yield")) {
      sched_yield();
    } else if (!strcmp(what, "fsync")) {
      if (pwrite(fd, page, sizeof page, 0) != sizeof page || fsync(fd)) return 1;
    } else if (!strcmp(what, "read")) {
      if (pread(fd, page, sizeof page, (off_t)i * 4096) != sizeof page) return 1;
    } else if (!strcmp(what, "threads")) {
      pthread_t thread;
      if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL)) return 1;
    } else if (!strcmp(what, "connect")) {
      struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)argument)};
      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      const int s = socket(AF_INET, SOCK_STREAM, 0);
      connect(s, (struct sockaddr*)&to, sizeof to);
      close(s);
    } else if (!strcmp(what, "compute")) {
      compute(argument);
    } else if (!strcmp(what, "futex")) {
      if (in_futex(argument)) return 1;
    } else if (!strcmp(what, "poll")) {
      if (poll(NULL, 0, argument)) return 1;
    } else if (!strcmp(what, "socket")) {
      if (in_socket(argument)) return 1;
    } else if (!strcmp(what, "wait")) {
      if (in_wait(argument)) return 1;
    } else if (!strcmp(what, "uring")) {
      if (in_uring(argument)) return 1;
    } else {
      return 3;
    }
  }
  if (fd >= 0) close(fd);
  return 0;
}

static int run(const char* what, int n, int argument) {
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  const long long since = away();
  const int result = work(what, n, argument);
  const long long until = away();
  getrusage(RUSAGE_SELF, &after);
  printf("DONE blocked=%ld preempted=%ld result=%d away=%lld\n", after.ru_nvcsw - before.ru_nvcsw,
         after.ru_nivcsw - before.ru_nivcsw, result, until - since);
  fflush(stdout);
  return result;
}

int main(int argc, char** argv) {
  file = argc > 1 ? argv[1] : "/var/tmp/boxo-kernel-work";
  char line[128], what[32];
  printf("READY pid=%d\n", getpid());
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    int n = 0, argument = 0;
    if (sscanf(line, "child %31s %d %d", what, &n, &argument) >= 2) {
      const pid_t child = fork();
      if (child == 0) _exit(run(what, n, argument));
      waitpid(child, NULL, 0);
    } else if (sscanf(line, "%31s %d %d", what, &n, &argument) >= 2) {
      run(what, n, argument);
    }
  }
  unlink(file);
}
