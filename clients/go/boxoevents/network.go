// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"math"
	"time"
)

// maxNetworkPeers bounds the peers with series of their own. The agent knows them as peers: it keeps the busiest.
const maxNetworkPeers = 512

// NetworkCollector records what the network does. Every method may be called from any goroutine, never waits,
// allocates nothing and costs some 10 ns (counts, gauges) to 40 ns (times); the methods for a peer some 20 ns more,
// and an allocation when the peer is new. What is recorded for a peer is part of the sums over all peers: do not
// record it again without the peer. The first 512 peers have series of their own, until they are silent for
// 10 minutes; the rest share the peer "other".
type NetworkCollector struct {
	base
	activeConnections        *gaugeSeries
	latency, bandwidth       *sampleSeries
	bytesSent, bytesReceived *counterSeries
	connectionErrors         *counterSeries
	packetsSent, packetsLost *counterSeries
	peers                    *peerTable[*networkPeer]
}

// NewNetworkCollector makes a collector; register it with a PerformanceMonitor, which sends what it records.
func NewNetworkCollector() *NetworkCollector {
	c := &NetworkCollector{}
	s := &c.set
	c.activeConnections = s.gauge("network.active_connections")
	c.latency = s.times("network.latency")
	c.bandwidth = s.values("network.bandwidth")
	c.bytesSent = s.counter("network.bytes_sent")
	c.bytesReceived = s.counter("network.bytes_received")
	c.connectionErrors = s.counter("network.connection_errors")
	c.packetsSent = s.counter("network.packets_sent")
	c.packetsLost = s.counter("network.packets_lost")
	c.peers = newPeerTable(maxNetworkPeers, peerIdle, newNetworkPeer)
	return c
}

// UpdateActiveConnections sets the number of open connections.
func (c *NetworkCollector) UpdateActiveConnections(n int) { c.activeConnections.set(float64(n)) }

// RecordLatency records one round-trip time.
func (c *NetworkCollector) RecordLatency(d time.Duration) { c.recordTime(c.latency, d) }

// RecordPeerLatency records one round-trip time to a peer.
func (c *NetworkCollector) RecordPeerLatency(peer string, d time.Duration) {
	if c.Enabled() && d >= 0 {
		c.peers.get(peer).latency.record(milliseconds(d))
	}
}

// RecordBandwidth records one reading of the bandwidth in use, in bytes per second.
func (c *NetworkCollector) RecordBandwidth(bytesPerSecond float64) {
	if c.Enabled() && validBandwidth(bytesPerSecond) {
		c.bandwidth.record(bytesPerSecond)
	}
}

// RecordPeerBandwidth records one reading of the bandwidth in use with a peer, in bytes per second.
func (c *NetworkCollector) RecordPeerBandwidth(peer string, bytesPerSecond float64) {
	if c.Enabled() && validBandwidth(bytesPerSecond) {
		c.peers.get(peer).bandwidth.record(bytesPerSecond)
	}
}

func validBandwidth(v float64) bool { return v >= 0 && !math.IsInf(v, 0) }

// RecordBytesSent counts bytes that were sent, to no known peer.
func (c *NetworkCollector) RecordBytesSent(n int64) { c.bytesSent.addPositive(n) }

// RecordBytesReceived counts bytes that arrived, from no known peer.
func (c *NetworkCollector) RecordBytesReceived(n int64) { c.bytesReceived.addPositive(n) }

// RecordPeerBytesSent counts bytes that were sent to a peer.
func (c *NetworkCollector) RecordPeerBytesSent(peer string, n int64) {
	c.peers.get(peer).sent.addPositive(n)
}

// RecordPeerBytesReceived counts bytes that arrived from a peer.
func (c *NetworkCollector) RecordPeerBytesReceived(peer string, n int64) {
	c.peers.get(peer).received.addPositive(n)
}

// RecordConnectionError counts one connection that could not be made or broke.
func (c *NetworkCollector) RecordConnectionError() { c.connectionErrors.add(1) }

// RecordPeerError counts one connection to a peer that could not be made or broke.
func (c *NetworkCollector) RecordPeerError(peer string) { c.peers.get(peer).errors.addPositive(1) }

// RecordPacketsSent counts packets that were sent.
func (c *NetworkCollector) RecordPacketsSent(n int64) { c.packetsSent.addPositive(n) }

// RecordPacketsLost counts packets that were lost.
func (c *NetworkCollector) RecordPacketsLost(n int64) { c.packetsLost.addPositive(n) }

func (c *NetworkCollector) emit(e *encoder, all bool, now time.Time) error {
	if err := c.set.emit(e, all); err != nil {
		return err
	}
	return c.peers.emit(e, now)
}

// networkPeer is what is recorded of one peer.
type networkPeer struct {
	sent, received, errors *peerCounter
	latency, bandwidth     lazySamples
}

func newNetworkPeer(peer string) *networkPeer {
	tag := peerTag(peer)
	return &networkPeer{
		sent:      newPeerCounter("network.bytes_sent", tag),
		received:  newPeerCounter("network.bytes_received", tag),
		errors:    newPeerCounter("network.connection_errors", tag),
		latency:   lazySamples{kind: "ms", name: "network.latency", tag: tag},
		bandwidth: lazySamples{kind: "h", name: "network.bandwidth", tag: tag},
	}
}

func (p *networkPeer) emit(e *encoder) (bool, error) {
	active, err := emitCounters(e, p.sent, p.received, p.errors)
	if err != nil {
		return active, err
	}
	for _, lazy := range []*lazySamples{&p.latency, &p.bandwidth} {
		sampled, err := lazy.emit(e)
		active = active || sampled
		if err != nil {
			return active, err
		}
	}
	return active, nil
}
