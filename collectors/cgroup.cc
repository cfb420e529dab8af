// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <system_error>

namespace boxo {

std::optional<std::string_view> path_below(std::string_view path, std::string_view base) {
  if (base == "/") return path;
  if (!path.starts_with(base)) return std::nullopt;
  path.remove_prefix(base.size());
  if (path.empty()) return "/";
  if (path.front() != '/') return std::nullopt;
  return path;
}

namespace {

// Deeper than any kernel default and any real tree; bounds recursion on a hostile one.
constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxProcs = std::size_t{64} << 20;

/// Splits off what is before the next `separator`; the whole rest if there is none.
std::string_view take(std::string_view& rest, char separator) {
  const std::size_t end = rest.find(separator);
  const std::string_view part = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  return part;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty())
    if (const std::string_view part = take(text, separator); !part.empty()) parts.emplace_back(part);
  return parts;
}

bool out_of_descriptors(int code) { return code == EMFILE || code == ENFILE; }

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string_view v1_name(std::string_view controller) { return controller == "io" ? "blkio" : controller; }

std::string_view v2_name(std::string_view controller) {
  if (controller == "blkio") return "io";
  if (controller == "cpuacct") return "cpu";
  return controller;
}

/// "name=systemd" is mounted at a directory "systemd".
std::string_view bare(std::string_view controller) {
  constexpr std::string_view kNamed = "name=";
  return controller.starts_with(kNamed) ? controller.substr(kNamed.size()) : controller;
}

/// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view text) {
  std::string out;
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) &&
        octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// Which group is mounted at `where`: of the mounts at it or above it the innermost one, the last of several.
std::string mounted_at(const std::string& where, std::string_view mountinfo) {
  std::string best = "/";
  std::size_t length = 0;
  while (!mountinfo.empty()) {
    std::string_view line = take(mountinfo, '\n');
    const std::size_t dash = line.find(" - cgroup");
    if (dash == std::string_view::npos) continue;
    std::string_view fields = line.substr(0, dash);
    for (int i = 0; i < 3; ++i) take(fields, ' ');
    const std::string root = unescape(take(fields, ' '));
    const std::string point = unescape(take(fields, ' '));
    const auto rest = path_below(where, point);
    if (!rest || point.size() < length) continue;
    length = point.size();
    best = *rest == "/" ? root : (root == "/" ? "" : root) + std::string(*rest);
  }
  return best;
}

bool exists(const Dir& dir, const char* name) { return ::faccessat(dir.fd(), name, F_OK, 0) == 0; }

/// The names of what may be a subdirectory, sorted; links to one come last.
std::vector<std::string> subdirectories(const Dir& dir) {
  std::vector<std::string> names;
  std::vector<std::string> links;
  const int fd = ::openat(dir.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return names;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd), ::closedir);
  if (!stream) {
    ::close(fd);
    return names;
  }
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN) names.emplace_back(name);
    if (entry->d_type == DT_LNK) links.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  std::sort(links.begin(), links.end());
  names.insert(names.end(), links.begin(), links.end());
  return names;
}

/// Only the kernel's own root group has (v1) or lacks (v2) these files, whatever a namespace calls "/".
bool is_root(const Dir& dir, int version) {
  return version == 2 ? !exists(dir, "cgroup.events") : exists(dir, "release_agent");
}

/// On cgroup file systems the link count says how many subdirectories there are: most groups are leaves.
bool is_leaf(const Dir& group) {
  struct stat info {};
  return ::fstat(group.fd(), &info) == 0 && info.st_nlink == 2;
}

/// `path` is that of `group`; it is the same again afterwards.
void walk_below(const Dir& group, std::string& path, int depth,
                const std::function<void(const std::string&)>& visit) {
  visit(path.empty() ? "/" : path);
  if (depth == kMaxDepth || is_leaf(group)) return;
  const std::size_t length = path.size();
  for (const std::string& name : subdirectories(group)) {
    auto child = group.dir(name);
    if (!child) continue;
    path.append("/").append(name);
    walk_below(*child, path, depth + 1, visit);
    path.resize(length);
  }
}

