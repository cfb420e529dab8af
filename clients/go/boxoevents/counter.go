// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
)

const (
	shardCount = 8 // a power of two: goroutines on different cores rarely meet on one cache line
	cacheLine  = 64
)

// counterCell is a count that only grows, spread over cache lines so that many goroutines add at once.
// The zero value is ready.
type counterCell struct {
	shards [shardCount]struct {
		n atomic.Int64
		_ [cacheLine - 8]byte
	}
}

func (c *counterCell) add(n int64) {
	c.shards[rand.Uint32()&(shardCount-1)].n.Add(n)
}

func (c *counterCell) addPositive(n int64) {
	if n > 0 {
		c.add(n)
	}
}

func (c *counterCell) total() int64 {
	var sum int64
	for i := range c.shards {
		sum += c.shards[i].n.Load()
	}
	return sum
}

// unset is the NaN whose bits stand for "never set"; a NaN that a caller passes is refused before it gets here.
const unset = 0x7ff8_dead_beef_0001

// gaugeCell holds the last value, or none. The zero value holds none.
type gaugeCell struct {
	bits atomic.Uint64 // of the value, XORed with unset, so that a zero word means none
}

func (g *gaugeCell) set(v float64) {
	g.bits.Store(math.Float64bits(v) ^ unset)
}

func (g *gaugeCell) get() (v float64, ok bool) {
	bits := g.bits.Load()
	return math.Float64frombits(bits ^ unset), bits != 0
}
