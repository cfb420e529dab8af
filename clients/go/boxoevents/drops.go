// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

// The reasons for which a record does not reach the agent.
var dropReasons = []string{"closed", "invalid", "series_limit"}

// dropCounts counts what is lost, by reason, and tells the agent.
type dropCounts struct {
	set    seriesSet
	byName map[string]*counterSeries
}

func (d *dropCounts) init(client string) {
	d.byName = map[string]*counterSeries{}
	for _, reason := range dropReasons {
		d.byName[reason] = d.set.counter("agent.client.dropped", "reason:"+reason, "client:"+client)
	}
}

func (d *dropCounts) add(reason string, n int64) {
	d.byName[reason].add(n)
}

func (d *dropCounts) emit(e *encoder) error {
	return d.set.emit(e, false)
}

func (d *dropCounts) snapshot() map[string]uint64 {
	counts := map[string]uint64{}
	for reason, c := range d.byName {
		if n := c.total(); n > 0 {
			counts[reason] = uint64(n)
		}
	}
	return counts
}
