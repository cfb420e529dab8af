// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"context"
	"sync/atomic"
	"time"
)

// base is what the built-in collectors share.
type base struct {
	off      atomic.Bool
	attached atomic.Bool
	set      seriesSet
}

func (b *base) attach(g *gate) bool {
	if b.attached.Swap(true) {
		return false
	}
	g.add(&b.off)
	return true
}

// Enabled says whether times are collected at present. Where there is no agent they are not, and a caller
// that asks here first need not read the clock. It costs about 1 ns.
func (b *base) Enabled() bool { return !b.off.Load() }

// CollectMetrics returns the counts since the start and the present values, by event name without namespace.
func (b *base) CollectMetrics(context.Context) (map[string]any, error) {
	values := map[string]any{}
	b.set.describe(values)
	return values, nil
}

// GetMetricNames returns the keys that CollectMetrics can give.
func (b *base) GetMetricNames() []string { return b.set.names() }

func (b *base) poll() {}

func (b *base) emit(e *encoder, all bool, _ time.Time) error { return b.set.emit(e, all) }

// recordTime adds a time to a distribution, unless times are not wanted or d is none.
func (b *base) recordTime(s *sampleSeries, d time.Duration) {
	if !b.off.Load() && d >= 0 {
		s.record(milliseconds(d))
	}
}
