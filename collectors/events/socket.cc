// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/socket.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string_view>
#include <utility>

namespace boxo::events {

namespace {

constexpr std::string_view kDefaultFolder = "/run/boxo-agent";
constexpr int kFirstInherited = 3;
constexpr int kMostInherited = 64;

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) { return reinterpret_cast<const sockaddr*>(&address); }

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Error failed(const UnixSocket::Place& place, const std::string& what, std::string hint, int code = errno) {
  return errno_error(place.option + " " + place.path + ": " + what, std::move(hint), code);
}

/// Two agents that start at once must not both find the same stale socket. The lock ends with the descriptor.
/// Whoever can read the directory can hold the lock, so it is not waited for for long.
void lock_folder(const Fd& folder) {
  constexpr timespec kPause{0, 20'000'000};
  for (int tries = 0; tries < 50 && ::flock(folder.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
       ++tries)
    ::nanosleep(&kPause, nullptr);
}

/// Makes way for a new socket at the path: removes one that nobody receives on any more.
Result<> clear_path(const UnixSocket::Place& place, int type) {
  struct stat found {};
  if (::lstat(place.path.c_str(), &found) != 0)
    return errno == ENOENT ? Result<>() : failed(place, "cannot look", "choose another path");
  if (!S_ISSOCK(found.st_mode))
    return Error{place.option + " " + place.path + ": something that is no socket is there",
                 "choose another path", EEXIST};
  const Fd probe(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_un address = address_of(place.path);
  const int status = ::connect(probe.get(), generic(address), sizeof address);
  // Refused: the socket's process is gone. Anything else but that comes from one that lives.
  if (status != 0 && errno == ECONNREFUSED) {
    if (::unlink(place.path.c_str()) != 0 && errno != ENOENT)
      return failed(place, "cannot replace a stale socket", "remove it, or choose another path");
    return {};
  }
  if (status != 0 && errno == EACCES)
    return failed(place, "cannot look", "run as the user who owns it, or choose another path");
  return Error{place.option + " " + place.path + ": another process receives there",
               "stop that agent, or give this one another " + place.option, EADDRINUSE};
}

}  // namespace

UnixSocket::UnixSocket(UnixSocket&& other) noexcept { *this = std::move(other); }

UnixSocket& UnixSocket::operator=(UnixSocket&& other) noexcept {
  if (this == &other) return *this;
  close();
  fd_ = std::move(other.fd_);
  path_ = std::move(other.path_);
  owns_path_ = std::exchange(other.owns_path_, false);
  device_ = other.device_;
  inode_ = other.inode_;
  return *this;
}

Result<UnixSocket> UnixSocket::bind(int type, const Place& place) {
  const std::string& path = place.path;
  if (path.size() >= sizeof(sockaddr_un{}.sun_path))
    return Error{place.option + " " + path + ": longer than the 107 bytes that a socket's path may have",
                 "choose a shorter path", ENAMETOOLONG};
  const std::string folder = folder_of(path);
  if (folder == kDefaultFolder && ::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST)
    return failed(place, "cannot make its directory",
                  "run as root, choose a path that this user may write to, or do without events: --no-collector "
                  "events");
  const Fd lock(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock) return failed(place, "cannot open its directory", "make the directory, or choose another path");
  lock_folder(lock);
  if (auto cleared = clear_path(place, type); !cleared) return cleared.error();

  UnixSocket out;
  out.fd_ = Fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!out.fd_) return failed(place, "cannot make a socket", {});
  // The mode of a socket before bind() is the mode that its path will get: nobody connects before the group
  // is set.
  ::fchmod(out.fd(), 0);
  const sockaddr_un address = address_of(path);
  if (::bind(out.fd(), generic(address), sizeof address) != 0)
    return failed(place, "cannot bind",
                  "choose a path that this user may write to, or do without events: --no-collector events");
  struct stat bound {};
  if (::lstat(path.c_str(), &bound) != 0) return failed(place, "cannot look", {});
  out.path_ = path;
  out.owns_path_ = true;
  out.device_ = bound.st_dev;
  out.inode_ = bound.st_ino;
  if (place.group && ::chown(path.c_str(), static_cast<uid_t>(-1), *place.group) != 0)
    return failed(place, "cannot give it to the group of --events-group",
                  "be a member of that group, or run as root");
  if (::chmod(path.c_str(), place.mode) != 0) return failed(place, "cannot set its mode", {});
  if (type == SOCK_STREAM && ::listen(out.fd(), SOMAXCONN) != 0) return failed(place, "cannot listen", {});
  return out;
}

std::optional<UnixSocket> UnixSocket::inherited(int type) {
  const auto number = [](const char* name) {
    const char* const text = std::getenv(name);
    long value = 0;
    if (text == nullptr) return value;
    const auto [rest, error] = std::from_chars(text, text + std::strlen(text), value);
    return error == std::errc{} && *rest == '\0' ? value : 0;
  };
  const long count = number("LISTEN_FDS");
  if (number("LISTEN_PID") != ::getpid() || count < 1 || count > kMostInherited) return std::nullopt;
  for (int fd = kFirstInherited; fd < kFirstInherited + count; ++fd) {
    int found = 0;
    socklen_t size = sizeof found;
    sockaddr_un address{};
    socklen_t length = sizeof address;
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &found, &size) != 0 || found != type) continue;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0 ||
        address.sun_family != AF_UNIX)
      continue;
    // Once taken it is no longer on offer: neither to a second caller here nor to a child.
    const int own = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) continue;
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    ::fcntl(own, F_SETFL, O_NONBLOCK);
    UnixSocket out;
    out.fd_ = Fd(own);
    out.path_ = address.sun_path;
    return out;
  }
  return std::nullopt;
}

bool UnixSocket::only_for(gid_t group) const {
  struct stat found {};
  return !path_.empty() && ::stat(path_.c_str(), &found) == 0 && found.st_gid == group &&
         (found.st_mode & S_IWOTH) == 0;
}

void UnixSocket::close() {
  if (owns_path_) {
    struct stat found {};
    if (::lstat(path_.c_str(), &found) == 0 && found.st_dev == device_ && found.st_ino == inode_)
      ::unlink(path_.c_str());
  }
  owns_path_ = false;
  fd_.reset();
}

}  // namespace boxo::events
