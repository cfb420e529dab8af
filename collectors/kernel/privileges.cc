// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/privileges.h"

#include <linux/capability.h>
#include <sys/stat.h>

#include <cstdlib>

#include "collectors/fd.h"
#include "collectors/process_id.h"

namespace boxo::kernel {

bool has_capability(int number) {
  const auto self = Dir::open("/proc/thread-self");
  if (!self) return false;
  const auto status = self->read("status");
  if (!status) return false;
  const std::size_t at = status->find("\nCapEff:");
  if (at == std::string::npos) return false;
  return (std::strtoull(status->c_str() + at + 8, nullptr, 16) >> number & 1) != 0;
}

std::string locked_down() {
  const auto security = Dir::open("/sys/kernel/security");
  if (!security) return {};
  const auto level = security->read("lockdown");
  if (!level || level->find("[confidentiality]") == std::string::npos) return {};
  return "the kernel is locked down for confidentiality: boot it with lockdown=integrity or none";
}

std::string missing_for_cgroup() {
  if (has_capability(CAP_NET_ADMIN) || has_capability(CAP_SYS_ADMIN)) return {};
  return "only with CAP_NET_ADMIN, which counting in the target's cgroup needs: give it, or leave the probe out by --no-probe";
}

std::string missing_privileges() {
  struct stat users {};
  if (::stat("/proc/self/ns/user", &users) == 0 && users.st_ino != kFirstUserNamespace)
    return "not permitted: the agent is in a user namespace, where no capability is enough for eBPF: start it outside "
           "(hostUsers: true, a runtime that is not rootless, PrivateUsers=no)";
  const bool admin = has_capability(CAP_SYS_ADMIN);
  const bool bpf = admin || has_capability(CAP_BPF), perfmon = admin || has_capability(CAP_PERFMON);
  if (!bpf || !perfmon)
    return std::string("not permitted: give the agent ") +
           (!bpf && !perfmon ? "CAP_BPF and CAP_PERFMON" : !bpf ? "CAP_BPF" : "CAP_PERFMON") +
           " (or CAP_SYS_ADMIN before Linux 5.8)";
  if (!has_capability(CAP_SYS_RESOURCE))
    return "not permitted in spite of CAP_BPF and CAP_PERFMON: a seccomp filter, kernel lockdown, or before Linux 5.11 "
           "a small RLIMIT_MEMLOCK (then give CAP_SYS_RESOURCE too)";
  return "not permitted in spite of all capabilities: a seccomp filter or kernel lockdown";
}

}  // namespace boxo::kernel
