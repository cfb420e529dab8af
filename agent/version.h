// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

namespace boxo {

extern const char* const kVersion;
extern const char* const kRevision;  ///< of the source: a short git hash, "unknown" outside a checkout

}  // namespace boxo
