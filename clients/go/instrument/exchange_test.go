// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
	"github.com/ipfs/boxo/bitswap"
	testsession "github.com/ipfs/boxo/bitswap/testinstance"
	testnet "github.com/ipfs/boxo/bitswap/testnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/exchange/offline"
	mockrouting "github.com/ipfs/boxo/routing/mock"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	delay "github.com/ipfs/go-ipfs-delay"
)

// instances are nodes of boxo's own test network, with a latency.
func instances(t *testing.T, n int, options ...bitswap.Option) []testsession.Instance {
	t.Helper()
	network := testnet.VirtualNetwork(delay.Fixed(5 * time.Millisecond))
	generator := testsession.NewTestInstanceGenerator(network, mockrouting.NewServer(), nil, options)
	all := generator.Instances(n)
	t.Cleanup(func() {
		for _, instance := range all {
			_ = instance.Exchange.Close()
		}
		_ = generator.Close()
	})
	return all
}

func put(t *testing.T, in testsession.Instance, texts ...string) []cid.Cid {
	t.Helper()
	var keys []cid.Cid
	for _, text := range texts {
		block := blocks.NewBlock([]byte(text))
		if err := in.Blockstore.Put(t.Context(), block); err != nil {
			t.Fatal(err)
		}
		if err := in.Exchange.NotifyNewBlocks(t.Context(), block); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, block.Cid())
	}
	return keys
}

// What was asked for is answered, failed, cancelled or still open, and each is counted once.
func TestExchangeIsReported(t *testing.T) {
	agent, monitor := watched(t)
	nodes := instances(t, 2)
	keys := put(t, nodes[1], "a", "b", "c", "d", "e")
	absent := blocks.NewBlock([]byte("absent")).Cid()
	ex := WrapExchange(monitor, nodes[0].Exchange)
	ctx := t.Context()

	if block, err := ex.GetBlock(ctx, keys[0]); err != nil || block.Cid() != keys[0] {
		t.Fatal(err)
	}
	session := ex.(exchange.SessionExchange).NewSession(ctx)
	if block, err := session.GetBlock(ctx, keys[1]); err != nil || block.Cid() != keys[1] {
		t.Fatal(err)
	}
	came, err := session.GetBlocks(ctx, []cid.Cid{keys[2], keys[3], keys[2]}) // one of them twice
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for range came {
		got++
	}
	if got != 2 {
		t.Fatalf("%d blocks came", got)
	}
	if none, err := session.GetBlocks(ctx, nil); err != nil {
		t.Fatal(err)
	} else if _, more := <-none; more {
		t.Error("a block nobody asked for")
	}

	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if _, err := ex.GetBlock(short, absent); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	half, err := ex.GetBlocks(cancelled, []cid.Cid{keys[4], absent})
	if err != nil {
		t.Fatal(err)
	}
	<-half
	flush(t, monitor)
	agent.Wait("one open", func(now *eventstest.Totals) bool { return now.Gauges["bitswap.queued_requests"] == 1 })
	cancel()
	if _, more := <-half; more {
		t.Error("a block that does not exist")
	}
	eventually(t, agent, monitor, "none open", func(now *eventstest.Totals) bool { return now.Gauges["bitswap.queued_requests"] == 0 })
	agent.Check(func(now *eventstest.Totals) {
		if got := now.Counters["bitswap.requests"]; got != 7 {
			t.Errorf("%v requests", got)
		}
		if got := now.Weights["bitswap.response_time|#result:ok"]; got != 5 {
			t.Errorf("%v blocks", got)
		}
		if got := now.Weights["bitswap.response_time|#result:error"]; got != 1 {
			t.Errorf("%v errors", got)
		}
		if got := now.Counters["exchange.canceled_requests"]; got != 1 {
			t.Errorf("%v cancelled", got)
		}
		for _, ms := range now.Samples["bitswap.response_time|#result:ok"] {
			if ms < 5 {
				t.Errorf("a block took %v ms over a network that takes 5 ms", ms)
			}
		}
		if ms := now.Samples["bitswap.response_time|#result:error"]; ms[0] < 30 {
			t.Errorf("the deadline was missed after %v ms", ms)
		}
	})
}

// A caller that reads slowly does not make blocks look slow.
func TestSlowReaderIsNotCounted(t *testing.T) {
	agent, monitor := watched(t)
	nodes := instances(t, 2)
	keys := put(t, nodes[1], "a", "b", "c", "d")
	came, err := WrapExchange(monitor, nodes[0].Exchange).GetBlocks(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	for range came {
	}
	flush(t, monitor)
	agent.Wait("times", func(now *eventstest.Totals) bool { return now.Weights["bitswap.response_time|#result:ok"] == 4 })
	agent.Check(func(now *eventstest.Totals) {
		for _, ms := range now.Samples["bitswap.response_time|#result:ok"] {
			if ms > 400 {
				t.Errorf("%v ms", ms)
			}
		}
	})
}

// A wrapped exchange has sessions if the inner one has, a wrapped block service uses them.
func TestSessionsAreKept(t *testing.T) {
	_, monitor := watched(t)
	nodes := instances(t, 1)
	if _, ok := WrapExchange(monitor, nodes[0].Exchange).(exchange.SessionExchange); !ok {
		t.Error("sessions got lost")
	}
	_, monitor = watched(t)
	if _, ok := WrapExchange(monitor, offline.Exchange(nodes[0].Blockstore)).(exchange.SessionExchange); ok {
		t.Error("sessions where there are none")
	}
}

// boxo's own test network, everything wrapped: block services behave as they do unwrapped.
func TestBlockServiceOverWrappers(t *testing.T) {
	agent, monitor := watched(t)
	nodes := instances(t, 5, bitswap.WithTracer(NewTracer(monitor)))
	keys := put(t, nodes[0], "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
	for i, in := range nodes[1:] {
		m := monitor
		if i > 0 {
			_, m = watched(t)
		}
		service := blockservice.New(WrapBlockstore(m, in.Blockstore), WrapExchange(m, in.Exchange))
		got := map[cid.Cid]bool{}
		for block := range service.GetBlocks(t.Context(), keys) {
			got[block.Cid()] = true
		}
		if len(got) != len(keys) {
			t.Errorf("node %d got %d blocks", i, len(got))
		}
		if _, err := service.GetBlock(t.Context(), keys[3]); err != nil {
			t.Error(err)
		}
	}
	flush(t, monitor)
	agent.Wait("all", func(now *eventstest.Totals) bool {
		return now.Counters["bitswap.requests"] == 10 && now.Counters["bitswap.blocks_received|#duplicate:false"] >= 40
	})
}
