// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"fmt"
	"testing"
	"time"
)

// Peers beyond the limit share one entry; a silent one makes room, and what it recorded last still arrives.
func TestPeerTable(t *testing.T) {
	sent := map[string]int{}
	e := &encoder{begin: func(buf []byte) []byte { return buf }, send: func(datagram []byte) error {
		sent[string(datagram)]++
		return nil
	}}
	now := time.Now()
	emit := func(table *peerTable[*bitswapPeer]) {
		if err := table.emit(e, now); err != nil {
			t.Fatal(err)
		}
		if err := e.flush(); err != nil {
			t.Fatal(err)
		}
	}
	table := newPeerTable(3, time.Minute, newBitswapPeer)
	for i := range 6 {
		table.get(fmt.Sprint("p", i)).received.addPositive(1)
	}
	if n := len(*table.entries.Load()); n != 4 {
		t.Fatalf("%d entries", n)
	}
	if got := table.get("p9").received.n.Load(); got != 3 {
		t.Errorf("the shared entry has %d", got)
	}
	emit(table)
	late := table.get("p0")
	for range 2 {
		emit(table) // silent from the first of these on
		now = now.Add(time.Minute)
	}
	late.received.addPositive(5)
	emit(table)
	if n := len(*table.entries.Load()); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	if got := sent["exchange.peer_received_blocks:5|c|#peer:p0\n"]; got != 1 {
		t.Errorf("what came late was sent %d times: %v", got, sent)
	}
	lasting := newPeerTable(3, 0, newBitswapPeer)
	lasting.get("p")
	for range 3 {
		emit(lasting)
		now = now.Add(time.Hour)
	}
	if n := len(*lasting.entries.Load()); n != 1 {
		t.Errorf("%d entries", n)
	}
}
