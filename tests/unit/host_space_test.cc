// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <filesystem>

#include "collectors/host/space.h"
#include "tests/unit/host_helpers.h"
#include "tests/unit/tree.h"

using namespace boxo;
using namespace boxo::host;
using boxo::test::Child;
using boxo::test::process_of;
using boxo::test::Tree;

TEST_CASE("space: the working directory, IPFS_PATH, and a directory that was given") {
  Tree tree({{"data/x", ""}});
  struct statvfs root {};
  struct statvfs shm {};
  REQUIRE(::statvfs(tree.path().c_str(), &root) == 0);
  REQUIRE(::statvfs("/dev/shm", &shm) == 0);
  // What the test relies on to tell the two apart.
  REQUIRE(root.f_blocks * root.f_frsize != shm.f_blocks * shm.f_frsize);

  const Child child([&tree] {
    if (::chdir(tree.path().c_str()) != 0) std::abort();
  });
  const Process process = process_of(child.pid());
  auto space = measure_space(process.proc, "");
  REQUIRE(space);
  CHECK(space->path == "the working directory " + std::filesystem::canonical(tree.path()).string());
  CHECK(space->total == root.f_blocks * root.f_frsize);
  CHECK(space->inodes == root.f_files);
  CHECK(space->used <= space->total);
  CHECK(space->available <= space->total - space->used);

  space = measure_space(process.proc, "/dev/shm");
  REQUIRE(space);
  CHECK(space->total == shm.f_blocks * shm.f_frsize);
  // Relative to the target's working directory.
  space = measure_space(process.proc, "data");
  REQUIRE(space);
  CHECK(space->total == root.f_blocks * root.f_frsize);

  space = measure_space(process.proc, "/no/such/place");
  REQUIRE_FALSE(space);
  CHECK(space.error().code == ENOENT);
  CHECK(space.error().text().find("--data-dir") != std::string::npos);
}

TEST_CASE("space: IPFS_PATH out of the environment of a fake process") {
  Tree tree({{"root/ipfs/config", ""}, {"home/.ipfs/config", ""}});
  const auto with = [&tree](const std::string& environment) {
    tree.put("proc/environ", environment);
    return measure_space(*Dir::open(tree.path("proc")), "");
  };
  std::filesystem::create_directories(tree.path("proc"));
  std::filesystem::create_directory_symlink(tree.path("root"), tree.path("proc/root"));
  std::filesystem::create_directory_symlink(tree.path("home"), tree.path("proc/cwd"));
  auto space = with(std::string("A=b\0XIPFS_PATH=/no\0IPFS_PATH=/ipfs\0", 34));
  REQUIRE(space);
  CHECK(space->path == "/ipfs");
  space = with(std::string("IPFS_PATH=.ipfs\0", 16));
  REQUIRE(space);
  CHECK(space->path == ".ipfs");
  space = with(std::string("HOME=/ipfs\0IPFS_PATH=~/\0", 24));
  REQUIRE(space);
  CHECK(space->path == "/ipfs/");
  CHECK(with("")->path.starts_with("the working directory /"));
  CHECK_FALSE(with(std::string("IPFS_PATH=/gone\0", 16)));
}

TEST_CASE("space: absolute links mean what they mean to the target") {
  Tree tree({{"root/real/x", ""}, {"proc/environ", ""}});
  std::filesystem::create_directory_symlink(tree.path("root"), tree.path("proc/root"));
  std::filesystem::create_directory_symlink("/real", tree.path("root/link"));
  const auto space = measure_space(*Dir::open(tree.path("proc")), "/link");
  CHECK(space);
}

TEST_CASE("space: the watch answers with the same, and again for another process") {
  SpaceWatch watch("", std::chrono::seconds(30));  // the machine may be busy
  const Child child([] {});
  const Process self = process_of(::getpid());
  const Process other = process_of(child.pid());
  const auto first = watch.get(self);
  REQUIRE(first);
  CHECK(watch.get(self)->total == first->total);
  CHECK(watch.get(other));
}

TEST_CASE("space: a measurement that does not answer holds nobody up") {
  Tree tree({{"proc/stat", ""}});
  // Opening a FIFO for reading blocks until somebody writes: stands for a file system that hangs.
  REQUIRE(::mkfifo(tree.path("proc/environ").c_str(), 0600) == 0);
  Process process{{1, 1}, {}, "", *Dir::open(tree.path("proc"))};
  SpaceWatch watch("", std::chrono::milliseconds(20));
  for (int i = 0; i < 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const auto space = watch.get(process);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(500));
    REQUIRE_FALSE(space);
    CHECK(space.error().text().find("does not answer") != std::string::npos);
  }
  // Lets the thread go.
  const int fd = ::open(tree.path("proc/environ").c_str(), O_WRONLY);
  ::close(fd);
  ::usleep(100'000);
}
