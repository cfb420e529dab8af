// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/privileges.h"

#include <cap-ng.h>
#include <sys/prctl.h>

#include <array>
#include <vector>

namespace boxo {

namespace {

// What each is for stands in docs/privileges.md. The numbers are those of linux/capability.h: libcap-ng of an older
// system may not know the names.
constexpr std::array<unsigned, 4> kNeeded = {CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH};

}  // namespace

Result<> drop_privileges(KeepPrivileges also) {
  std::vector<unsigned> keep;
  std::vector<unsigned> wanted(kNeeded.begin(), kNeeded.end());
  // Where CAP_SYS_ADMIN stands in for what later kernels split off, it is what the probes live on.
  const auto has = [](unsigned capability) { return capng_have_capability(CAPNG_PERMITTED, capability) == 1; };
  if (also.admin || !has(CAP_BPF) || !has(CAP_PERFMON)) wanted.push_back(CAP_SYS_ADMIN);
  if (also.network) wanted.push_back(CAP_NET_ADMIN);
  if (also.kill) wanted.push_back(CAP_KILL);
  for (const unsigned capability : wanted)
    if (has(capability)) keep.push_back(capability);
  // The bounding set can be changed only with CAP_SETPCAP; without it there is little to lose.
  const auto sets = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) == 1 ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS;
  capng_clear(CAPNG_SELECT_BOTH);
  for (const unsigned capability : keep)
    capng_update(CAPNG_ADD, static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET),
                 capability);
  if (capng_apply(sets) != 0) return errno_error("cannot drop capabilities");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno_error("cannot set no_new_privs");
  return {};
}

std::string privileges_left() {
  capng_get_caps_process();
  std::string names;
  for (unsigned capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if (capng_have_capability(CAPNG_EFFECTIVE, capability) != 1) continue;
    std::string name = capng_capability_to_name(capability);
    for (char& c : name) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
    names += (names.empty() ? "CAP_" : ", CAP_") + name;
  }
  return names.empty() ? "none" : names;
}

}  // namespace boxo
