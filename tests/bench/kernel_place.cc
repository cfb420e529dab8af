// SPDX-License-Identifier: MIT OR Apache-2.0
#include "tests/bench/kernel_place.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "collectors/cgroup.h"

namespace boxo::kernel {

namespace {

bool write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path);
  out << text;
  out.close();
  return !out.fail();
}

std::string made(const std::string& group) {
  if (::mkdir(group.c_str(), 0755) != 0 && errno != EEXIST) die(group + ": " + std::strerror(errno));
  return group;
}

}  // namespace

void die(const std::string& what) {
  std::fprintf(stderr, "kernel_bench: %s\n", what.c_str());
  std::exit(1);
}

Place::Place() {
  make_disk();
  make_groups();
}

Place::~Place() {
  for (const std::string& group : {memory_, other_}) ::rmdir(group.c_str());
}

void Place::make_disk() {
  constexpr off_t kSize = 256 << 20;
  const Fd blocks(::memfd_create("kernel_bench", MFD_CLOEXEC));
  const Fd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
  const std::string device = "/dev/loop" + std::to_string(number);
  disk_ = Fd(::open(device.c_str(), O_RDWR | O_CLOEXEC));
  loop_config config{};
  config.fd = static_cast<__u32>(blocks.get());
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  if (number < 0 || !disk_ || ::ftruncate(blocks.get(), kSize) != 0 || ::ioctl(disk_.get(), LOOP_CONFIGURE, &config) != 0)
    die("no loop device: " + std::string(std::strerror(errno)));
  if (std::system(("mkfs.ext4 -q " + device).c_str()) != 0) die("mkfs.ext4 " + device);
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount(device.c_str(), "/mnt", "ext4", 0, nullptr) != 0)
    die("mount " + device + ": " + std::strerror(errno));
  bdi_ = "/sys/class/bdi/7:" + std::to_string(number);
  hold_back(false);  // a loop device keeps what was said of it the last time
}

void Place::make_groups() {
  const auto all = Cgroups::find("/sys/fs/cgroup");
  const auto* memory = all ? all->hierarchy("memory") : nullptr;
  const auto* unified = all ? all->hierarchy("") : nullptr;
  if (memory == nullptr || unified == nullptr) die("no cgroup of version 2, or none of the memory controller");
  memory_ = made(memory->where + "/boxo-kernel-bench");
  if (!write_file(memory_ + (memory->version == 2 ? "/memory.max" : "/memory.limit_in_bytes"), "16777216")) die(memory_);
  other_ = made(unified->where + "/boxo-kernel-bench-other");
}

bool Place::hold_back(bool on) const {
  return write_file(bdi_ + "/strict_limit", on ? "1" : "0") &&
         write_file(bdi_ + (on ? "/max_bytes" : "/max_ratio"), on ? "2097152" : "100");
}

}  // namespace boxo::kernel
