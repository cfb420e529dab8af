// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/bench/kernel_place.h"

namespace boxo::kernel {

/// What a round of work took.
struct Cost {
  double nanoseconds = 0;  ///< of CPU time, of the process and its children
  double events = 0;
};

/// One row of the table: a kind of event, and the probes that have a program at it.
struct Work {
  std::string event;
  std::vector<std::string> probes;
  std::function<Cost()> round;
};

/// All of them. Each is done in a process of its own.
std::vector<Work> all_work(const Place& place);

}  // namespace boxo::kernel
