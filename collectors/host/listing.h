// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include "collectors/fd.h"
#include "collectors/result.h"

namespace boxo::host {

/// Calls each(n) for every entry of `dir` whose name is the number n (processes, threads, descriptors), in
/// the order of the directory. Rewinds `dir` first, so that one descriptor serves for ever.
Result<> list_numbers(const Dir& dir, const std::function<void(std::uint32_t)>& each);

}  // namespace boxo::host
