// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/reading.h"

#include "collectors/members.h"

namespace boxo {

bool ended(const Process& process, const Error& error) {
  // A thread has ended, which need not be the last one.
  if (error.code == ESRCH) return !runs_headless(process);
  // A kernel without the file answers ENOENT as well; `stat` is always there while the process is.
  if (error.code != ENOENT && error.code != ENOTDIR) return false;
  return !is_there(process);
}

std::string reason(const Error& error) {
  if (!error.hint.empty()) return error.text();
  if (error.code == EACCES || error.code == EPERM)
    return error.message + ": run as the target's user, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";
  if (error.code == EMFILE || error.code == ENFILE)
    return error.message + ": raise how many the agent may open (ulimit -Hn, LimitNOFILE=)";
  // A file of a process or a group is named from there. Whole paths may be wrong, groups gone.
  const bool of_kernel = !error.message.starts_with('/') && error.message.find(' ') > error.message.find(':');
  if (error.code == ENOENT && of_kernel) return error.message + ": this kernel does not have it";
  return error.text();
}

std::string with_labels(std::string_view metric, const Labels& labels) {
  std::string name(metric);
  for (const Label& label : labels) name += (&label == labels.data() ? "{" : ",") + label.name + "=\"" + label.value + "\"";
  return labels.empty() ? name : name + "}";
}

}  // namespace boxo
