// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include "collectors/kernel/probe.h"

namespace boxo::kernel {

/// CPU time of a probe's programs, made of how often they ran and how long the timed runs among them took. Without the
/// kernel's own part in calling them, which is some 20 ns a run.
class RunTime {
 public:
  /// Takes in what has been added since the last call; never goes back.
  void update(const RunStats& now) {
    if (now.sampled > last_.sampled)
      per_run_ = static_cast<double>(now.sampled_nanoseconds - last_.sampled_nanoseconds) /
                 static_cast<double>(now.sampled - last_.sampled);
    seconds_ += static_cast<double>(now.runs - last_.runs) * per_run_ * 1e-9;
    last_ = now;
  }
  double seconds() const { return seconds_; }

 private:
  RunStats last_;
  double per_run_ = 0;
  double seconds_ = 0;
};

}  // namespace boxo::kernel
