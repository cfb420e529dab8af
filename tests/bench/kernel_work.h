// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

namespace boxo::kernel {

/// Work for the probes of files, memory and tasks: each does a round of it and returns the CPU nanoseconds of one operation.
double small_reads();   ///< a byte of a file, from the page cache
double small_writes();  ///< 512 bytes, into the page cache
double misses();        ///< a byte of a page that is not in the cache, of a file without content: no disk is needed
double fsyncs();        ///< a byte and an fsync
double faults();        ///< the first write to a page of anonymous memory
double threads();       ///< a thread that is made and ends
double signals();       ///< a signal to the process itself

}  // namespace boxo::kernel
