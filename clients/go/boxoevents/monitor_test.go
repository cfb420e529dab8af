// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"context"
	"errors"
	"math"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
)

func socketPath(t testing.TB) string {
	return filepath.Join(t.TempDir(), "events.sock")
}

// startMonitor makes a monitor that flushes only when asked, or when it stops.
func startMonitor(t testing.TB, path string, options ...Option) *PerformanceMonitor {
	t.Helper()
	m := NewPerformanceMonitor(append([]Option{WithSocket(path)}, options...)...)
	m.StartCollection(context.Background(), time.Hour)
	t.Cleanup(m.StopCollection)
	return m
}

func flush(t testing.TB, m *PerformanceMonitor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// Every call of the contract gives the contract's event.
func TestEvents(t *testing.T) {
	s := eventstest.New(t, "")
	m := startMonitor(t, s.Path)
	b := m.Bitswap()
	b.RecordRequest()
	b.RecordRequests(2)
	b.RecordResponse(50*time.Millisecond, true)
	b.RecordResponse(1500*time.Microsecond, false)
	b.RecordBlockReceived(false)
	b.RecordBlocksReceived(2, 100, true)
	b.RecordBlockSent()
	b.RecordPeerBlocksSent("p1", 3, 77)
	b.UpdateActiveConnections(10)
	b.UpdateQueuedRequests(3)
	bs := m.Blockstore()
	bs.RecordCacheHit()
	bs.RecordCacheMiss()
	bs.RecordReadOperation(5 * time.Millisecond)
	bs.RecordWriteOperation(10 * time.Millisecond)
	bs.RecordBatchOperation()
	bs.RecordBatch(time.Millisecond, 7)
	bs.UpdateTotalBlocks(1000)
	bs.UpdateCompressionRatio(0.75)
	bs.UpdateStorage(1 << 30)
	bs.UpdateCacheSize(1 << 20)
	n := m.Network()
	n.UpdateActiveConnections(5)
	n.RecordLatency(20 * time.Millisecond)
	n.RecordPeerLatency("peer1", 15*time.Millisecond)
	n.RecordBandwidth(1 << 20)
	n.RecordPeerBandwidth("peer1", 2048)
	n.RecordBytesSent(4096)
	n.RecordBytesReceived(8192)
	n.RecordPeerBytesSent("peer1", 1)
	n.RecordPeerBytesReceived("peer2", 2)
	n.RecordConnectionError()
	n.RecordPeerError("peer1")
	n.RecordPacketsSent(100)
	n.RecordPacketsLost(1)
	r := m.Resource()
	r.UpdateCPUUsage(45.5)
	r.UpdateDiskUsage(1<<30, 10<<30)
	r.RecordGCPause(300 * time.Microsecond)
	flush(t, m)

	s.Wait("heap", func(now *eventstest.Totals) bool { return now.Gauges["resource.heap_bytes"] > 0 })
	s.Check(func(now *eventstest.Totals) {
		for key, want := range map[string]float64{
			"bitswap.requests":                         3,
			"bitswap.blocks_received|#duplicate:false": 1,
			"bitswap.blocks_received|#duplicate:true":  2,
			"exchange.received_bytes|#duplicate:true":  100,
			"bitswap.blocks_sent":                      1,
			"exchange.peer_sent_blocks|#peer:p1":       3,
			"exchange.peer_sent_bytes|#peer:p1":        77,
			"blockstore.cache_hits":                    1,
			"blockstore.cache_misses":                  1,
			"blockstore.batch_operations":              2,
			"network.bytes_sent":                       4096,
			"network.bytes_received":                   8192,
			"network.bytes_sent|#peer:peer1":           1,
			"network.bytes_received|#peer:peer2":       2,
			"network.connection_errors":                1,
			"network.connection_errors|#peer:peer1":    1,
			"network.packets_sent":                     100,
			"network.packets_lost":                     1,
		} {
			if now.Counters[key] != want {
				t.Errorf("%s is %v, not %v", key, now.Counters[key], want)
			}
		}
		for key, want := range map[string]float64{
			"bitswap.active_connections":   10,
			"bitswap.queued_requests":      3,
			"blockstore.total_blocks":      1000,
			"blockstore.compression_ratio": 0.75,
			"blockstore.storage_bytes":     1 << 30,
			"blockstore.cache_size_bytes":  1 << 20,
			"network.active_connections":   5,
			"resource.cpu_usage":           45.5,
			"resource.disk_used_bytes":     1 << 30,
			"resource.disk_total_bytes":    10 << 30,
		} {
			if now.Gauges[key] != want {
				t.Errorf("%s is %v, not %v", key, now.Gauges[key], want)
			}
		}
		for key, want := range map[string]float64{
			"bitswap.response_time|#result:ok":    50,
			"bitswap.response_time|#result:error": 1.5,
			"blockstore.read_time":                5,
			"blockstore.write_time":               10,
			"blocks.batch_time":                   1,
			"blocks.batch_size":                   7,
			"network.latency":                     20,
			"network.latency|#peer:peer1":         15,
			"network.bandwidth":                   1 << 20,
			"network.bandwidth|#peer:peer1":       2048,
			"resource.gc_pause":                   0.3,
		} {
			if got := now.Samples[key]; len(got) == 0 || got[len(got)-1] != want && key != "resource.gc_pause" {
				t.Errorf("%s is %v, not %v", key, got, want)
			}
		}
		if now.Gauges["resource.goroutines"] < 2 {
			t.Errorf("%v goroutines", now.Gauges["resource.goroutines"])
		}
	})
}

// Whatever the number of goroutines and of samples, every count arrives exactly, and so does the number of samples.
func TestConcurrentRecordsAreExact(t *testing.T) {
	s := eventstest.New(t, "")
	m := NewPerformanceMonitor(WithSocket(s.Path))
	b, n := m.Bitswap(), m.Network()
	m.StartCollection(context.Background(), 3*time.Millisecond)
	const goroutines, each = 16, 20000
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			peer := string(rune('a' + g))
			for i := range each {
				b.RecordRequest()
				b.RecordResponse(time.Duration(i)*time.Microsecond, i%10 != 0)
				n.RecordPeerBytesSent(peer, 2)
			}
		}()
	}
	wg.Wait()
	m.StopCollection()
	time.Sleep(50 * time.Millisecond)
	s.Check(func(now *eventstest.Totals) {
		if got := now.Counters["bitswap.requests"]; got != goroutines*each {
			t.Errorf("%v requests, not %v", got, goroutines*each)
		}
		ok, failed := now.Weights["bitswap.response_time|#result:ok"], now.Weights["bitswap.response_time|#result:error"]
		if ok != goroutines*each*9/10 || failed != goroutines*each/10 {
			t.Errorf("%v responses and %v errors of %v", ok, failed, goroutines*each)
		}
		for g := range goroutines {
			if got := now.Counters["network.bytes_sent|#peer:"+string(rune('a'+g))]; got != 2*each {
				t.Errorf("%v bytes sent to one peer, not %v", got, 2*each)
			}
		}
	})
	if dropped := m.Stats().Dropped; len(dropped) > 0 {
		t.Errorf("dropped: %v", dropped)
	}
}

