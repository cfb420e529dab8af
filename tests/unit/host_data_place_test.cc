// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <string>

#include "collectors/host/data_place.h"
#include "tests/unit/tree.h"

using namespace boxo;
using namespace boxo::host;
using boxo::test::Tree;

namespace {

Fd opened(const std::string& path) { return Fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)); }

std::string number(dev_t device) { return std::to_string(major(device)) + ":" + std::to_string(minor(device)); }

std::string mount_id(const Fd& fd) {
  const auto text = Dir::open("/proc/self/fdinfo")->read(std::to_string(fd.get()));
  const std::size_t at = text->find("mnt_id:\t") + 8;
  return text->substr(at, text->find('\n', at) - at);
}

}  // namespace

TEST_CASE("data place: devices on top of others, down to the last") {
  Tree tree({{"proc/", ""}});
  const Fd data = opened(tree.path());
  struct stat info {};
  REQUIRE(::fstat(data.get(), &info) == 0);
  if (major(info.st_dev) == 0) return;  // the temporary files are on no device
  // A partition of an array; that of a mapped device and a disk; the mapped device on two partitions.
  tree.put("sys/devices/md0/part/dev", number(info.st_dev));
  tree.put("sys/devices/md0/part/partition", "1\n");
  tree.put("sys/devices/md0/slaves/dm-0", "->../../dm-0");
  tree.put("sys/devices/md0/slaves/sdc", "->../../sdc");
  tree.put("sys/devices/dm-0/dev", "252:0\n");
  tree.put("sys/devices/dm-0/slaves/sda1", "->../../sda/sda1");
  tree.put("sys/devices/dm-0/slaves/sdb1", "->../../sdb/sdb1");
  tree.put("sys/devices/sda/slaves/");
  tree.put("sys/devices/sda/sda1/dev", "8:1\n");
  tree.put("sys/devices/sda/sda1/partition", "1\n");
  tree.put("sys/devices/sdb/sdb1/dev", "8:17\n");
  tree.put("sys/devices/sdc/dev", "8:32\n");
  tree.put("sys/dev/block/" + number(info.st_dev), "->../../devices/md0/part");
  tree.put("sys/dev/block/252:0", "->../../devices/dm-0");
  tree.put("sys/dev/block/8:1", "->../../devices/sda/sda1");

  const auto place = place_of_data(data, *Dir::open(tree.path("proc")), tree.path("sys"));
  REQUIRE(place);
  CHECK(place->files == info.st_dev);
  CHECK(place->blocks ==
        std::set<dev_t>{info.st_dev, makedev(252, 0), makedev(8, 1), makedev(8, 17), makedev(8, 32)});
  // Where there is no sysfs, itself.
  CHECK(place_of_data(data, *Dir::open(tree.path("proc")), tree.path("none"))->blocks == std::set<dev_t>{info.st_dev});
}

TEST_CASE("data place: a file system without a device number of its own") {
  const Fd data = opened("/dev/shm");
  struct stat info {};
  REQUIRE(::fstat(data.get(), &info) == 0);
  REQUIRE(major(info.st_dev) == 0);
  Tree tree({{"proc/root/", ""},
             {"sys/class/block/boxo-disk-a/dev", "8:5\n"},
             {"sys/fs/btrfs/features/x", ""},
             {"sys/fs/btrfs/one/devices/a/dev", "8:4\n"},
             {"sys/fs/btrfs/two/devices/a/dev", "8:5\n"},
             {"sys/fs/btrfs/two/devices/b/dev", "8:6\n"}});
  const auto mounted = [&](const std::string& how) {
    tree.put("proc/mountinfo", "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mount_id(data) + " 1 0:77 / /data rw shared:1 - " + how + " rw\n");
    return place_of_data(data, *Dir::open(tree.path("proc")), tree.path("sys"));
  };
  const auto btrfs = mounted("btrfs /dev/boxo-disk-a");
  REQUIRE(btrfs);
  CHECK(btrfs->filesystem.empty());
  CHECK(btrfs->files == makedev(0, 77));
  CHECK(btrfs->blocks == std::set<dev_t>{makedev(8, 5), makedev(8, 6)});
  CHECK(mounted("other /dev/boxo-disk-a")->blocks == std::set<dev_t>{makedev(8, 5)});
  for (const std::string how : {"nfs4 server:/export", "overlay overlay", "tmpfs none", "fuse.sshfs /dev/null"}) {
    CAPTURE(how);
    const auto place = mounted(how);
    REQUIRE_FALSE(place);
    CHECK(place.error().text() ==
          "the data directory is on " + how.substr(0, how.find(' ')) + ", which has no block device of its own");
  }
}
