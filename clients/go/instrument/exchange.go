// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/ipfs/boxo/bitswap/client/traceability"
	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// maxAhead is how many blocks of one GetBlocks may wait for a slow caller without their time running on.
const maxAhead = 64

// WrapExchange reports every block that is asked of ex, and of its sessions: one request each, and later one
// response with its time, good (the block came) or bad (an error, a missed deadline); a request that its caller
// cancelled is neither, but counted as exchange.canceled_requests. Requests that are still open are the queued ones.
//
// With bitswap's client.WithTraceBlock the time is the one that Bitswap took, else the one until the block was
// handed over. The result has NewSession if ex has, and only then.
func WrapExchange(monitor *boxoevents.PerformanceMonitor, ex exchange.Interface) exchange.Interface {
	r := &requests{c: monitor.Bitswap()}
	r.canceled, _ = monitor.Counter("exchange.canceled_requests")
	monitor.OnFlush(func() { r.c.UpdateQueuedRequests(int(r.open.Load())) })
	wrapped := &wrappedExchange{Interface: ex, fetcher: fetcher{ex, r}}
	if sessions, ok := ex.(exchange.SessionExchange); ok {
		return &sessionExchange{wrappedExchange: wrapped, inner: sessions}
	}
	return wrapped
}

// wrappedExchange embeds what it wraps for the methods that are not reported.
type wrappedExchange struct {
	exchange.Interface
	fetcher fetcher
}

func (w *wrappedExchange) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	return w.fetcher.GetBlock(ctx, c)
}

func (w *wrappedExchange) GetBlocks(ctx context.Context, keys []cid.Cid) (<-chan blocks.Block, error) {
	return w.fetcher.GetBlocks(ctx, keys)
}

type sessionExchange struct {
	*wrappedExchange
	inner exchange.SessionExchange
}

func (s *sessionExchange) NewSession(ctx context.Context) exchange.Fetcher {
	return &fetcher{s.inner.NewSession(ctx), s.fetcher.requests}
}

// requests counts what was asked for and what became of it.
type requests struct {
	c        *boxoevents.BitswapCollector
	canceled *boxoevents.Counter
	open     atomic.Int64
}

func (r *requests) begin(n int) {
	r.c.RecordRequests(n)
	r.open.Add(int64(n))
}

func (r *requests) arrived(block blocks.Block, began time.Time) {
	r.open.Add(-1)
	took := time.Since(began)
	if traced, ok := block.(traceability.Block); ok {
		took = traced.Delay
	}
	r.c.RecordResponse(took, true)
}

func (r *requests) failed(n int, err error, began time.Time) {
	r.open.Add(-int64(n))
	if errors.Is(err, context.Canceled) {
		r.canceled.Add(int64(n))
		return
	}
	took := time.Since(began)
	for range n {
		r.c.RecordResponse(took, false)
	}
}

// fetcher reports one exchange.Fetcher: the exchange itself or a session.
type fetcher struct {
	inner    exchange.Fetcher
	requests *requests
}

func (f *fetcher) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	f.requests.begin(1)
	began := time.Now()
	block, err := f.inner.GetBlock(ctx, c)
	if err != nil {
		f.requests.failed(1, err, began)
	} else {
		f.requests.arrived(block, began)
	}
	return block, err
}

func (f *fetcher) GetBlocks(ctx context.Context, keys []cid.Cid) (<-chan blocks.Block, error) {
	asked := distinct(keys)
	if !f.requests.c.Enabled() {
		f.requests.c.RecordRequests(asked)
		return f.inner.GetBlocks(ctx, keys)
	}
	f.requests.begin(asked)
	began := time.Now()
	in, err := f.inner.GetBlocks(ctx, keys)
	if err != nil {
		f.requests.failed(asked, err, began)
		return in, err
	}
	if asked == 0 {
		return in, nil
	}
	out := make(chan blocks.Block, min(asked, maxAhead))
	go f.forward(ctx, in, out, asked, began)
	return out, nil
}

// forward hands blocks on until all came, in ends, or ctx does, and closes out then.
func (f *fetcher) forward(ctx context.Context, in <-chan blocks.Block, out chan<- blocks.Block, asked int, began time.Time) {
	defer close(out)
	waiting := asked
	defer func() {
		if waiting > 0 {
			f.requests.failed(waiting, ctx.Err(), began)
		}
	}()
	for {
		select {
		case block, ok := <-in:
			if !ok {
				return
			}
			if waiting > 0 {
				waiting--
				f.requests.arrived(block, began)
			}
			select {
			case out <- block:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// distinct is the number of different keys: an exchange answers each once.
func distinct(keys []cid.Cid) int {
	if len(keys) < 2 {
		return len(keys)
	}
	set := make(map[cid.Cid]struct{}, len(keys))
	for _, key := range keys {
		set[key] = struct{}{}
	}
	return len(set)
}
