// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/space.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string_view>
#include <system_error>
#include <thread>

#include "collectors/host/data_place.h"
#include "collectors/reading.h"

namespace boxo::host {

namespace {

constexpr auto kEvery = std::chrono::seconds(1);
constexpr auto kStale = std::chrono::seconds(30);

/// Opens `path` with `root` as the root directory, so that symbolic links in it mean what they mean to the
/// target.
Result<Fd> open_in_root(const Fd& root, const std::string& path) {
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT;
  long fd = ::syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof how);
  if (fd < 0 && (errno == ENOSYS || errno == EPERM)) {
    // Before Linux 5.6, or where a seccomp filter does not know the call: absolute links lead into the
    // agent's root then.
    const std::string relative = "." + path;
    fd = ::openat(root.get(), relative.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  if (fd < 0) return errno_error(path);
  return Fd(static_cast<int>(fd));
}

/// The value of NAME in the text of /proc/PID/environ.
std::optional<std::string> variable(std::string_view environment, std::string_view name) {
  while (!environment.empty()) {
    const std::size_t end = environment.find('\0');
    const std::string_view entry = environment.substr(0, end);
    if (entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=')
      return std::string(entry.substr(name.size() + 1));
    if (end == std::string_view::npos) break;
    environment.remove_prefix(end + 1);
  }
  return std::nullopt;
}

/// Where the target itself says that its data is: absolute, or relative to its working directory; "" for that
/// directory.
std::string data_of(const Dir& process) {
  auto environment = process.read("environ", std::size_t{4} << 20);
  if (!environment) return "";
  std::string path = variable(*environment, "IPFS_PATH").value_or("");
  if (path == "~" || path.starts_with("~/")) path.replace(0, 1, variable(*environment, "HOME").value_or(""));
  return path;
}

Result<Fd> open_data(const Dir& process, const std::string& path) {
  if (!path.starts_with('/')) {
    auto cwd = process.file("cwd", O_PATH | O_DIRECTORY);
    if (!cwd || path.empty()) return cwd;
    const int fd = ::openat(cwd->get(), path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? Result<Fd>(errno_error(path)) : Result<Fd>(Fd(fd));
  }
  auto root = process.file("root", O_PATH | O_DIRECTORY);
  if (!root) return root;
  return open_in_root(*root, path);
}

/// " /path" of a directory, as the kernel names it here; "" where it does not.
std::string place_of(const Fd& dir) {
  char path[4096];
  const ssize_t n = ::readlink(("/proc/self/fd/" + std::to_string(dir.get())).c_str(), path, sizeof path);
  return n > 0 ? " " + std::string(path, static_cast<std::size_t>(n)) : "";
}

}  // namespace

Result<Space> measure_space(const Dir& process, const std::string& data_dir) {
  const std::string path = data_dir.empty() ? data_of(process) : data_dir;
  auto dir = open_data(process, path);
  if (!dir && !data_dir.empty()) {
    // A volume that both share may be mounted somewhere else in the agent's container.
    const int fd = ::open(data_dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) dir = Fd(fd);
  }
  if (!dir) {
    Error error = dir.error();
    if (error.code == ENOENT) error.hint = "give the node's directory with --data-dir";
    return error;
  }
  struct statvfs room {};
  if (::fstatvfs(dir->get(), &room) != 0) return errno_error(path);
  Space space;
  space.path = path.empty() ? "the working directory" + place_of(*dir) : path;
  const std::uint64_t block = room.f_frsize;
  space.total = room.f_blocks * block;
  space.used = (room.f_blocks - std::min(room.f_blocks, room.f_bfree)) * block;
  space.available = room.f_bavail * block;
  space.inodes = room.f_files;
  space.inodes_used = room.f_files - std::min(room.f_files, room.f_ffree);
  space.inodes_available = room.f_favail;
  space.place = place_of_data(*dir, process);
  return space;
}

Result<Space> SpaceWatch::get(const Process& process) {
  std::unique_lock lock(shared_->mutex);
  const auto now = Clock::now();
  const bool known = shared_->result && shared_->of == process.id;
  if (!shared_->running && (!known || now - shared_->at >= kEvery)) {
    auto own = process.shared().dir(".");
    if (!own) return own.error();
    shared_->running = true;
    // An allocation, a thread: both can fail, and then nothing must be left to wait for.
    auto work = [shared = shared_, dir = std::make_shared<Dir>(std::move(*own)), id = process.id,
                 path = data_dir_] {
      auto measured = measure_space(*dir, path);
      const std::lock_guard guard(shared->mutex);
      shared->result = std::move(measured);
      shared->of = id;
      shared->at = Clock::now();
      shared->running = false;
      shared->done.notify_all();
    };
    try {
      std::thread(std::move(work)).detach();
    } catch (const std::system_error& error) {
      shared_->running = false;
      return errno_error("cannot start a thread", kMoreThreads, error.code().value());
    }
    shared_->done.wait_for(lock, patience_, [this] { return !shared_->running; });
  }
  const auto end = Clock::now();
  if (shared_->result && shared_->of == process.id && end - shared_->at < kStale) return *shared_->result;
  return Error{"the file system does not answer", "look at the mount that holds the node's data", EAGAIN};
}

}  // namespace boxo::host
