// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import "sync/atomic"

const maxPeerName = 128

func peerTag(peer string) string {
	return "peer:" + peer[:min(len(peer), maxPeerName)]
}

// peerCounter is a counter of one peer: not sharded, because there are many and each is added to seldom.
type peerCounter struct {
	lineID
	n    atomic.Int64
	sent int64 // the sender's goroutine only
}

func newPeerCounter(name, tag string) *peerCounter {
	return &peerCounter{lineID: lineID{name: name, kind: "c", tags: tagText(tag)}}
}

func (c *peerCounter) addPositive(n int64) {
	if n > 0 {
		c.n.Add(n)
	}
}

// emitCounters writes what was added, and says whether there was any.
func emitCounters(e *encoder, counters ...*peerCounter) (active bool, err error) {
	for _, c := range counters {
		delta := c.n.Load() - c.sent
		if delta == 0 {
			continue
		}
		if err := e.counter(&c.lineID, delta); err != nil {
			return active, err
		}
		c.sent += delta
		active = true
	}
	return active, nil
}

// lazySamples makes its series when the first value comes: most peers never have one.
type lazySamples struct {
	kind, name, tag string
	series          atomic.Pointer[sampleSeries]
}

func (l *lazySamples) record(v float64) {
	s := l.series.Load()
	for s == nil {
		l.series.CompareAndSwap(nil, newSamples(l.kind, l.name, 1, l.tag))
		s = l.series.Load()
	}
	s.record(v)
}

func (l *lazySamples) emit(e *encoder) (active bool, err error) {
	s := l.series.Load()
	if s == nil {
		return false, nil
	}
	taken := s.taken
	err = s.emit(e)
	return s.taken != taken, err
}
