// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"sync"
	"sync/atomic"
)

// gate is one switch for all the collectors of a monitor.
type gate struct {
	mu       sync.Mutex
	off      bool
	switches []*atomic.Bool
}

func (g *gate) add(off *atomic.Bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.switches = append(g.switches, off)
	off.Store(g.off)
}

func (g *gate) set(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.off == !on {
		return
	}
	g.off = !on
	for _, off := range g.switches {
		off.Store(!on)
	}
}
