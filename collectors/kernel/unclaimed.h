// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include "collectors/kernel/probe.h"
#include "collectors/kernel_reader.h"

namespace boxo::kernel {

/// What bpf/endings.bpf.c has added up so far. `probe` is the loaded one.
Result<> read_unclaimed(const Probe& probe, Used& out);

}  // namespace boxo::kernel
