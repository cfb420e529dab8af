// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <vector>

#include "collectors/collector.h"

namespace boxo {

/// Every collector of this build, in the order in which they run. Generated from the names in the rooms' meson.build.
std::vector<const CollectorInfo*> catalogue();

}  // namespace boxo
