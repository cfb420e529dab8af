// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"sync"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/tracer"
	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// NewPeerTracer reports blocks and bytes of each peer, for bitswap.WithTracer. Sums over all peers come from
// WatchBitswap, which knows duplicates and failed sends; a tracer sees a message before either is known.
func NewPeerTracer(monitor *boxoevents.PerformanceMonitor) tracer.Tracer {
	return &peerTracer{monitor.Bitswap(), false}
}

// NewTracer reports blocks and bytes of each peer and of all, for a program that has no *bitswap.Bitswap to give
// to WatchBitswap. Its sums count what was tried to be sent, and no duplicates.
func NewTracer(monitor *boxoevents.PerformanceMonitor) tracer.Tracer {
	return &peerTracer{monitor.Bitswap(), true}
}

type peerTracer struct {
	c    *boxoevents.BitswapCollector
	sums bool
}

func (t *peerTracer) MessageReceived(from peer.ID, m message.BitSwapMessage) {
	if n, size := payload(m.Blocks()); n > 0 {
		t.c.RecordPeerBlocksReceived(from.String(), n, size)
		if t.sums {
			t.c.RecordBlocksReceived(n, size, false)
		}
	}
}

func (t *peerTracer) MessageSent(to peer.ID, m message.BitSwapMessage) {
	if n, size := payload(m.Blocks()); n > 0 {
		t.c.RecordPeerBlocksSent(to.String(), n, size)
		if t.sums {
			t.c.RecordBlocksSent(n, size)
		}
	}
}

func payload(sent []blocks.Block) (n int, size int64) {
	for _, block := range sent {
		size += int64(len(block.RawData()))
	}
	return len(sent), size
}

// Statter is what WatchBitswap needs of a *bitswap.Bitswap.
type Statter interface {
	Stat() (*bitswap.Stat, error)
}

// WatchBitswap reports Bitswap's own counts before each flush, so that they are those of "ipfs bitswap stat": blocks
// and bytes sent and received, duplicates, and partners (exchange.partners: peers that want something of us).
// They count from the start of swap, agent or no agent. With the host that swap uses, the peers are counted too
// that are connected and speak Bitswap.
func WatchBitswap(monitor *boxoevents.PerformanceMonitor, swap Statter, h host.Host) {
	w := &bitswapWatch{c: monitor.Bitswap(), swap: swap, host: h}
	w.partners, _ = monitor.Gauge("exchange.partners")
	monitor.OnFlush(w.poll)
}

// bitswapProtocols are those that boxo's bsnet speaks.
var bitswapProtocols = []protocol.ID{
	bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers,
}

type bitswapWatch struct {
	c        *boxoevents.BitswapCollector
	swap     Statter
	host     host.Host
	partners *boxoevents.Gauge
	mu       sync.Mutex
	last     bitswap.Stat
	nextLook time.Time
}

func (w *bitswapWatch) poll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, err := w.swap.Stat()
	if err != nil {
		return
	}
	last := &w.last
	duplicates, dupData := now.DupBlksReceived-last.DupBlksReceived, now.DupDataReceived-last.DupDataReceived
	received, data := now.BlocksReceived-last.BlocksReceived, now.DataReceived-last.DataReceived
	w.c.RecordBlocksReceived(int(received-duplicates), int64(data-dupData), false)
	w.c.RecordBlocksReceived(int(duplicates), int64(dupData), true)
	w.c.RecordBlocksSent(int(now.BlocksSent-last.BlocksSent), int64(now.DataSent-last.DataSent))
	w.partners.Set(float64(len(now.Peers)))
	w.last = *now
	if began := time.Now(); w.host != nil && !began.Before(w.nextLook) {
		w.c.UpdateActiveConnections(w.connected())
		w.nextLook = began.Add(lookShare * time.Since(began))
	}
}

func (w *bitswapWatch) connected() int {
	n := 0
	for _, p := range w.host.Network().Peers() {
		if w.host.Network().Connectedness(p) != network.Connected {
			continue // a limited connection, which Bitswap does not use
		}
		if spoken, err := w.host.Peerstore().SupportsProtocols(p, bitswapProtocols...); err == nil && len(spoken) > 0 {
			n++
		}
	}
	return n
}
