// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string>

namespace boxo::kernel {

/// Whether this thread has the capability (its number, CAP_…) in its effective set.
bool has_capability(int number);

/// Why no probe may read the kernel's memory (Linux 5.4 and later, locked down for confidentiality); empty if it may, or
/// if that cannot be read here.
std::string locked_down();

/// What a program that counts in a cgroup needs and this thread has not; empty if it has it.
std::string missing_for_cgroup();

/// Why the kernel said EPERM to bpf(2), and the mend.
std::string missing_privileges();

}  // namespace boxo::kernel
