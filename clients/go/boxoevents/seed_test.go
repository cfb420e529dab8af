// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"context"
	"testing"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
)

// requestCollector is a collector of the application's own, as the interface asks for one.
type requestCollector struct{ requestCount int64 }

func (c *requestCollector) CollectMetrics(context.Context) (map[string]interface{}, error) {
	return map[string]interface{}{"custom_requests": c.requestCount}, nil
}

func (c *requestCollector) GetMetricNames() []string { return []string{"custom_requests"} }

// A program that was written for collectors in the process runs as it is: all of their calls exist under the same names,
// and everything they say arrives. Only the page is the agent's, so that there is no registry to serve.
func TestCallsOfTheInProcessCollectors(t *testing.T) {
	s := eventstest.New(t, "")
	t.Setenv("BOXO_EVENTS_SOCKET", s.Path)
	monitor := NewPerformanceMonitor()
	bitswap, blockstore, network, resource := NewBitswapCollector(), NewBlockstoreCollector(), NewNetworkCollector(), NewResourceCollector()
	for name, collector := range map[string]Collector{
		"bitswap": bitswap, "blockstore": blockstore, "network": network, "resource": resource,
		"myapp": &requestCollector{requestCount: 7},
	} {
		if err := monitor.RegisterCollector(name, collector); err != nil {
			t.Fatal(err)
		}
	}
	monitor.StartCollection(context.Background(), 5*time.Second)

	bitswap.RecordRequest()
	bitswap.RecordResponse(50*time.Millisecond, true)
	bitswap.RecordBlockReceived(false)
	bitswap.RecordBlockSent()
	bitswap.UpdateActiveConnections(10)
	bitswap.UpdateQueuedRequests(3)
	blockstore.RecordCacheHit()
	blockstore.RecordCacheMiss()
	blockstore.RecordReadOperation(5 * time.Millisecond)
	blockstore.RecordWriteOperation(10 * time.Millisecond)
	blockstore.RecordBatchOperation()
	blockstore.UpdateTotalBlocks(1000)
	blockstore.UpdateCompressionRatio(0.75)
	network.UpdateActiveConnections(5)
	network.RecordLatency(20 * time.Millisecond)
	network.RecordBandwidth(1024 * 1024)
	network.RecordPeerLatency("peer1", 15*time.Millisecond)
	network.RecordBytesSent(4096)
	network.RecordBytesReceived(512)
	network.RecordConnectionError()
	resource.UpdateCPUUsage(45.5)
	resource.UpdateDiskUsage(1024*1024*1024, 10*1024*1024*1024)

	metrics, err := resource.CollectMetrics(context.Background())
	if err != nil || len(metrics) == 0 {
		t.Errorf("%v, %v", metrics, err)
	}
	all, err := monitor.CollectMetrics(context.Background())
	if err != nil || len(all) != 5 {
		t.Errorf("%d collectors, %v", len(all), err)
	}
	monitor.StopCollection()

	s.Wait("the last of it", func(now *eventstest.Totals) bool { return now.Counters["myapp.custom_requests"] == 7 })
	s.Check(func(now *eventstest.Totals) {
		for name, want := range map[string]float64{
			"bitswap.requests": 1, "bitswap.blocks_received|#duplicate:false": 1, "bitswap.blocks_sent": 1,
			"blockstore.cache_hits": 1, "blockstore.cache_misses": 1, "blockstore.batch_operations": 1,
			"network.bytes_sent": 4096, "network.bytes_received": 512, "network.connection_errors": 1,
		} {
			if got := now.Counters[name]; got != want {
				t.Errorf("counter %s: %v, not %v", name, got, want)
			}
		}
		for name, want := range map[string]float64{
			"bitswap.active_connections": 10, "bitswap.queued_requests": 3, "blockstore.total_blocks": 1000,
			"blockstore.compression_ratio": 0.75, "network.active_connections": 5, "resource.cpu_usage": 45.5,
			"resource.disk_used_bytes": 1 << 30, "resource.disk_total_bytes": 10 << 30,
		} {
			if got := now.Gauges[name]; got != want {
				t.Errorf("gauge %s: %v, not %v", name, got, want)
			}
		}
		for name, want := range map[string]float64{
			"bitswap.response_time|#result:ok": 50, "blockstore.read_time": 5, "blockstore.write_time": 10,
			"network.latency": 20, "network.latency|#peer:peer1": 15, "network.bandwidth": 1 << 20,
		} {
			if got := now.Samples[name]; len(got) != 1 || got[0] != want {
				t.Errorf("samples %s: %v, not %v", name, got, want)
			}
		}
	})
}
