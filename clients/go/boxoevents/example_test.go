// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents_test

import (
	"context"
	"fmt"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
)

func Example() {
	monitor := boxoevents.NewPerformanceMonitor()
	bitswap := boxoevents.NewBitswapCollector()
	blockstore := boxoevents.NewBlockstoreCollector()
	_ = monitor.RegisterCollector("bitswap", bitswap)
	_ = monitor.RegisterCollector("blockstore", blockstore)
	monitor.StartCollection(context.Background(), time.Second)
	defer monitor.StopCollection()

	bitswap.RecordRequest()
	bitswap.RecordResponse(50*time.Millisecond, true)
	bitswap.RecordBlockReceived(false)
	bitswap.UpdateActiveConnections(10)
	blockstore.RecordCacheMiss()
	blockstore.RecordWriteOperation(10 * time.Millisecond)

	all, _ := monitor.CollectMetrics(context.Background())
	fmt.Println(all["bitswap"]["requests"], all["bitswap"]["response_time_ok_count"], all["blockstore"]["cache_misses"])
	// Output: 1 1 1
}

// A fetch that is timed by hand, where no wrapper of the module instrument fits.
func ExampleBitswapCollector_RecordResponse() {
	bitswap := boxoevents.NewBitswapCollector()
	fetch := func() error { return nil }

	bitswap.RecordRequest()
	began := time.Now()
	err := fetch()
	bitswap.RecordResponse(time.Since(began), err == nil)

	counts, _ := bitswap.CollectMetrics(context.Background())
	fmt.Println(counts["response_time_ok_count"], counts["response_time_error_count"])
	// Output: 1 0
}

// Metrics of your own: boxo_myapp_uploads_total{kind="car"} and boxo_myapp_upload_time_seconds at the agent.
func ExamplePerformanceMonitor_Counter() {
	monitor := boxoevents.NewPerformanceMonitor()
	uploads, err := monitor.Counter("myapp.uploads", "kind:car")
	if err != nil {
		fmt.Println(err)
	}
	took, err := monitor.Timing("myapp.upload_time")
	if err != nil {
		fmt.Println(err)
	}
	uploads.Inc()
	took.Record(120 * time.Millisecond)

	_, err = monitor.Counter("bitswap.uploads")
	fmt.Println(err)
	// Output: boxoevents: "bitswap" is a built-in namespace
}

type queue struct{ length, served int }

func (q *queue) CollectMetrics(context.Context) (map[string]any, error) {
	return map[string]any{
		"served": q.served,                // a whole number: a count since the start
		"length": float64(q.length),       // a floating-point number: a present value
		"oldest": 1500 * time.Millisecond, // a present value in seconds
	}, nil
}

func (q *queue) GetMetricNames() []string { return []string{"served", "length", "oldest"} }

// A collector of your own is asked before each flush.
func ExamplePerformanceMonitor_RegisterCollector() {
	monitor := boxoevents.NewPerformanceMonitor()
	fmt.Println(monitor.RegisterCollector("queue", &queue{length: 3, served: 40}))
	fmt.Println(monitor.RegisterCollector("network", &queue{}))
	// Output:
	// <nil>
	// boxoevents: "network" is a built-in namespace
}
