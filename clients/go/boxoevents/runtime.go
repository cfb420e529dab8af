// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// keptPauses is how many pauses the runtime remembers.
const keptPauses = 256

// runtimeReader reads the Go runtime's numbers without stopping the world: some 10 µs a reading.
type runtimeReader struct {
	mu      sync.Mutex
	samples []metrics.Sample
	stats   debug.GCStats
	cycles  int64
}

type runtimeNumbers struct {
	goroutines, heapBytes uint64
	newCycles             int64
	newPauses             []time.Duration // of the new cycles, the latest first; valid until the next reading
}

func newRuntimeReader() *runtimeReader {
	return &runtimeReader{
		samples: []metrics.Sample{
			{Name: "/memory/classes/heap/objects:bytes"},
		},
		// Room enough that ReadGCStats need not allocate: it fetches pauses and their ends in one slice.
		stats: debug.GCStats{Pause: make([]time.Duration, 0, 2*keptPauses+3)},
	}
}

func (r *runtimeReader) read() runtimeNumbers {
	r.mu.Lock()
	defer r.mu.Unlock()
	metrics.Read(r.samples)
	debug.ReadGCStats(&r.stats)
	now := runtimeNumbers{
		// Not /sched/goroutines, which since Go 1.26 counts the runtime's own too.
		goroutines: uint64(runtime.NumGoroutine()),
		heapBytes:  r.samples[0].Value.Uint64(),
		newCycles:  r.stats.NumGC - r.cycles,
	}
	now.newPauses = r.stats.Pause[:min(now.newCycles, int64(len(r.stats.Pause)))]
	r.cycles = r.stats.NumGC
	return now
}
