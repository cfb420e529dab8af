// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include "collectors/kernel/description.h"
#include "collectors/kernel/probe.h"
#include "tests/unit/kernel_helpers.h"

using namespace boxo;
using namespace boxo::kernel;

TEST_CASE("no probe is slower than this kernel could have it, and each can do without") {
  if (!test::can_load()) return;
  const auto types = KernelTypes::read();
  LoadContext context;
  context.types = &*types;
  LoadContext without = context;
  without.casts = false;
  for (const Description& description : descriptions()) {
    const auto probe = Probe::load(description, context);
    if (!probe) continue;  // which has tests of its own
    INFO(description.object.name << ": " << (probe->slower() ? probe->slower()->text() : ""));
    CHECK_FALSE(probe->slower());
    // Which is what older kernels get.
    const auto plain = Probe::load(description, without);
    CHECK((plain ? "" : plain.error().text()) == "");
  }
}