// The sampled choice is fair: the weighted mean is the mean of all.
func TestSamplingIsFair(t *testing.T) {
	s := eventstest.New(t, "")
	m := startMonitor(t, s.Path)
	const n = 200000
	d, err := m.Distribution("test.values")
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		d.Record(float64(i))
	}
	flush(t, m)
	s.Wait("all", func(now *eventstest.Totals) bool { return now.Weights["test.values"] == n })
	s.Check(func(now *eventstest.Totals) {
		values := now.Samples["test.values"]
		if len(values) != shardCount*keptPerShard {
			t.Errorf("%d values sent", len(values))
		}
		var sum float64
		for _, v := range values {
			sum += v
		}
		mean, want := sum/float64(len(values)), float64(n-1)/2
		// The mean of 2048 uniform values has a deviation of 0.64 % of the range.
		if math.Abs(mean-want) > 0.04*n {
			t.Errorf("the mean is %v, not about %v", mean, want)
		}
	})
}

// The agent comes late, goes, and comes again: every count arrives, gauges are told anew.
func TestAgentComesAndGoes(t *testing.T) {
	path := socketPath(t)
	m := NewPerformanceMonitor(WithSocket(path))
	b := m.Bitswap()
	b.UpdateActiveConnections(4)
	m.StartCollection(context.Background(), 5*time.Millisecond)
	defer m.StopCollection()
	b.RecordRequests(100)
	b.RecordResponse(time.Millisecond, true)
	if err := m.Flush(context.Background()); err == nil {
		t.Error("flushed to nobody")
	}

	s := eventstest.New(t, path)
	s.Wait("first", func(now *eventstest.Totals) bool {
		return now.Counters["bitswap.requests"] == 100 && now.Weights["bitswap.response_time|#result:ok"] == 1
	})
	s.Close()
	time.Sleep(20 * time.Millisecond)
	b.RecordRequests(11)
	time.Sleep(20 * time.Millisecond)
	if m.Stats().Connected {
		t.Error("connected to nobody")
	}
	s.Reset()
	s.Listen()
	s.Wait("again", func(now *eventstest.Totals) bool {
		return now.Counters["bitswap.requests"] == 11 && now.Gauges["bitswap.active_connections"] == 4
	})
	s.Check(func(*eventstest.Totals) {})
}

