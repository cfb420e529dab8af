// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"sync"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// lookShare bounds what looking at every peer costs: after a look that took a time, none for 100 times as long.
const lookShare = 100

// WatchHost reports the host's connections, the latency of each peer when it was measured anew (libp2p does so
// by ping), and, if a bandwidth counter is given, the bytes of each peer and the bandwidth in use. The counter is
// the one that the host was made with (libp2p.BandwidthReporter); it knows TCP and QUIC alike.
// Opened connections are counted too, as libp2p.connections_opened and _closed by direction and transport.
func WatchHost(monitor *boxoevents.PerformanceMonitor, h host.Host, bandwidth metrics.Reporter) {
	w := &hostWatch{
		monitor:   monitor,
		c:         monitor.Network(),
		host:      h,
		bandwidth: bandwidth,
		latencies: map[peer.ID]time.Duration{},
		bytes:     map[peer.ID]*peerBytes{},
	}
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, conn network.Conn) { w.count("opened", conn) },
		DisconnectedF: func(_ network.Network, conn network.Conn) { w.count("closed", conn) },
	})
	monitor.OnFlush(w.poll)
}

type hostWatch struct {
	monitor   *boxoevents.PerformanceMonitor
	c         *boxoevents.NetworkCollector
	host      host.Host
	bandwidth metrics.Reporter

	mu        sync.Mutex
	latencies map[peer.ID]time.Duration
	bytes     map[peer.ID]*peerBytes
	nextLook  time.Time
}

// peerBytes is what was reported of a peer.
type peerBytes struct {
	name     string
	in, out  int64
	lastLook int64
}

func (w *hostWatch) count(what string, conn network.Conn) {
	direction := "outbound"
	if conn.Stat().Direction == network.DirInbound {
		direction = "inbound"
	}
	transport := conn.ConnState().Transport
	if transport == "" {
		transport = "unknown"
	}
	counter, _ := w.monitor.Counter("libp2p.connections_"+what, "direction:"+direction, "transport:"+transport)
	counter.Inc()
}

func (w *hostWatch) poll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.c.UpdateActiveConnections(len(w.host.Network().Conns()))
	began := time.Now()
	if began.Before(w.nextLook) {
		return
	}
	w.lookAtLatencies()
	if w.bandwidth != nil {
		w.lookAtBandwidth(began.UnixNano())
	}
	w.nextLook = began.Add(lookShare * time.Since(began))
}

func (w *hostWatch) lookAtLatencies() {
	peers := w.host.Network().Peers()
	now := make(map[peer.ID]time.Duration, len(peers))
	for _, p := range peers {
		latency := w.host.Peerstore().LatencyEWMA(p)
		if latency <= 0 {
			continue
		}
		if w.latencies[p] != latency {
			w.c.RecordPeerLatency(p.String(), latency)
		}
		now[p] = latency
	}
	w.latencies = now
}

func (w *hostWatch) lookAtBandwidth(look int64) {
	totals := w.bandwidth.GetBandwidthTotals()
	w.c.RecordBandwidth(totals.RateIn + totals.RateOut)
	for p, now := range w.bandwidth.GetBandwidthByPeer() {
		last := w.bytes[p]
		if last == nil {
			last = &peerBytes{name: p.String()}
			w.bytes[p] = last
		}
		if now.TotalIn < last.in || now.TotalOut < last.out {
			last.in, last.out = 0, 0 // the counter forgot the peer in between
		}
		if now.TotalIn > last.in {
			w.c.RecordPeerBytesReceived(last.name, now.TotalIn-last.in)
		}
		if now.TotalOut > last.out {
			w.c.RecordPeerBytesSent(last.name, now.TotalOut-last.out)
		}
		last.in, last.out, last.lastLook = now.TotalIn, now.TotalOut, look
	}
	for p, last := range w.bytes {
		if last.lastLook != look {
			delete(w.bytes, p)
		}
	}
}
