// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include "collectors/fd.h"
#include "collectors/result.h"

namespace boxo::kernel {

/// Whether `proc` numbers processes as the agent's own system calls do. Where it does not, the probes cannot be told whose
/// events to count: the kernel's iterators show only processes of the agent's own pid namespace, and a number of this
/// /proc is another process's there, or nobody's.
Result<> numbers_as_agent(const Dir& proc);

}  // namespace boxo::kernel