// Without an agent times are no longer collected after a while, and are again when it is there.
func TestOffWithoutAgent(t *testing.T) {
	path := socketPath(t)
	m := NewPerformanceMonitor(WithSocket(path), WithGrace(20*time.Millisecond))
	b := m.Bitswap()
	timing, _ := m.Timing("test.time")
	m.StartCollection(context.Background(), 5*time.Millisecond)
	defer m.StopCollection()
	for deadline := time.Now().Add(5 * time.Second); b.Enabled(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still on")
		}
	}
	b.RecordRequest()
	b.RecordResponse(time.Millisecond, true)
	timing.Record(time.Millisecond)
	s := eventstest.New(t, path)
	s.Wait("the count", func(now *eventstest.Totals) bool { return now.Counters["bitswap.requests"] == 1 })
	if !b.Enabled() {
		t.Error("still off")
	}
	b.RecordResponse(time.Millisecond, true)
	timing.Record(time.Millisecond)
	s.Wait("one time", func(now *eventstest.Totals) bool {
		return now.Weights["bitswap.response_time|#result:ok"] == 1 && now.Weights["test.time"] == 1
	})
}

// An agent that does not read holds up the sender, never a caller; when it reads again nothing is missing.
func TestAgentThatDoesNotRead(t *testing.T) {
	path := socketPath(t)
	s := eventstest.New(t, path)
	resume := s.Stall()
	m := NewPerformanceMonitor(WithSocket(path))
	n := m.Network()
	m.StartCollection(context.Background(), time.Millisecond)
	const rounds = 300
	for range rounds {
		began := time.Now()
		for p := range 64 {
			n.RecordPeerBytesSent("peer"+string(rune('A'+p)), 1)
		}
		n.RecordLatency(time.Millisecond)
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Fatalf("a caller waited %v", took)
		}
		time.Sleep(time.Millisecond)
	}
	resume()
	m.StopCollection()
	s.Wait("all", func(now *eventstest.Totals) bool { return now.Weights["network.latency"] == rounds })
	s.Check(func(now *eventstest.Totals) {
		if got := now.Counters["network.bytes_sent|#peer:peerA"]; got != rounds {
			t.Errorf("%v bytes, not %v", got, rounds)
		}
	})
}

// Stopping while the agent does not read ends soon, and says what was lost.
func TestStopGivesUp(t *testing.T) {
	path := socketPath(t)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Nobody reads there, and the kernel's queue is full.
	other, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(other)
	for err == nil {
		err = syscall.Sendto(other, []byte("x:1|c"), 0, &syscall.SockaddrUnix{Name: path})
	}
	if !errors.Is(err, syscall.EAGAIN) {
		t.Fatal(err)
	}
	m := NewPerformanceMonitor(WithSocket(path))
	m.StartCollection(context.Background(), time.Hour)
	m.Network().RecordBytesSent(1)
	began := time.Now()
	m.StopCollection()
	if took := time.Since(began); took < closeWait || took > 10*closeWait {
		t.Errorf("stopping took %v", took)
	}
	if got := m.Stats().Dropped["closed"]; got != 1 {
		t.Errorf("%v dropped, not the one that was recorded", got)
	}
}

type ownMetrics map[string]any

func (o ownMetrics) CollectMetrics(context.Context) (map[string]any, error) { return o, nil }
func (o ownMetrics) GetMetricNames() []string                               { return nil }

