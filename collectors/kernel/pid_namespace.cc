// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/pid_namespace.h"

#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

namespace boxo::kernel {

namespace {

/// The numbers in the line "NSpid:", one for each namespace from that of this /proc down to the process's own; 0: there is
/// no such line.
int namespaces_down(std::string_view status) {
  constexpr std::string_view kLine = "\nNSpid:";
  const std::size_t at = status.find(kLine);
  if (at == std::string_view::npos) return 0;
  std::string_view rest = status.substr(at + kLine.size());
  rest = rest.substr(0, rest.find('\n'));
  int count = 0;
  for (const char c : rest) count += c == '\t' ? 1 : 0;
  return count;
}

}  // namespace

Result<> numbers_as_agent(const Dir& proc) {
  const auto status = proc.read("self/status");
  // Without an entry for the agent its namespace is not even below that of this /proc.
  if (!status && status.error().code != ENOENT) return status.error();
  bool same = status && namespaces_down(*status) == 1;
  if (status && namespaces_down(*status) == 0) {
    const auto self = proc.link("self");
    same = self && *self == std::to_string(::getpid());
  }
  if (same) return {};
  return Error{"/proc is of another pid namespace than the agent, where the target cannot be told from others",
               "mount its own (unshare --mount-proc), or start the agent where this /proc is from"};
}

}  // namespace boxo::kernel
