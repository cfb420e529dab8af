// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
)

// countingDatastore counts by itself what reaches it.
type countingDatastore struct {
	datastore.Batching
	found, missed, puts, commits atomic.Uint64
}

func (d *countingDatastore) Get(ctx context.Context, key datastore.Key) ([]byte, error) {
	value, err := d.Batching.Get(ctx, key)
	if err == nil {
		d.found.Add(1)
	} else {
		d.missed.Add(1)
	}
	return value, err
}

func (d *countingDatastore) Put(ctx context.Context, key datastore.Key, value []byte) error {
	d.puts.Add(1)
	return d.Batching.Put(ctx, key, value)
}

func (d *countingDatastore) Batch(ctx context.Context) (datastore.Batch, error) {
	batch, err := d.Batching.Batch(ctx)
	return &countingBatch{batch, d}, err
}

type countingBatch struct {
	datastore.Batch
	d *countingDatastore
}

func (b *countingBatch) Commit(ctx context.Context) error {
	b.d.commits.Add(1)
	return b.Batch.Commit(ctx)
}

// fakeOptional has every optional method.
type fakeOptional struct{ called string }

func (f *fakeOptional) View(context.Context, cid.Cid, func([]byte) error) error {
	f.called = "View"
	return nil
}

func (f *fakeOptional) AllKeysChanWithErr(context.Context) (<-chan cid.Cid, func() error, error) {
	f.called = "AllKeysChanWithErr"
	return nil, nil, nil
}
func (f *fakeOptional) GCLock(context.Context) blockstore.Unlocker  { f.called = "GCLock"; return nil }
func (f *fakeOptional) PinLock(context.Context) blockstore.Unlocker { f.called = "PinLock"; return nil }
func (f *fakeOptional) GCRequested(context.Context) bool            { f.called = "GCRequested"; return true }
func (f *fakeOptional) Wait(context.Context) error                  { f.called = "Wait"; return nil }
func (f *fakeOptional) BloomActive() bool                           { f.called = "BloomActive"; return true }
func (f *fakeOptional) Rebuild(context.Context) error               { f.called = "Rebuild"; return nil }
func (f *fakeOptional) Close() error                                { f.called = "Close"; return nil }

// The wrapper has exactly the optional methods of what it wraps, and they reach it.
func TestOptionalInterfacesAreForwarded(t *testing.T) {
	ctx := context.Background()
	plain := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	for mask := range 32 {
		f := &fakeOptional{}
		var v viewing
		var k keysErr
		var g locking
		var b blooming
		var c closing
		if mask&hasView != 0 {
			v = f
		}
		if mask&hasKeys != 0 {
			k = f
		}
		if mask&hasGC != 0 {
			g = f
		}
		if mask&hasBloom != 0 {
			b = f
		}
		if mask&hasClose != 0 {
			c = f
		}
		monitor := boxoevents.NewPerformanceMonitor()
		inner := combine(&store{Blockstore: struct{ blockstore.Blockstore }{plain}, c: monitor.Blockstore(), timed: true}, v, k, g, b, c)
		outer := WrapBlockstore(monitor, inner)
		called := func(bit int, has bool, name string, call func()) {
			t.Helper()
			if has != (mask&bit != 0) {
				t.Errorf("mask %05b: %s: %v", mask, name, has)
			}
			if has {
				if call(); f.called != name {
					t.Errorf("mask %05b: %s reached %q", mask, name, f.called)
				}
			}
		}
		view, hasV := outer.(blockstore.Viewer)
		called(hasView, hasV, "View", func() { _ = view.View(ctx, cid.Undef, nil) })
		keys, hasK := outer.(blockstore.AllKeysChanWithErrer)
		called(hasKeys, hasK, "AllKeysChanWithErr", func() { _, _, _ = keys.AllKeysChanWithErr(ctx) })
		gc, hasG := outer.(blockstore.GCLocker)
		called(hasGC, hasG, "PinLock", func() { gc.PinLock(ctx) })
		bloom, hasB := outer.(blockstore.BloomCacheStatus)
		called(hasBloom, hasB, "Rebuild", func() { _ = bloom.Rebuild(ctx) })
		closer, hasC := outer.(io.Closer)
		called(hasClose, hasC, "Close", func() { _ = closer.Close() })
	}
}

func TestBlockstoreIsReported(t *testing.T) {
	ctx := context.Background()
	agent, monitor := watched(t)
	data := &countingDatastore{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}
	bs := WrapBlockstore(monitor, blockstore.NewIdStore(blockstore.NewBlockstore(data)))
	a, b, c := blocks.NewBlock([]byte("a")), blocks.NewBlock([]byte("b")), blocks.NewBlock([]byte("c"))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(bs.Put(ctx, a))
	must(bs.PutMany(ctx, []blocks.Block{b, c}))
	must(bs.PutMany(ctx, nil))
	for _, block := range []blocks.Block{a, b, c} {
		got, err := bs.Get(ctx, block.Cid())
		must(err)
		if string(got.RawData()) != string(block.RawData()) {
			t.Error("another block")
		}
	}
	absent := blocks.NewBlock([]byte("absent")).Cid()
	if _, err := bs.Get(ctx, absent); !ipld.IsNotFound(err) {
		t.Error(err)
	}
	slow := func([]byte) error { time.Sleep(50 * time.Millisecond); return errors.New("mine") }
	if err := bs.(blockstore.Viewer).View(ctx, a.Cid(), slow); err == nil || err.Error() != "mine" {
		t.Error(err)
	}
	if err := bs.(blockstore.Viewer).View(ctx, absent, slow); !ipld.IsNotFound(err) {
		t.Error(err)
	}
	if has, err := bs.Has(ctx, a.Cid()); !has || err != nil {
		t.Error(has, err)
	}
	must(bs.DeleteBlock(ctx, a.Cid()))
	if n, err := countBlocks(ctx, bs); n != 2 || err != nil {
		t.Error(n, err)
	}
	counting, stop := context.WithCancel(ctx)
	defer stop()
	WatchBlockCount(counting, monitor, bs, time.Hour)
	eventually(t, agent, monitor, "the count", func(now *eventstest.Totals) bool { return now.Gauges["blockstore.total_blocks"] == 2 })
	agent.Check(func(now *eventstest.Totals) {
		for _, x := range []struct {
			what      string
			got, want float64
		}{
			{"hits", now.Counters["blockstore.cache_hits"], 4},
			{"misses", now.Counters["blockstore.cache_misses"], 2},
			{"reads", now.Weights["blockstore.read_time"], 4},
			{"writes", now.Weights["blockstore.write_time"], 2},
			{"batches", now.Counters["blockstore.batch_operations"], 1},
			{"blocks of batches", now.Samples["blocks.batch_size"][0], 2},
			{"hits of the datastore", float64(data.found.Load()), 4},
			{"misses of the datastore", float64(data.missed.Load()), 2},
			{"puts of the datastore", float64(data.puts.Load()), 1},
		} {
			if x.got != x.want {
				t.Errorf("%v %s, not %v", x.got, x.what, x.want)
			}
		}
		for _, ms := range now.Samples["blockstore.read_time"] {
			if ms >= 50 {
				t.Errorf("a read of %v ms has the callback in it", ms)
			}
		}
	})
}