func TestCustomCollectorAndHandles(t *testing.T) {
	s := eventstest.New(t, "")
	m := startMonitor(t, s.Path, WithTags("node:a b,c"), WithMaxSeries(6))
	own := ownMetrics{"custom_requests": int64(7), "load": -1.5, "bad": "text"}
	if err := m.RegisterCollector("myapp", own); err != nil {
		t.Fatal(err)
	}
	if m.RegisterCollector("myapp", own) == nil || m.RegisterCollector("network", own) == nil {
		t.Error("a taken name was accepted")
	}
	c, err := m.Counter("myapp.hits", "route:/x|y")
	if err != nil {
		t.Fatal(err)
	}
	c.Add(5)
	c.Add(-1)
	if again, _ := m.Counter("myapp.hits", "route:/x|y"); again != c {
		t.Error("not the same counter")
	}
	if _, err := m.Gauge("myapp.hits", "route:/x|y"); err == nil {
		t.Error("a counter as a gauge")
	}
	g, _ := m.Gauge("myapp.level")
	g.Set(math.NaN())
	g.Set(-2)
	for _, name := range []string{"bitswap.mine", "network_x.mine", "nodots", "a..b", "sp ace.x", "x.y:z"} {
		if _, err := m.Counter(name); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	if _, err := m.Counter("a.b", "__x:1"); err == nil {
		t.Error("a reserved tag was accepted")
	}
	if _, err := m.Timing("a.b", "le:1"); err == nil {
		t.Error("a reserved tag was accepted")
	}
	flush(t, m)
	own["custom_requests"] = int64(9)
	flush(t, m)
	own["custom_requests"] = int64(1) // it began anew
	flush(t, m)
	for _, name := range []string{"x.a", "x.b"} {
		if _, err := m.Counter(name); err != nil {
			t.Error(err)
		}
	}
	over, err := m.Counter("x.c")
	if !errors.Is(err, ErrTooManySeries) {
		t.Error(err)
	}
	over.Inc()
	flush(t, m)
	s.Wait("drops", func(now *eventstest.Totals) bool {
		return now.Counters["agent.client.dropped|#node:a b_c,reason:series_limit,client:"+m.client] == 1
	})
	s.Check(func(now *eventstest.Totals) {
		if got := now.Counters["myapp.custom_requests|#node:a b_c"]; got != 10 {
			t.Errorf("%v custom requests", got)
		}
		if got := now.Gauges["myapp.load|#node:a b_c"]; got != -1.5 {
			t.Errorf("load %v", got)
		}
		if got := now.Gauges["myapp.level|#node:a b_c"]; got != -2 {
			t.Errorf("level %v", got)
		}
		if got := now.Counters["myapp.hits|#node:a b_c,route:/x_y"]; got != 5 {
			t.Errorf("%v hits", got)
		}
	})
	if got := m.Stats(); got.Dropped["invalid"] < 3 || !strings.Contains(got.LastError.Error(), "myapp.bad") {
		t.Errorf("%+v", got)
	}
}

func TestCollectMetrics(t *testing.T) {
	m := NewPerformanceMonitor(WithSocket("off"))
	m.StartCollection(context.Background(), 0)
	m.Bitswap().RecordRequests(3)
	m.Bitswap().UpdateQueuedRequests(2)
	all, err := m.CollectMetrics(context.Background())
	if err != nil || all["bitswap"]["requests"] != int64(3) || all["bitswap"]["queued_requests"] != 2.0 {
		t.Errorf("%v %v", all, err)
	}
	if m.Bitswap().Enabled() {
		t.Error("on, though the socket is off")
	}
}

func TestContextEndsCollection(t *testing.T) {
	s := eventstest.New(t, "")
	ctx, cancel := context.WithCancel(context.Background())
	m := NewPerformanceMonitor(WithSocket(s.Path))
	m.StartCollection(ctx, time.Hour)
	m.Bitswap().RecordRequest()
	cancel()
	s.Wait("the last flush", func(now *eventstest.Totals) bool { return now.Counters["bitswap.requests"] == 1 })
	m.StopCollection()
	m.StartCollection(context.Background(), time.Hour)
	m.Bitswap().RecordRequest()
	m.StopCollection()
	s.Wait("a second run", func(now *eventstest.Totals) bool { return now.Counters["bitswap.requests"] == 2 })
}

// A poller that hangs delays its own news only.
func TestHangingPoller(t *testing.T) {
	s := eventstest.New(t, "")
	m := NewPerformanceMonitor(WithSocket(s.Path))
	hang := make(chan struct{})
	defer close(hang)
	m.OnFlush(func() { <-hang })
	m.StartCollection(context.Background(), 10*time.Millisecond)
	defer m.StopCollection()
	for i := range 10 {
		m.Bitswap().RecordRequest()
		s.Wait("a count", func(now *eventstest.Totals) bool { return now.Counters["bitswap.requests"] == float64(i+1) })
	}
}
