// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <doctest/doctest.h>

#include "collectors/kernel/libbpf.h"
#include "collectors/kernel/privileges.h"

namespace boxo::test {

/// Whether probes can be loaded here; says so if not.
inline bool can_load() {
  using namespace boxo::kernel;
  if (has_capability(39) && has_capability(38) && KernelTypes::read()) return true;
  MESSAGE("skipped: needs CAP_BPF, CAP_PERFMON and a kernel with BTF");
  return false;
}

}  // namespace boxo::test
