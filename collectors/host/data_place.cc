// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/data_place.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <filesystem>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>
#include <vector>

namespace boxo::host {

namespace {

namespace fs = std::filesystem;

/// As many as a stack may have before this is taken for a mistake.
constexpr std::size_t kMostDevices = 256;

/// "254:0\n"
std::optional<dev_t> to_device(const std::string& text) {
  std::istringstream in(text);
  unsigned major = 0, minor = 0;
  char colon = 0;
  if (!(in >> major >> colon >> minor) || colon != ':') return std::nullopt;
  return makedev(major, minor);
}

/// The number in the file `dev` of a block device's directory in sysfs.
std::optional<dev_t> device_in(const fs::path& dir) {
  auto opened = Dir::open(dir.string());
  if (!opened) return std::nullopt;
  const auto text = opened->read("dev", 64);
  return text ? to_device(*text) : std::nullopt;
}

/// Those whose directories are in `dir`, or linked there; empty if it does not exist.
std::set<dev_t> devices_in(const fs::path& dir) {
  std::set<dev_t> found;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error))
    if (const auto device = device_in(it->path())) found.insert(*device);
  return found;
}

/// What a device is put together of. A partition of such a device lies on what that is put together of.
std::set<dev_t> slaves_of(dev_t device, const std::string& sysfs) {
  const fs::path own = fs::path(sysfs) / "dev/block" / (std::to_string(major(device)) + ":" + std::to_string(minor(device)));
  std::error_code error;
  return devices_in(fs::exists(own / "partition", error) ? own / "../slaves" : own / "slaves");
}

std::set<dev_t> with_slaves(std::set<dev_t> devices, const std::string& sysfs) {
  for (std::vector<dev_t> left(devices.begin(), devices.end()); !left.empty() && devices.size() < kMostDevices;) {
    const dev_t device = left.back();
    left.pop_back();
    for (const dev_t below : slaves_of(device, sysfs))
      if (devices.insert(below).second) left.push_back(below);
  }
  return devices;
}

struct Mount {
  dev_t device = 0;
  std::string type;
  std::string source;
};

/// The mount with this number, in the text of a mountinfo.
std::optional<Mount> find_mount(const std::string& text, const std::string& id) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line);
    std::string number, parent, device;
    in >> number >> parent >> device;
    const std::size_t rest = line.find(" - ");
    if (number != id || rest == std::string::npos) continue;
    std::istringstream after(line.substr(rest + 3));
    Mount mount;
    after >> mount.type >> mount.source;
    mount.device = to_device(device).value_or(0);
    return mount;
  }
  return std::nullopt;
}

/// The mount that the directory was opened in: one of the target's or, of a volume that both have, of the agent's.
std::optional<Mount> mount_of(const Fd& data, const Dir& process) {
  const auto self = Dir::open("/proc/self");
  if (!self) return std::nullopt;
  const auto info = self->read("fdinfo/" + std::to_string(data.get()), 4096);
  const std::size_t at = info ? info->find("mnt_id:") : std::string::npos;
  if (at == std::string::npos) return std::nullopt;
  std::string id;
  std::istringstream(info->substr(at + 7)) >> id;
  for (const Dir* of : {&process, &*self})
    if (const auto text = of->read("mountinfo", std::size_t{4} << 20))
      if (auto mount = find_mount(*text, id)) return mount;
  return std::nullopt;
}

/// The number of a block device by the path that it was mounted by, which may mean nothing where the agent is.
std::optional<dev_t> device_at(const std::string& path, const Dir& process, const std::string& sysfs) {
  if (!path.starts_with("/dev/")) return std::nullopt;
  struct stat info {};
  if (::fstatat(process.fd(), ("root" + path).c_str(), &info, 0) == 0 && S_ISBLK(info.st_mode)) return info.st_rdev;
  if (::stat(path.c_str(), &info) == 0 && S_ISBLK(info.st_mode)) return info.st_rdev;
  return device_in(fs::path(sysfs) / "class/block" / fs::path(path).filename());
}

/// All devices of the btrfs that has this one among them.
std::set<dev_t> devices_of_btrfs(dev_t device, const std::string& sysfs) {
  std::error_code error;
  for (fs::directory_iterator it(fs::path(sysfs) / "fs/btrfs", error), end; !error && it != end; it.increment(error))
    if (auto all = devices_in(it->path() / "devices"); all.contains(device)) return all;
  return {device};
}

}  // namespace

Result<DataPlace> place_of_data(const Fd& data, const Dir& process, const std::string& sysfs) {
  struct stat info {};
  struct statfs kind {};
  if (::fstat(data.get(), &info) != 0 || ::fstatfs(data.get(), &kind) != 0) return errno_error("the data directory");
  DataPlace place;
  if (kind.f_type == EXT4_SUPER_MAGIC) place.filesystem = "ext4";
  if (kind.f_type == XFS_SUPER_MAGIC) place.filesystem = "xfs";
  if (major(info.st_dev) != 0) {
    place.files = info.st_dev;
    place.blocks = with_slaves({info.st_dev}, sysfs);
    return place;
  }
  // btrfs gives each of its subvolumes a number; mountinfo has that of the whole.
  const auto mount = mount_of(data, process);
  if (!mount) return Error{"the mount of the data directory is not known", "give the node's directory with --data-dir"};
  const auto device = device_at(mount->source, process, sysfs);
  if (!device) return Error{"the data directory is on " + mount->type + ", which has no block device of its own"};
  place.files = mount->device;
  place.blocks = with_slaves(mount->type == "btrfs" ? devices_of_btrfs(*device, sysfs) : std::set{*device}, sysfs);
  return place;
}

}  // namespace boxo::host
