// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// keptPerShard bounds what one flush interval keeps. Beyond it the samples are a fair choice of all that were
// recorded, each with its weight, so that their number stays exact.
const keptPerShard = 256

// sampleCell collects observations until the next flush takes them. Recording never waits: a shard that another
// goroutine holds is passed over, and when the next one is held too, only the weight of the observation is kept.
type sampleCell struct {
	shards []sampleShard // their number is a power of two
}

type sampleShard struct {
	mu    sync.Mutex
	seen  uint64 // observations that kept stands for, without unkept
	taken uint64 // observations that take has handed over
	kept  []float64
	// unkept counts observations that met a held lock: they add to the weight of the kept ones.
	unkept atomic.Uint64
	_      [cacheLine]byte
}

func newSampleCell(shards int) *sampleCell {
	return &sampleCell{shards: make([]sampleShard, shards)}
}

func (s *sampleCell) record(v float64) {
	r := rand.Uint64() // the low half chooses the shard, the high half the place
	mask := uint32(len(s.shards) - 1)
	i := uint32(r) & mask
	sh := &s.shards[i]
	if !sh.mu.TryLock() {
		sh = &s.shards[(i+1)&mask]
		if !sh.mu.TryLock() {
			sh.unkept.Add(1)
			return
		}
	}
	sh.put(v, r>>32)
	sh.mu.Unlock()
}

// put keeps the first values, then lets each later one take a random place with the right probability.
// random is uniform in 32 bits.
func (sh *sampleShard) put(v float64, random uint64) {
	sh.seen++
	if len(sh.kept) < keptPerShard {
		if sh.kept == nil {
			sh.kept = make([]float64, 0, keptPerShard)
		}
		sh.kept = append(sh.kept, v)
		return
	}
	if j := random * (sh.seen & (1<<32 - 1)) >> 32; j < keptPerShard {
		sh.kept[j] = v
	}
}

// take swaps the kept values with spare (empty, of capacity keptPerShard) and says how many they stand for.
func (sh *sampleShard) take(spare []float64) (kept []float64, seen uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(sh.kept) == 0 {
		return nil, 0
	}
	kept, seen = sh.kept, sh.seen+sh.unkept.Swap(0)
	sh.kept, sh.seen = spare[:0], 0
	sh.taken += seen
	return kept, seen
}

// total is the number of observations since the start.
func (s *sampleCell) total() uint64 {
	var sum uint64
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sum += sh.seen + sh.taken + sh.unkept.Load()
		sh.mu.Unlock()
	}
	return sum
}
