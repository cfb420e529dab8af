// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"errors"
	"math"
	"sync/atomic"
	"time"
)

// ErrTooManySeries says that the bound on custom series is reached (see WithMaxSeries).
var ErrTooManySeries = errors.New("boxoevents: too many custom series")

// Counter is a custom count that only grows. Add costs some 10 ns, allocates nothing and never waits.
// All methods of a nil Counter do nothing.
type Counter struct {
	series *counterSeries
	drops  *counterSeries
}

// Add adds n; a negative n is counted as dropped.
func (c *Counter) Add(n int64) {
	switch {
	case c == nil:
	case c.series == nil || n < 0:
		c.drops.add(1)
	default:
		c.series.add(n)
	}
}

// Inc adds one.
func (c *Counter) Inc() { c.Add(1) }

// Gauge is a custom present value. Set costs a few ns, allocates nothing and never waits.
// All methods of a nil Gauge do nothing.
type Gauge struct {
	series *gaugeSeries
	drops  *counterSeries
}

// Set sets the value; what is not a finite number is counted as dropped.
func (g *Gauge) Set(v float64) {
	switch {
	case g == nil:
	case g.series == nil || !finite(v):
		g.drops.add(1)
	default:
		g.series.set(v)
	}
}

// Timing is a custom distribution of times. Record costs some 30 ns, allocates nothing and never waits.
// All methods of a nil Timing do nothing.
type Timing struct {
	series *sampleSeries
	drops  *counterSeries
	off    atomic.Bool
}

// Record adds one time.
func (t *Timing) Record(d time.Duration) {
	switch {
	case t == nil || t.off.Load():
	case t.series == nil || d < 0:
		t.drops.add(1)
	default:
		t.series.record(milliseconds(d))
	}
}

// Distribution is a custom distribution of values in base units. Its cost is that of Timing.
// All methods of a nil Distribution do nothing.
type Distribution struct {
	series *sampleSeries
	drops  *counterSeries
	off    atomic.Bool
}

// Record adds one value; what is not a finite number is counted as dropped.
func (d *Distribution) Record(v float64) {
	switch {
	case d == nil || d.off.Load():
	case d.series == nil || !finite(v):
		d.drops.add(1)
	default:
		d.series.record(v)
	}
}

// Counter finds or makes the custom counter name ("myapp.requests") with "key:value" tags, which become labels.
// Look it up once and keep it. With an error the result is usable too: what is recorded is counted as dropped.
func (m *PerformanceMonitor) Counter(name string, tags ...string) (*Counter, error) {
	return lookup(&m.custom, "c", name, tags, func(id lineID) any { return &counterSeries{lineID: id} },
		func(s any, drops *counterSeries) *Counter {
			series, _ := s.(*counterSeries)
			return &Counter{series, drops}
		})
}

// Gauge is Counter for a present value.
func (m *PerformanceMonitor) Gauge(name string, tags ...string) (*Gauge, error) {
	return lookup(&m.custom, "g", name, tags,
		func(id lineID) any { return &gaugeSeries{lineID: id, sent: math.NaN()} },
		func(s any, drops *counterSeries) *Gauge {
			series, _ := s.(*gaugeSeries)
			return &Gauge{series, drops}
		})
}

// Timing is Counter for times.
func (m *PerformanceMonitor) Timing(name string, tags ...string) (*Timing, error) {
	return lookup(&m.custom, "ms", name, tags,
		func(id lineID) any { return &sampleSeries{lineID: id, sampleCell: newSampleCell(shardCount)} },
		func(s any, drops *counterSeries) *Timing {
			series, _ := s.(*sampleSeries)
			t := &Timing{series: series, drops: drops}
			m.gate.add(&t.off)
			return t
		})
}

// Distribution is Counter for values in base units, such as bytes.
func (m *PerformanceMonitor) Distribution(name string, tags ...string) (*Distribution, error) {
	return lookup(&m.custom, "h", name, tags,
		func(id lineID) any { return &sampleSeries{lineID: id, sampleCell: newSampleCell(shardCount)} },
		func(s any, drops *counterSeries) *Distribution {
			series, _ := s.(*sampleSeries)
			d := &Distribution{series: series, drops: drops}
			m.gate.add(&d.off)
			return d
		})
}
