// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
	"github.com/ipfs/go-cid"
)

// BenchmarkTransfer moves 16 MiB between two nodes over TCP, with everything on at both and without, in turns, and
// reports how much slower everything makes it: in wall time, and in CPU time, which other load disturbs less.
func BenchmarkTransfer(b *testing.B) {
	const count, size = 64, 256 << 10
	plain := newPair(b, nil, nil)
	agent := eventstest.New(b, "")
	monitor := sending(b, agent)
	watched := newPair(b, monitor, sending(b, eventstest.New(b, "")))
	turn := func(p *pair) (wall, cpu time.Duration) {
		keys := p.from.add(b, count, size)
		began, before := time.Now(), cpuTime(b)
		if got := p.to.fetch(b, keys); got != count {
			b.Fatalf("%d blocks came", got)
		}
		wall, cpu = time.Since(began), cpuTime(b)-before
		p.forget(b, keys)
		return wall, cpu
	}
	turn(plain)
	turn(watched)
	var walls, cpus []float64
	b.SetBytes(2 * count * size)
	b.ResetTimer()
	for i := range b.N {
		var plainWall, plainCPU, wall, cpu time.Duration
		if i%2 == 0 {
			plainWall, plainCPU = turn(plain)
			wall, cpu = turn(watched)
		} else {
			wall, cpu = turn(watched)
			plainWall, plainCPU = turn(plain)
		}
		walls = append(walls, wall.Seconds()/plainWall.Seconds())
		cpus = append(cpus, cpu.Seconds()/plainCPU.Seconds())
	}
	b.ReportMetric(100*(median(walls)-1), "%slower")
	b.ReportMetric(100*(median(cpus)-1), "%more-cpu")
	if err := monitor.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	agent.Wait("a report of every block", func(now *eventstest.Totals) bool {
		return now.Counters["bitswap.blocks_sent"] >= float64((b.N+1)*count)
	})
}

type pair struct{ from, to *node }

func newPair(b *testing.B, from, to *boxoevents.PerformanceMonitor) *pair {
	p := &pair{newNode(b, tcpLoopback, from), newNode(b, tcpLoopback, to)}
	p.to.connect(b, p.from)
	return p
}

func (p *pair) forget(b *testing.B, keys []cid.Cid) {
	for _, key := range keys {
		for _, n := range []*node{p.from, p.to} {
			if err := n.store.DeleteBlock(context.Background(), key); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func sending(b *testing.B, agent *eventstest.Agent) *boxoevents.PerformanceMonitor {
	monitor := boxoevents.NewPerformanceMonitor(boxoevents.WithSocket(agent.Path))
	monitor.Resource()
	monitor.StartCollection(context.Background(), time.Second)
	b.Cleanup(monitor.StopCollection)
	return monitor
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
