// SPDX-License-Identifier: MIT OR Apache-2.0
#include "tests/bench/kernel_work.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <thread>

namespace boxo::kernel {

namespace {

double cpu_seconds() {
  rusage use{};
  ::getrusage(RUSAGE_SELF, &use);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

constexpr const char* kFile = "/var/tmp/boxo-kernel-bench";

/// CPU nanoseconds for each of `times` calls of `once`, which gets a file of its own of `size` bytes without content.
template <class Once>
double on_file(int times, off_t size, Once once) {
  const int fd = ::open(kFile, O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || ::ftruncate(fd, size) != 0) std::abort();
  const double before = cpu_seconds();
  for (int i = 0; i < times; ++i)
    if (!once(fd, i)) std::abort();
  const double cost = (cpu_seconds() - before) * 1e9 / times;
  ::close(fd);
  ::unlink(kFile);
  return cost;
}

}  // namespace

double small_reads() {
  return on_file(300'000, 4096, [](int fd, int) {
    char c = 0;
    return ::pread(fd, &c, 1, 0) == 1;
  });
}

double small_writes() {
  return on_file(100'000, 0, [](int fd, int i) {
    static const char record[512] = {};
    return ::pwrite(fd, record, sizeof(record), (i % 4096) * off_t{512}) == sizeof(record);
  });
}

double misses() {
  constexpr int kPages = 20'000;
  return on_file(kPages, off_t{kPages} * 4096, [](int fd, int i) {
    char c = 0;
    if (i == 0) ::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    return ::pread(fd, &c, 1, off_t{i} * 4096) == 1;
  });
}

double fsyncs() {
  return on_file(1'000, 4096, [](int fd, int) {
    char c = 'x';
    return ::pwrite(fd, &c, 1, 0) == 1 && ::fsync(fd) == 0;
  });
}

double faults() {
  constexpr std::size_t kPages = 50'000;
  void* memory = ::mmap(nullptr, kPages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  ::madvise(memory, kPages * 4096, MADV_NOHUGEPAGE);
  const double before = cpu_seconds();
  for (std::size_t i = 0; i < kPages; ++i) static_cast<volatile char*>(memory)[i * 4096] = 1;
  const double cost = (cpu_seconds() - before) * 1e9 / static_cast<double>(kPages);
  ::munmap(memory, kPages * 4096);
  return cost;
}

double threads() {
  constexpr int kThreads = 5'000;
  const double before = cpu_seconds();
  for (int i = 0; i < kThreads; ++i) std::thread([] {}).join();
  return (cpu_seconds() - before) * 1e9 / kThreads;
}

double signals() {
  constexpr int kSignals = 100'000;
  std::signal(SIGUSR1, [](int) {});
  const double before = cpu_seconds();
  for (int i = 0; i < kSignals; ++i) std::raise(SIGUSR1);
  return (cpu_seconds() - before) * 1e9 / kSignals;
}

}  // namespace boxo::kernel
