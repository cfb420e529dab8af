// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"math"
	"time"
)

// counterSeries is one counter with what the agent has been told of it.
type counterSeries struct {
	lineID
	counterCell
	sent int64 // the sender's goroutine only
}

// gaugeSeries is one gauge with what the agent was told last.
type gaugeSeries struct {
	lineID
	gaugeCell
	sent float64 // the sender's goroutine only; NaN: nothing yet
}

// sampleSeries is one distribution, in milliseconds (ms) or base units (h).
type sampleSeries struct {
	lineID
	*sampleCell
	taken uint64 // observations sent so far; the sender's goroutine only
}

func newCounter(name string, tags ...string) *counterSeries {
	return &counterSeries{lineID: lineID{name: name, kind: "c", tags: tagText(tags...)}}
}

func newGauge(name string, tags ...string) *gaugeSeries {
	return &gaugeSeries{lineID: lineID{name: name, kind: "g", tags: tagText(tags...)}, sent: math.NaN()}
}

func newSamples(kind, name string, shards int, tags ...string) *sampleSeries {
	return &sampleSeries{lineID: lineID{name: name, kind: kind, tags: tagText(tags...)}, sampleCell: newSampleCell(shards)}
}

// emit writes what was added since the last time.
func (c *counterSeries) emit(e *encoder) error {
	delta := c.total() - c.sent
	if delta == 0 {
		return nil
	}
	if err := e.counter(&c.lineID, delta); err != nil {
		return err
	}
	c.sent += delta
	return nil
}

// emit writes the value if it is new, or if all are wanted.
func (g *gaugeSeries) emit(e *encoder, all bool) error {
	v, ok := g.get()
	if !ok || (v == g.sent && !all) {
		return nil
	}
	if err := e.gauge(&g.lineID, v); err != nil {
		return err
	}
	g.sent = v
	return nil
}

// emit takes the collected values and writes them. What each stands for is a whole number, so that counts
// stay exact: some stand for k observations, the others for k+1.
func (s *sampleSeries) emit(e *encoder) error {
	for i := range s.shards {
		if e.spare == nil {
			e.spare = make([]float64, 0, keptPerShard)
		}
		kept, seen := s.shards[i].take(e.spare)
		if len(kept) == 0 {
			continue
		}
		e.spare = kept
		s.taken += seen
		n := uint64(len(kept))
		weight, more := seen/n, seen%n
		for j, v := range kept {
			w := weight
			if uint64(j) < more {
				w++
			}
			if err := e.sample(&s.lineID, v, w); err != nil {
				e.lost += int64(len(kept) - j)
				return err
			}
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 {
	return float64(d) / float64(time.Millisecond)
}

// seriesSet is a fixed group of series, sent together.
type seriesSet struct {
	counters []*counterSeries
	gauges   []*gaugeSeries
	samples  []*sampleSeries
}

func (s *seriesSet) counter(name string, tags ...string) *counterSeries {
	c := newCounter(name, tags...)
	s.counters = append(s.counters, c)
	return c
}

func (s *seriesSet) gauge(name string, tags ...string) *gaugeSeries {
	g := newGauge(name, tags...)
	s.gauges = append(s.gauges, g)
	return g
}

func (s *seriesSet) times(name string, tags ...string) *sampleSeries {
	m := newSamples("ms", name, shardCount, tags...)
	s.samples = append(s.samples, m)
	return m
}

func (s *seriesSet) values(name string, tags ...string) *sampleSeries {
	m := newSamples("h", name, shardCount, tags...)
	s.samples = append(s.samples, m)
	return m
}

func (s *seriesSet) emit(e *encoder, all bool) error {
	for _, c := range s.counters {
		if err := c.emit(e); err != nil {
			return err
		}
	}
	for _, g := range s.gauges {
		if err := g.emit(e, all); err != nil {
			return err
		}
	}
	for _, m := range s.samples {
		if err := m.emit(e); err != nil {
			return err
		}
	}
	return nil
}

// describe adds the series' present values to into, under their event names without the namespace.
// Series that differ in tags only are told apart by the tag's value.
func (s *seriesSet) describe(into map[string]any) {
	for _, c := range s.counters {
		into[shortName(&c.lineID)] = c.total()
	}
	for _, g := range s.gauges {
		if v, ok := g.get(); ok {
			into[shortName(&g.lineID)] = v
		}
	}
	for _, m := range s.samples {
		into[shortName(&m.lineID)+"_count"] = m.total()
	}
}

func (s *seriesSet) names() []string {
	var names []string
	for _, c := range s.counters {
		names = append(names, shortName(&c.lineID))
	}
	for _, g := range s.gauges {
		names = append(names, shortName(&g.lineID))
	}
	for _, m := range s.samples {
		names = append(names, shortName(&m.lineID)+"_count")
	}
	return names
}
