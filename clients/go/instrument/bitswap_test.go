// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"errors"
	"testing"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
	"github.com/ipfs/boxo/bitswap"
)

type fakeStat struct {
	stat bitswap.Stat
	err  error
}

func (f *fakeStat) Stat() (*bitswap.Stat, error) { stat := f.stat; return &stat, f.err }

// Whatever of what Bitswap counts is a duplicate, the sums are Bitswap's.
func TestDuplicatesAreReported(t *testing.T) {
	agent, monitor := watched(t)
	swap := &fakeStat{}
	WatchBitswap(monitor, swap, nil)
	for _, swap.stat = range []bitswap.Stat{
		{BlocksReceived: 5, DataReceived: 500, DupBlksReceived: 2, DupDataReceived: 200},
		{BlocksReceived: 5, DataReceived: 500, DupBlksReceived: 2, DupDataReceived: 200, Peers: []string{"a", "b"}},
		{BlocksReceived: 105, DataReceived: 9500, DupBlksReceived: 42, DupDataReceived: 4200, BlocksSent: 7, DataSent: 70, Peers: []string{"a"}},
	} {
		flush(t, monitor)
	}
	swap.stat, swap.err = bitswap.Stat{}, errors.New("closed")
	flush(t, monitor)
	agent.Wait("all", func(now *eventstest.Totals) bool { return now.Counters["bitswap.blocks_sent"] == 7 })
	agent.Check(func(now *eventstest.Totals) {
		for key, want := range map[string]float64{
			"bitswap.blocks_received|#duplicate:false": 63,
			"bitswap.blocks_received|#duplicate:true":  42,
			"exchange.received_bytes|#duplicate:false": 5300,
			"exchange.received_bytes|#duplicate:true":  4200,
			"exchange.sent_bytes":                      70,
		} {
			if got := now.Counters[key]; got != want {
				t.Errorf("%s: %v, not %v", key, got, want)
			}
		}
		if got := now.Gauges["exchange.partners"]; got != 1 {
			t.Errorf("%v partners", got)
		}
	})
}
