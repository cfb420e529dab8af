// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import "time"

// maxBitswapPeers bounds the peers with series of their own. They are custom series at the agent, which keeps 1000 of
// these and never forgets one: hence the first peers keep theirs, and all later ones share one entry.
const maxBitswapPeers = 32

// BitswapCollector records what Bitswap does. Every method may be called from any goroutine, never waits,
// allocates nothing and costs some 10 ns (counts, gauges) to 40 ns (times); the methods for a peer some 40 ns,
// and an allocation when the peer is new.
type BitswapCollector struct {
	base
	requests          *counterSeries
	responseOK        *sampleSeries
	responseError     *sampleSeries
	received          *counterSeries
	duplicates        *counterSeries
	sent              *counterSeries
	activeConnections *gaugeSeries
	queuedRequests    *gaugeSeries
	receivedBytes     *counterSeries
	duplicateBytes    *counterSeries
	sentBytes         *counterSeries
	peers             *peerTable[*bitswapPeer]
}

// NewBitswapCollector makes a collector; register it with a PerformanceMonitor, which sends what it records.
func NewBitswapCollector() *BitswapCollector {
	c := &BitswapCollector{}
	s := &c.set
	c.requests = s.counter("bitswap.requests")
	c.responseOK = s.times("bitswap.response_time", "result:ok")
	c.responseError = s.times("bitswap.response_time", "result:error")
	c.received = s.counter("bitswap.blocks_received", "duplicate:false")
	c.duplicates = s.counter("bitswap.blocks_received", "duplicate:true")
	c.sent = s.counter("bitswap.blocks_sent")
	c.activeConnections = s.gauge("bitswap.active_connections")
	c.queuedRequests = s.gauge("bitswap.queued_requests")
	c.receivedBytes = s.counter("exchange.received_bytes", "duplicate:false")
	c.duplicateBytes = s.counter("exchange.received_bytes", "duplicate:true")
	c.sentBytes = s.counter("exchange.sent_bytes")
	c.peers = newPeerTable(maxBitswapPeers, 0, newBitswapPeer)
	return c
}

// RecordRequest counts one block asked for.
func (c *BitswapCollector) RecordRequest() { c.requests.add(1) }

// RecordRequests counts n blocks asked for.
func (c *BitswapCollector) RecordRequests(n int) { c.requests.addPositive(int64(n)) }

// RecordResponse records how long a request took, and whether it brought the block.
func (c *BitswapCollector) RecordResponse(d time.Duration, ok bool) {
	if ok {
		c.recordTime(c.responseOK, d)
	} else {
		c.recordTime(c.responseError, d)
	}
}

// RecordBlockReceived counts one block that arrived, and whether it was there already.
func (c *BitswapCollector) RecordBlockReceived(duplicate bool) {
	c.RecordBlocksReceived(1, 0, duplicate)
}

// RecordBlocksReceived counts n blocks that arrived with together size bytes of data.
func (c *BitswapCollector) RecordBlocksReceived(n int, size int64, duplicate bool) {
	blocks, data := c.received, c.receivedBytes
	if duplicate {
		blocks, data = c.duplicates, c.duplicateBytes
	}
	blocks.addPositive(int64(n))
	data.addPositive(size)
}

// RecordBlockSent counts one block that was sent.
func (c *BitswapCollector) RecordBlockSent() { c.RecordBlocksSent(1, 0) }

// RecordBlocksSent counts n blocks that were sent with together size bytes of data.
func (c *BitswapCollector) RecordBlocksSent(n int, size int64) {
	c.sent.addPositive(int64(n))
	c.sentBytes.addPositive(size)
}

// RecordPeerBlocksReceived counts blocks of one peer; after the first 32 peers, of the peer "other". It does not add to the sums over all peers, which
// RecordBlocksReceived counts.
func (c *BitswapCollector) RecordPeerBlocksReceived(peer string, n int, size int64) {
	p := c.peers.get(peer)
	p.received.addPositive(int64(n))
	p.receivedBytes.addPositive(size)
}

// RecordPeerBlocksSent counts blocks to one peer; after the first 32 peers, to the peer "other". It does not add to the sums over all peers, which
// RecordBlocksSent counts.
func (c *BitswapCollector) RecordPeerBlocksSent(peer string, n int, size int64) {
	p := c.peers.get(peer)
	p.sent.addPositive(int64(n))
	p.sentBytes.addPositive(size)
}

// UpdateActiveConnections sets the number of peers connected over Bitswap.
func (c *BitswapCollector) UpdateActiveConnections(n int) { c.activeConnections.set(float64(n)) }

// UpdateQueuedRequests sets the number of requests waiting.
func (c *BitswapCollector) UpdateQueuedRequests(n int) { c.queuedRequests.set(float64(n)) }

func (c *BitswapCollector) emit(e *encoder, all bool, now time.Time) error {
	if err := c.set.emit(e, all); err != nil {
		return err
	}
	return c.peers.emit(e, now)
}

// bitswapPeer is what is counted of one peer.
type bitswapPeer struct {
	received, receivedBytes, sent, sentBytes *peerCounter
}

func newBitswapPeer(peer string) *bitswapPeer {
	tag := peerTag(peer)
	return &bitswapPeer{
		received:      newPeerCounter("exchange.peer_received_blocks", tag),
		receivedBytes: newPeerCounter("exchange.peer_received_bytes", tag),
		sent:          newPeerCounter("exchange.peer_sent_blocks", tag),
		sentBytes:     newPeerCounter("exchange.peer_sent_bytes", tag),
	}
}

func (p *bitswapPeer) emit(e *encoder) (bool, error) {
	return emitCounters(e, p.received, p.receivedBytes, p.sent, p.sentBytes)
}
