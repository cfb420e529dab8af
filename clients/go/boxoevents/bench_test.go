// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
)

// recording measures a call from 8 goroutines at once, with an agent that reads everything.
func recording(b *testing.B, path string, record func(m *PerformanceMonitor) func()) {
	m := NewPerformanceMonitor(WithSocket(path))
	call := record(m)
	m.StartCollection(context.Background(), 100*time.Millisecond)
	defer m.StopCollection()
	call()
	const goroutines = 8
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	began := cpuTime(b)
	for range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range b.N / goroutines {
				call()
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
	// ns/op is wall time, divided over the cores; this is a call's own cost, sending included.
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func BenchmarkRecord(b *testing.B) {
	calls := []struct {
		name string
		call func(m *PerformanceMonitor) func()
	}{
		{"Request", func(m *PerformanceMonitor) func() { c := m.Bitswap(); return c.RecordRequest }},
		{"Response", func(m *PerformanceMonitor) func() {
			c := m.Bitswap()
			return func() { c.RecordResponse(50*time.Millisecond, true) }
		}},
		{"Gauge", func(m *PerformanceMonitor) func() {
			c := m.Bitswap()
			return func() { c.UpdateActiveConnections(10) }
		}},
		{"PeerBytes", func(m *PerformanceMonitor) func() {
			c := m.Network()
			return func() { c.RecordPeerBytesSent("12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo", 4096) }
		}},
		{"PeerLatency", func(m *PerformanceMonitor) func() {
			c := m.Network()
			return func() { c.RecordPeerLatency("12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo", time.Millisecond) }
		}},
		{"Custom", func(m *PerformanceMonitor) func() {
			c, _ := m.Counter("myapp.requests")
			return c.Inc
		}},
	}
	for _, c := range calls {
		b.Run(c.name, func(b *testing.B) {
			s := eventstest.New(b, "")
			recording(b, s.Path, c.call)
		})
	}
	b.Run("ResponseOff", func(b *testing.B) {
		recording(b, "off", func(m *PerformanceMonitor) func() {
			c := m.Bitswap()
			return func() { c.RecordResponse(50*time.Millisecond, true) }
		})
	})
}
