// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"testing"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

const (
	tcpLoopback  = "/ip4/127.0.0.1/tcp/0"
	quicLoopback = "/ip4/127.0.0.1/udp/0/quic-v1"
)

// What is reported of a transfer between real nodes is what Bitswap, the datastore and libp2p count themselves.
func TestTransferIsReportedExactly(t *testing.T) {
	for name, listen := range map[string]string{"tcp": tcpLoopback, "quic": quicLoopback} {
		t.Run(name, func(t *testing.T) { testTransfer(t, listen) })
	}
}

func testTransfer(t *testing.T, listen string) {
	agent, monitor := watched(t)
	seed, second := newNode(t, listen, nil), newNode(t, listen, nil)
	n := newNode(t, listen, monitor)
	n.connect(t, seed)
	n.connect(t, second)
	seed.connect(t, second)

	const count, size = 100, 64 << 10
	keys := seed.add(t, count, size)
	if got := second.fetch(t, keys[:count/2]); got != count/2 { // so that two nodes have half of it
		t.Fatalf("%d blocks came to the second node", got)
	}
	if got := n.fetch(t, keys); got != count {
		t.Fatalf("%d blocks came", got)
	}
	mine := n.add(t, 30, 1000)
	if got := second.fetch(t, mine); got != 30 {
		t.Fatalf("%d of its blocks came to the second node", got)
	}
	time.Sleep(200 * time.Millisecond) // late duplicates

	stat, err := n.swap.Stat()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, agent, monitor, "blocks received", func(now *eventstest.Totals) bool {
		return now.Counters["bitswap.blocks_received|#duplicate:false"] > 0 && now.Counters["bitswap.blocks_sent"] >= 30
	})
	agent.Check(func(now *eventstest.Totals) {
		c := now.Counters
		same := func(what string, got float64, want uint64) {
			t.Helper()
			if got != float64(want) {
				t.Errorf("%s: %v reported, %v counted by the node", what, got, want)
			}
		}
		same("blocks received", c["bitswap.blocks_received|#duplicate:false"]+c["bitswap.blocks_received|#duplicate:true"], stat.BlocksReceived)
		same("duplicates", c["bitswap.blocks_received|#duplicate:true"], stat.DupBlksReceived)
		same("bytes received", c["exchange.received_bytes|#duplicate:false"]+c["exchange.received_bytes|#duplicate:true"], stat.DataReceived)
		same("duplicate bytes", c["exchange.received_bytes|#duplicate:true"], stat.DupDataReceived)
		same("blocks sent", c["bitswap.blocks_sent"], stat.BlocksSent)
		same("bytes sent", c["exchange.sent_bytes"], stat.DataSent)
		same("partners", now.Gauges["exchange.partners"], uint64(len(stat.Peers)))
		same("peers", now.Gauges["bitswap.active_connections"], 2)
		var received, sent float64
		for _, p := range []*node{seed, second} {
			received += c["exchange.peer_received_blocks|#peer:"+p.host.ID().String()]
			sent += c["exchange.peer_sent_blocks|#peer:"+p.host.ID().String()]
		}
		same("blocks received, by peer", received, stat.BlocksReceived)
		same("blocks sent, by peer", sent, stat.BlocksSent)
		same("requests", c["bitswap.requests"], count)
		same("responses", now.Weights["bitswap.response_time|#result:ok"], count)
		same("failures", now.Weights["bitswap.response_time|#result:error"], 0)
		same("open requests", now.Gauges["bitswap.queued_requests"], 0)
		same("reads", now.Weights["blockstore.read_time"], n.data.found.Load())
		same("hits", c["blockstore.cache_hits"], n.data.found.Load())
		same("misses", c["blockstore.cache_misses"], n.data.missed.Load())
		same("writes", now.Weights["blockstore.write_time"], n.data.puts.Load()+n.data.commits.Load())
		same("batches", c["blockstore.batch_operations"], n.data.commits.Load())
		for _, ms := range now.Samples["bitswap.response_time|#result:ok"] {
			if ms <= 0 || ms > 60000 {
				t.Errorf("a block took %v ms", ms)
			}
		}
	})
}

func TestHostIsReportedExactly(t *testing.T) {
	agent, monitor := watched(t)
	n, other := newNode(t, tcpLoopback, monitor), newNode(t, tcpLoopback, nil)
	n.connect(t, other)
	result := <-ping.Ping(t.Context(), n.host, other.host.ID())
	if result.Error != nil {
		t.Fatal(result.Error)
	}
	n.fetch(t, other.add(t, 10, 100<<10))
	tag := "|#peer:" + other.host.ID().String()
	// The bandwidth counter folds its readings together once a second.
	eventually(t, agent, monitor, "bytes", func(now *eventstest.Totals) bool {
		return now.Counters["network.bytes_received"+tag] > 10*100<<10
	})
	eventually(t, agent, monitor, "equality", func(now *eventstest.Totals) bool {
		truth := n.bandwidth.GetBandwidthTotals()
		return now.Counters["network.bytes_received"+tag] == float64(truth.TotalIn) &&
			now.Counters["network.bytes_sent"+tag] == float64(truth.TotalOut)
	})
	agent.Check(func(now *eventstest.Totals) {
		if got := now.Gauges["network.active_connections"]; got != float64(len(n.host.Network().Conns())) {
			t.Errorf("%v connections", got)
		}
		latency := now.Samples["network.latency"+tag]
		if len(latency) == 0 {
			t.Fatal("no latency")
		}
		want := float64(n.host.Peerstore().LatencyEWMA(other.host.ID())) / float64(time.Millisecond)
		if got := latency[len(latency)-1]; got != want {
			t.Errorf("latency %v ms, the host says %v ms", got, want)
		}
		if got := now.Counters["libp2p.connections_opened|#direction:outbound,transport:tcp"]; got != 1 {
			t.Errorf("%v connections opened", got)
		}
	})
}
