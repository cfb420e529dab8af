// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
)

// node is one IPFS node: real sockets on the loopback, blocks in memory.
type node struct {
	host      host.Host
	bandwidth *metrics.BandwidthCounter
	data      *countingDatastore
	swap      *bitswap.Bitswap
	store     blockstore.Blockstore
	exchange  exchange.Interface
	service   blockservice.BlockService
}

// newNode makes a node; with a monitor, everything of it is reported.
func newNode(t testing.TB, listen string, monitor *boxoevents.PerformanceMonitor) *node {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{bandwidth: metrics.NewBandwidthCounter(), data: &countingDatastore{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}}
	var err error
	n.host, err = libp2p.New(libp2p.ListenAddrStrings(listen), libp2p.BandwidthReporter(n.bandwidth))
	if err != nil {
		t.Fatal(err)
	}
	n.store = blockstore.NewIdStore(blockstore.NewBlockstore(n.data))
	var options []bitswap.Option
	if monitor != nil {
		n.store = WrapBlockstore(monitor, n.store)
		options = append(options, bitswap.WithTracer(NewPeerTracer(monitor)),
			bitswap.WithClientOption(client.WithTraceBlock(true)))
	}
	n.swap = bitswap.New(ctx, bsnet.NewFromIpfsHost(n.host), nil, n.store, options...)
	n.exchange = n.swap
	if monitor != nil {
		WatchBitswap(monitor, n.swap, n.host)
		WatchHost(monitor, n.host, n.bandwidth)
		n.exchange = WrapExchange(monitor, n.swap)
	}
	n.service = blockservice.New(n.store, n.exchange)
	t.Cleanup(func() {
		_ = n.service.Close()
		_ = n.host.Close()
		cancel()
	})
	return n
}

func (n *node) connect(t testing.TB, to *node) {
	t.Helper()
	if err := n.host.Connect(context.Background(), peer.AddrInfo{ID: to.host.ID(), Addrs: to.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// add stores count random blocks of a size.
func (n *node) add(t testing.TB, count, size int) []cid.Cid {
	t.Helper()
	keys := make([]cid.Cid, 0, count)
	for range count {
		data := make([]byte, size)
		if _, err := rand.Read(data); err != nil {
			t.Fatal(err)
		}
		block := blocks.NewBlock(data)
		if err := n.service.AddBlock(context.Background(), block); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, block.Cid())
	}
	return keys
}

// fetch gets all keys through a session, and returns how many came.
func (n *node) fetch(t testing.TB, keys []cid.Cid) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	came := 0
	for range blockservice.NewSession(ctx, n.service).GetBlocks(ctx, keys) {
		came++
	}
	return came
}

// watched makes an agent and a monitor that sends to it when asked.
func watched(t testing.TB) (*eventstest.Agent, *boxoevents.PerformanceMonitor) {
	t.Helper()
	agent := eventstest.New(t, "")
	monitor := boxoevents.NewPerformanceMonitor(boxoevents.WithSocket(agent.Path))
	monitor.StartCollection(context.Background(), time.Hour)
	t.Cleanup(monitor.StopCollection)
	return agent, monitor
}

func flush(t testing.TB, monitor *boxoevents.PerformanceMonitor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := monitor.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// eventually flushes until the sums are such.
func eventually(t testing.TB, agent *eventstest.Agent, monitor *boxoevents.PerformanceMonitor, what string,
	until func(now *eventstest.Totals) bool,
) {
	t.Helper()
	met := false
	for range 100 {
		flush(t, monitor)
		time.Sleep(20 * time.Millisecond)
		if agent.Check(func(now *eventstest.Totals) { met = until(now) }); met {
			return
		}
	}
	agent.Check(func(now *eventstest.Totals) { t.Fatalf("%s: %v %v %v", what, now.Counters, now.Gauges, now.Weights) })
}
