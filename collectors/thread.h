// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

namespace boxo {

/// First call of every thread that only handles input from outside: names the thread (at most 15 characters), and gives
/// up all its capabilities for good. Capabilities belong to a thread, so the others keep theirs.
void enter_unprivileged_thread(const char* name);

}  // namespace boxo
