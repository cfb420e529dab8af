// SPDX-License-Identifier: MIT OR Apache-2.0

// Sends known numbers through datadog-go, as its documentation shows it: with aggregation and telemetry on.
package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
)

func main() {
	client, err := statsd.New(os.Args[1], statsd.WithTags([]string{"client:go"}), statsd.WithExtendedClientSideAggregation())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var senders sync.WaitGroup
	for i := 0; i < 4; i++ {
		senders.Add(1)
		go func() {
			defer senders.Done()
			for n := 0; n < 25000; n++ {
				_ = client.Incr("bitswap.requests", nil, 1)
				if n%25 == 0 {
					_ = client.Timing("bitswap.response_time", time.Duration(n%100)*time.Millisecond, []string{"result:ok"}, 1)
					_ = client.Distribution("myapp.size", float64(n), nil, 1)
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	senders.Wait()
	_ = client.Gauge("blockstore.total_blocks", 1000, nil, 1)
	_ = client.Count("network.bytes_sent", 4096, []string{"peer:12D3KooWGo"}, 1)
	_ = client.Set("myapp.users", "someone", nil, 1)
	_ = client.SimpleEvent("title", "text")
	_ = client.SimpleServiceCheck("myapp.up", statsd.Ok)
	if err := client.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
