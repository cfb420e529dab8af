// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "tests/unit/tree.h"

namespace boxo::test {

struct FakeProcess {
  int pid;
  int parent;
  std::uint64_t start;
  std::string comm = "prog";
  char state = 'S';
  int threads = 1;
  std::string cgroup = "0::/\n";
  unsigned flags = 0;
};

/// A /proc as a value in the test.
class FakeProc : public Tree {
 public:
  FakeProc(std::initializer_list<FakeProcess> processes = {}) {
    for (const FakeProcess& one : processes) add(one);
  }

  static std::string stat(const FakeProcess& p) {
    return std::to_string(p.pid) + " (" + p.comm + ") " + p.state + " " + std::to_string(p.parent) +
           " 1 1 0 -1 " + std::to_string(p.flags) + " 0 0 0 0 0 0 0 0 20 0 " + std::to_string(p.threads) +
           " 0 " + std::to_string(p.start) + " 1000 100 18446744073709551615 1 1 0\n";
  }
  void add(const FakeProcess& p) {
    const std::string dir = std::to_string(p.pid);
    put(dir + "/stat", stat(p));
    put(dir + "/comm", p.comm.substr(0, 15) + "\n");
    put(dir + "/cgroup", p.cgroup);
    put(dir + "/cmdline", p.comm + '\0');
  }
  /// The process is gone and its directory's inode is not used again, as in a real /proc.
  void end(int pid) {
    std::filesystem::create_directory(path("gone"));
    std::filesystem::rename(path(std::to_string(pid)), path("gone/" + std::to_string(++ended_)));
    remove("gone/" + std::to_string(ended_) + "/stat");
  }

 private:
  int ended_ = 0;
};

}  // namespace boxo::test
