// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/discover.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>

#include "collectors/go_buildinfo.h"

namespace boxo {

namespace {

constexpr std::string_view kBoxoModule = "github.com/ipfs/boxo";
constexpr std::string_view kKuboModule = "github.com/ipfs/kubo";
constexpr std::uint64_t kSettledSeconds = 3;
// A host that runs more different programs than this pays for reading some of them again.
constexpr std::size_t kMaxPrograms = 4096;
constexpr std::size_t kMaxRefused = 1024;
constexpr std::size_t kMaxArguments = std::size_t{128} << 10;

std::string exe_of(pid_t pid) { return std::to_string(pid) + "/exe"; }

bool has_argument(std::string_view arguments, std::string_view wanted) {
  bool first = true;
  while (!arguments.empty()) {
    const std::size_t end = std::min(arguments.find('\0'), arguments.size());
    if (!first && arguments.substr(0, end) == wanted) return true;
    first = false;
    arguments.remove_prefix(std::min(end + 1, arguments.size()));
  }
  return false;
}

/// Whether the agent has CAP_SYS_PTRACE already, and what refuses it is something else (another user
/// namespace).
bool may_trace(const Dir& proc) {
  constexpr std::string_view kKey = "\nCapEff:\t";
  const auto status = proc.read("self/status", 16 << 10);
  const std::size_t at = status ? status->find(kKey) : std::string::npos;
  if (at == std::string::npos) return false;
  std::uint64_t capabilities = 0;
  std::from_chars(status->data() + at + kKey.size(), status->data() + status->size(), capabilities, 16);
  return (capabilities >> CAP_SYS_PTRACE & 1) != 0;
}

}  // namespace

Discovery::Node Discovery::is_node(const ProcessTable::Row& row) {
  if (row.pid == self_ || row.kernel_thread || row.ended) return Node::kNo;
  switch (program(row.pid)) {
    case Program::kOther:
      return Node::kNo;
    case Program::kBoxo:
      return row.start_ticks + kSettledSeconds * ticks_per_second() <= now_ticks() ? Node::kYes : Node::kYoung;
    case Program::kKubo:
      break;
  }
  return says_daemon(row.pid) ? Node::kYes : Node::kNo;
}

bool Discovery::is_kubo_call(const ProcessTable::Row& row) {
  return !row.kernel_thread && !row.ended && program(row.pid) == Program::kKubo && !says_daemon(row.pid);
}

bool Discovery::says_daemon(pid_t pid) const {
  auto arguments = proc_->read(std::to_string(pid) + "/cmdline", kMaxArguments);
  return arguments && has_argument(*arguments, "daemon");
}

Discovery::Program Discovery::program(pid_t pid) {
  struct stat info {};
  const std::string exe = exe_of(pid);
  if (::fstatat(proc_->fd(), exe.c_str(), &info, 0) != 0) {
    refuse(pid, errno);
    return Program::kOther;
  }
  if (!S_ISREG(info.st_mode)) return Program::kOther;
  const Key key{info.st_dev, info.st_ino, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
  if (const auto known = programs_.find(key); known != programs_.end()) return known->second;

  // Not to hang on what is no ordinary file by the time it is opened.
  auto file = proc_->file(exe, O_NONBLOCK | O_NOCTTY);
  if (!file) {
    refuse(pid, file.error().code);
    return Program::kOther;
  }
  // The process may have become another program between the two calls.
  struct stat opened {};
  if (::fstat(file->get(), &opened) != 0 || opened.st_dev != info.st_dev || opened.st_ino != info.st_ino)
    return Program::kOther;
  Program found = Program::kOther;
  if (auto build = read_go_buildinfo(*file); build) {
    if (build->version(kKuboModule))
      found = Program::kKubo;
    else if (build->version(kBoxoModule))
      found = Program::kBoxo;
  }
  if (programs_.size() >= kMaxPrograms) programs_.clear();
  programs_.emplace(key, found);
  return found;
}

void Discovery::refuse(pid_t pid, int code) {
  // Anything else (it ended, it has no executable) says nothing to the user.
  if ((code == EACCES || code == EPERM) && refused_.size() < kMaxRefused) refused_.emplace(pid, code);
}

void Discovery::forget_ended(ProcessTable& table) {
  std::erase_if(refused_, [&](const auto& one) { return table.find(one.first) == nullptr; });
}

std::string Discovery::refused() const {
  if (refused_.empty()) return {};
  const auto& [pid, code] = *refused_.begin();
  std::string text = "cannot read /proc/" + exe_of(pid);
  if (refused_.size() > 1) text += " and " + std::to_string(refused_.size() - 1) + " others";
  text += std::string(": ") + std::strerror(code);
  return may_trace(*proc_) ? text : text + ": run as root or with CAP_SYS_PTRACE";
}

}  // namespace boxo
