// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/reading.h"

#include "collectors/members.h"

namespace boxo::host {

bool ended(const Process& process, const Error& error) {
  if (error.code == ESRCH) return true;
  // A kernel without the file answers ENOENT as well; `stat` is always there while the process is.
  if (error.code != ENOENT && error.code != ENOTDIR) return false;
  return !is_there(process);
}

std::string reason(const Error& error) {
  if (!error.hint.empty()) return error.text();
  if (error.code == EACCES || error.code == EPERM)
    return error.message + ": run as the target's user, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";
  if (error.code == ENOENT) return error.message + ": this kernel does not have it";
  return error.text();
}

}  // namespace boxo::host