Result<> add_pids(const Dir& group, int depth, std::vector<pid_t>& pids) {
  auto text = group.read("cgroup.procs", kMaxProcs);
  // A threaded group of v2 refuses this file; its processes are listed by the domain above it.
  if (!text && text.error().code != EOPNOTSUPP) return text.error();
  if (text) {
    const char* at = text->data();
    const char* const end = at + text->size();
    while (at < end) {
      pid_t pid = 0;
      const auto [next, error] = std::from_chars(at, end, pid);
      if (error == std::errc() && pid > 0) pids.push_back(pid);  // 0: in no pid namespace below ours
      at = std::find(next, end, '\n');
      if (at < end) ++at;
    }
  }
  if (depth == kMaxDepth || is_leaf(group)) return {};
  for (const std::string& name : subdirectories(group)) {
    auto child = group.dir(name);
    if (!child) continue;
    // It may be removed at any moment, which ends it and not the walk.
    if (auto done = add_pids(*child, depth + 1, pids); !done) continue;
  }
  return {};
}

}  // namespace

bool CgroupView::climb_to(const std::string& ancestor) {
  const auto rest = path_below(path, ancestor);
  if (!rest) return false;
  const auto steps = *rest == "/" ? 0 : std::count(rest->begin(), rest->end(), '/');
  if (steps >= static_cast<std::ptrdiff_t>(levels.size())) return false;
  levels.erase(levels.begin(), levels.begin() + steps);
  path = ancestor;
  return true;
}

std::vector<CgroupLine> parse_cgroup_lines(std::string_view text) {
  std::vector<CgroupLine> lines;
  while (!text.empty()) {
    std::string_view path = take(text, '\n');
    if (path.find(':') == std::string_view::npos) continue;
    take(path, ':');
    if (path.find(':') == std::string_view::npos) continue;
    const std::string_view controllers = take(path, ':');  // the path itself may hold colons
    if (path.starts_with('/')) lines.push_back({split(controllers, ','), std::string(path)});
  }
  return lines;
}

Result<Cgroups> Cgroups::find(const std::string& root, std::string_view mountinfo) {
  auto top = Dir::open(root);
  if (!top && out_of_descriptors(top.error().code)) return top.error();
  if (!top) return Error{top.error().message, "mount the cgroup file systems there", top.error().code};
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(root.c_str(), nullptr), std::free);
  auto found = scan(std::move(*top), real ? real.get() : root, mountinfo);
  if (found.cut_ != 0) return errno_error(root, {}, found.cut_);
  return found;
}

Cgroups Cgroups::scan(Dir top, const std::string& where, std::string_view mountinfo) {
  Cgroups out;
  out.root_ = where;
  const auto look = [&out](const auto& opened) {
    if (!opened && out_of_descriptors(opened.error().code)) out.cut_ = opened.error().code;
  };
  const auto add = [&](Dir dir, const std::string& name) {
    struct stat info {};
    if (::fstat(dir.fd(), &info) != 0) return;
    std::vector<std::string> named = split(name, ',');
    for (Hierarchy& known : out.hierarchies_) {
      if (known.device != info.st_dev || known.inode != info.st_ino) continue;
      for (std::string& controller : named)  // "cpu" is often a link to "cpu,cpuacct"
        if (known.version == 1 && !contains(known.controllers, controller))
          known.controllers.push_back(std::move(controller));
      return;
    }
    Hierarchy found;
    found.where = name.empty() ? where : where + "/" + name;
    if (auto list = dir.read("cgroup.controllers"); list) {
      found.version = 2;
      if (list->ends_with('\n')) list->pop_back();
      found.controllers = split(*list, ' ');
    } else {
      look(list);
      found.version = 1;
      found.controllers = std::move(named);
    }
    found.mounted = mounted_at(found.where, mountinfo);
    found.dir = std::move(dir);
    found.device = info.st_dev;
    found.inode = info.st_ino;
    out.hierarchies_.push_back(std::move(found));
  };
  if (exists(top, "cgroup.controllers")) {
    add(std::move(top), "");
    return out;
  }
  look(top.dir("."));
  for (const std::string& name : subdirectories(top)) {
    auto dir = top.dir(name);
    look(dir);
    if (dir && exists(*dir, "cgroup.procs")) add(std::move(*dir), name);
  }
  return out;
}

const Cgroups::Hierarchy* Cgroups::hierarchy(std::string_view controller) const {
  if (!controller.empty())
    for (const Hierarchy& one : hierarchies_)
      if (one.version == 1 && contains(one.controllers, bare(v1_name(controller)))) return &one;
  for (const Hierarchy& one : hierarchies_)
    if (one.version == 2 && (controller.empty() || contains(one.controllers, v2_name(controller))))
      return &one;
  return nullptr;
}

