// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument_test

import (
	"context"
	"fmt"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/boxo-agent/boxo-agent/clients/go/instrument"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/metrics"
)

// A whole node, reported.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	monitor := boxoevents.NewPerformanceMonitor()

	bandwidth := metrics.NewBandwidthCounter()
	host, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.BandwidthReporter(bandwidth))
	if err != nil {
		panic(err)
	}
	defer host.Close()
	instrument.WatchHost(monitor, host, bandwidth)

	store := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	store = instrument.WrapBlockstore(monitor, store)

	swap := bitswap.New(ctx, bsnet.NewFromIpfsHost(host), nil, store, bitswap.WithTracer(instrument.NewPeerTracer(monitor)))
	instrument.WatchBitswap(monitor, swap, host)
	service := blockservice.New(store, instrument.WrapExchange(monitor, swap))
	defer service.Close()

	monitor.Resource() // the Go runtime's numbers
	monitor.StartCollection(ctx, 0)
	defer monitor.StopCollection()

	block := blocks.NewBlock([]byte("hello"))
	_ = service.AddBlock(ctx, block)
	_, _ = service.GetBlock(ctx, block.Cid())

	counts, _ := monitor.Blockstore().CollectMetrics(ctx)
	fmt.Println("writes", counts["write_time_count"], "reads", counts["read_time_count"], "hits", counts["cache_hits"])
	// Output: writes 1 reads 1 hits 1
}
