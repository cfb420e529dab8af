// SPDX-License-Identifier: MIT OR Apache-2.0
// CPU time of known amount, here and in children.
//   burn MS          here
//   reap MS [N]      in N children (1 if not given), one after the other, each waited for
//   forget MS        in a child that nobody waits for (its end is ignored), which lives until a signal ends it
//   start N          N children that sleep until the program ends; answers with the pids instead
// Each answers with user and system time in microseconds, own and children's, and minor faults, own and
// children's.
//
// Children whose use is nobody's, N at a time, each MS in all and some I/O:
//   threads T        each of the following ones has T threads beside the main one, which use MS too
//   hold H           1: the following ones stop half-way; the answer is "HELD", and "go" lets them go on
//   ignored N MS     the end of the children is ignored
//   orphans N MS     their parent ends before them
//   abandoned N MS   their parent ends after them, without having waited; the program waits for that one
// Each answers, when all have reported, with the sum of what the children say of themselves at their end: CPU
// time in ns, minor faults, and the seven lines of /proc/PID/io.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "commands.h"

enum { kCpu, kFaults, kCharsRead, kCharsWritten, kReads, kWrites, kBytesRead, kBytesWritten, kCancelled, kValues };

static long threads, hold;

static long now_ms(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void burn_on(clockid_t clock, long ms) {
  const long end = now_ms(clock) + ms;
  while (now_ms(clock) < end) {
  }
}

static void burn(long ms) { burn_on(CLOCK_PROCESS_CPUTIME_ID, ms); }

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

static void* burner(void* ms) {
  burn_on(CLOCK_THREAD_CPUTIME_ID, (long)ms);
  return NULL;
}

static void use(long ms) {
  pthread_t all[64];
  for (long i = 0; i < threads; ++i)
    if (pthread_create(&all[i], NULL, burner, (void*)ms)) _exit(1);
  burn_on(CLOCK_THREAD_CPUTIME_ID, ms);
  for (long i = 0; i < threads; ++i) pthread_join(all[i], NULL);
}

static void do_io(void) {
  static char page[4096];
  char name[64];
  const int null = open("/dev/null", O_WRONLY);
  for (int i = 0; i < 5; ++i)
    if (write(null, page, 1000) != 1000) _exit(1);
  snprintf(name, sizeof name, "child-%d", (int)getpid());
  const int file = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0600);
  for (int i = 0; i < 3; ++i)
    if (write(file, page, sizeof page) != sizeof page) _exit(1);
  unlink(name);
  close(file);
  close(null);
}

/// What the process has used up to now; asking and the report of it are in it.
static void report(int to) {
  long long values[kValues];
  char text[512];
  const int io = open("/proc/self/io", O_RDONLY);
  const ssize_t size = read(io, text, sizeof text - 1);
  if (size <= 0) _exit(1);
  text[size] = '\0';
  if (sscanf(text, "rchar: %lld wchar: %lld syscr: %lld syscw: %lld read_bytes: %lld write_bytes: %lld cancelled_write_bytes: %lld",
             &values[kCharsRead], &values[kCharsWritten], &values[kReads], &values[kWrites], &values[kBytesRead],
             &values[kBytesWritten], &values[kCancelled]) != 7)
    _exit(1);
  values[kCharsRead] += size;
  values[kReads] += 1;
  values[kCharsWritten] += sizeof values;
  values[kWrites] += 1;
  struct rusage own;
  struct timespec now;
  getrusage(RUSAGE_SELF, &own);
  values[kFaults] = own.ru_minflt;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  values[kCpu] = now.tv_sec * 1000000000LL + now.tv_nsec;
  if (write(to, values, sizeof values) != sizeof values) _exit(1);
}

struct pipes {
  int ready[2], go[2], report[2];
};

static void live(const struct pipes* pipes, long ms) {
  char byte = 0;
  close(pipes->go[1]);
  use(hold ? ms / 2 : ms);
  do_io();
  if (hold) {
    if (write(pipes->ready[1], &byte, 1) != 1 || read(pipes->go[0], &byte, 1) != 0) _exit(1);
    use(ms - ms / 2);
    do_io();
  }
  report(pipes->report[1]);
  _exit(0);
}

static void start_all(const struct pipes* pipes, long count, long ms) {
  for (long i = 0; i < count; ++i) {
    const pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) live(pipes, ms);
  }
}

static void read_all(int from, void* to, size_t size) {
  for (size_t have = 0; have < size;) {
    const ssize_t n = read(from, (char*)to + have, size - have);
    if (n <= 0) die("read");
    have += (size_t)n;
  }
}

static void nobodys(const struct command* command) {
  struct pipes pipes;
  int end[2];
  long long sum[kValues] = {0}, one[kValues];
  const int ignored = is(command, "ignored"), abandoned = is(command, "abandoned");
  char byte;
  if (pipe(pipes.ready) || pipe(pipes.go) || pipe(pipes.report) || pipe(end)) die("pipe");
  pid_t parent = 0;
  signal(SIGCHLD, ignored ? SIG_IGN : SIG_DFL);
  if (ignored) {
    start_all(&pipes, command->a, command->b);
  } else if ((parent = fork()) == 0) {
    start_all(&pipes, command->a, command->b);
    close(pipes.go[1]);
    close(end[1]);
    if (abandoned && read(end[0], &byte, 1) < 0) _exit(1);
    if (!abandoned && hold) usleep(700000);  // so that they are seen to be its children
    _exit(0);
  }
  if (parent && !abandoned) waitpid(parent, NULL, 0);
  if (hold) {
    for (long i = 0; i < command->a; ++i) read_all(pipes.ready[0], &byte, 1);
    answer("HELD");
    next_command();
  }
  close(pipes.go[1]);
  for (long i = 0; i < command->a; ++i) {
    read_all(pipes.report[0], one, sizeof one);
    for (int v = 0; v < kValues; ++v) sum[v] += one[v];
  }
  // When the last one has closed its end, at its end.
  close(pipes.report[1]);
  if (!abandoned) (void)!read(pipes.report[0], &byte, 1);
  // With their end ignored this waits for all of them, and gets none.
  while (ignored && (wait(NULL) > 0 || errno == EINTR)) {
  }
  signal(SIGCHLD, SIG_DFL);
  close(end[1]);
  if (parent && abandoned) {
    usleep(100000);  // they are zombies now
    waitpid(parent, NULL, 0);
  }
  close(pipes.ready[0]), close(pipes.ready[1]), close(pipes.go[0]), close(pipes.report[0]), close(end[0]);
  for (int v = 0; v < kValues; ++v) printf("%lld ", sum[v]);
  answer("");
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
      start(command.a, 1000);
    }
    if (is(&command, "start")) {
      for (long i = 0; i < command.a; ++i) printf("%d ", start(0, 1000));
      answer("");
      continue;
    }
    if (is(&command, "threads")) threads = command.a < 64 ? command.a : 64;
    if (is(&command, "hold")) hold = command.a;
    if (is(&command, "ignored") || is(&command, "orphans") || is(&command, "abandoned")) {
      nobodys(&command);
      continue;
    }
    tell();
  }
}