std::string Cgroups::path(std::string_view controller, std::string_view cgroup_text) const {
  const Hierarchy* const where = hierarchy(controller);
  if (where == nullptr) return {};
  for (CgroupLine& line : parse_cgroup_lines(cgroup_text)) {
    if (where->version == 2
            ? line.controllers.empty()
            : std::any_of(line.controllers.begin(), line.controllers.end(),
                          [&](const auto& name) { return bare(name) == bare(v1_name(controller)); }))
      return std::move(line.path);
  }
  return {};
}

Result<Dir> Cgroups::open(std::string_view controller, const std::string& path) const {
  auto found = view(controller, path);
  if (!found) return found.error();
  return std::move(found->levels.front());
}

Result<CgroupView> Cgroups::view(std::string_view controller, const std::string& path) const {
  const Hierarchy* const where = hierarchy(controller);
  if (where == nullptr)
    return Error{controller.empty() ? "no cgroup v2 below " + root_
                                    : "no cgroup controller " + std::string(controller) + " below " + root_,
                 "mount it, or give the node a kernel that has it", ENOENT};
  const auto rest = path_below(path, where->mounted);
  const std::vector<std::string> names = split(rest.value_or(""), '/');
  if (!rest || !path.starts_with('/') || contains(names, ".."))
    return Error{
        "cgroup " + path + " is not below " + where->where + ", where " + where->mounted + " is mounted",
        "mount the host's cgroup file system there", EXDEV};

  CgroupView out;
  out.version = where->version;
  out.path = path;
  auto level = where->dir.dir(".");
  if (!level) return level.error();
  out.to_root = is_root(*level, out.version);
  out.levels.push_back(std::move(*level));
  for (const std::string& name : names) {
    auto next = out.levels.back().dir(name);
    if (!next)
      return Error{
          "cgroup " + path + " in " + where->where + ": " + next.error().message,
          "it was removed, or the agent has other cgroups mounted there than the target", next.error().code};
    out.levels.push_back(std::move(*next));
  }
  std::reverse(out.levels.begin(), out.levels.end());
  return out;
}

Result<CgroupView> Cgroups::view_of(std::string_view controller, const Dir& process) const {
  auto text = process.read("cgroup");
  return text ? view_of(controller, process, *text) : Result<CgroupView>(text.error());
}

Result<CgroupView> Cgroups::view_of(std::string_view controller, const Dir& process, const std::string& text) const {
  const std::string own = path(controller, text);
  auto seen = own.empty() ? Result<CgroupView>(Error{"no cgroup " + (controller.empty() ? "of version 2" : "with the controller " + std::string(controller)),
                                                   "mount that hierarchy where the agent runs", ENOENT})
                          : view(controller, own);
  if (seen) return seen;
  // Both mountinfo and cgroup are written relative to the reader's cgroup namespace, so they fit each other.
  auto mountinfo = process.read("mountinfo", std::size_t{4} << 20);
  auto top = process.dir("root" + root_);
  if (!mountinfo || !top) return seen;
  const Cgroups theirs = scan(std::move(*top), root_, *mountinfo);
  if (theirs.cut_ != 0) return errno_error(root_, {}, theirs.cut_);
  const Hierarchy* const where = theirs.hierarchy(controller);
  // What a process has at this place in its own root may be anything.
  struct statfs kind {};
  if (where == nullptr || ::fstatfs(where->dir.fd(), &kind) != 0 ||
      (kind.f_type != CGROUP_SUPER_MAGIC && kind.f_type != CGROUP2_SUPER_MAGIC))
    return seen;
  auto found = theirs.view(controller, theirs.path(controller, text));
  return found ? std::move(found) : std::move(seen);
}

Result<> Cgroups::pids(const Dir& group, std::vector<pid_t>& pids) {
  auto done = add_pids(group, 0, pids);
  std::sort(pids.begin(), pids.end());
  pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
  return done;
}

void Cgroups::walk(const Hierarchy& hierarchy, const std::function<void(const std::string& path)>& visit) {
  std::string path = hierarchy.mounted == "/" ? "" : hierarchy.mounted;
  walk_below(hierarchy.dir, path, 0, visit);
}

}  // namespace boxo
