// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"context"
	"testing"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents/eventstest"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/keytransform"
	dssync "github.com/ipfs/go-datastore/sync"
	dstest "github.com/ipfs/go-datastore/test"
)

// The tests that go-datastore has for every datastore.
func TestDatastoreIsOneStill(t *testing.T) {
	for _, below := range []datastore.Key{datastore.NewKey("/"), blockstore.BlockPrefix} {
		_, monitor := watched(t)
		// Below the prefix of blocks every key is timed.
		all := keytransform.Wrap(WrapDatastore(monitor, dssync.MutexWrap(datastore.NewMapDatastore())), keytransform.PrefixTransform{Prefix: below})
		t.Run(below.String(), func(t *testing.T) { dstest.SubtestAll(t, all) })
	}
}

// featured is a datastore with the optional methods.
type featured struct {
	datastore.Batching
	called []string
}

func (f *featured) Check(context.Context) error { f.called = append(f.called, "Check"); return nil }
func (f *featured) Scrub(context.Context) error { f.called = append(f.called, "Scrub"); return nil }
func (f *featured) CollectGarbage(context.Context) error {
	f.called = append(f.called, "GC")
	return nil
}
func (f *featured) DiskUsage(context.Context) (uint64, error) {
	f.called = append(f.called, "DiskUsage")
	return 7, nil
}

// Below a cache only what reaches the datastore is counted, above it what was asked and was there.
func TestDatastoreBelowACache(t *testing.T) {
	ctx := t.Context()
	agent, monitor := watched(t)
	data := &countingDatastore{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}
	below := WrapDatastore(monitor, data)
	cached, err := blockstore.CachedBlockstore(ctx, blockstore.NewBlockstore(below), blockstore.CacheOpts{HasTwoQueueCacheSize: 1024})
	if err != nil {
		t.Fatal(err)
	}
	bs := WrapBlockstoreLookups(monitor, cached)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, b, c := blocks.NewBlock([]byte("a")), blocks.NewBlock([]byte("b")), blocks.NewBlock([]byte("c"))
	must(bs.Put(ctx, a))
	must(bs.Put(ctx, a)) // the cache knows it
	must(bs.PutMany(ctx, []blocks.Block{a, b, c}))
	must(bs.PutMany(ctx, []blocks.Block{b, c}))
	for range 3 {
		_, err := bs.Get(ctx, a.Cid())
		must(err)
		_, _ = bs.Get(ctx, blocks.NewBlock([]byte("absent")).Cid()) // looked up once, remembered then
	}
	must(below.Put(ctx, datastore.NewKey("/blocksnot/x"), []byte("other")))
	must(below.Put(ctx, datastore.NewKey("/pins/x"), []byte("other")))
	batch, err := below.Batch(ctx)
	must(err)
	must(batch.Put(ctx, datastore.NewKey("/pins/y"), []byte("other")))
	must(batch.Commit(ctx))
	flush(t, monitor)
	agent.Wait("misses", func(now *eventstest.Totals) bool { return now.Counters["blockstore.cache_misses"] == 3 })
	agent.Check(func(now *eventstest.Totals) {
		for _, x := range []struct {
			what      string
			got, want float64
		}{
			{"hits", now.Counters["blockstore.cache_hits"], 3},
			{"reads", now.Weights["blockstore.read_time"], 3},
			{"reads of the datastore", float64(data.found.Load()), 3},
			{"writes", now.Weights["blockstore.write_time"], 2},
			{"batches", now.Counters["blockstore.batch_operations"], 1},
			{"batch times", now.Weights["blocks.batch_time"], 1},
			{"blocks of the batch", now.Samples["blocks.batch_size"][0], 2},
			{"puts of the datastore, other keys too", float64(data.puts.Load()), 3},
			{"commits of the datastore, of other keys too", float64(data.commits.Load()), 2},
		} {
			if x.got != x.want {
				t.Errorf("%v %s, not %v", x.got, x.what, x.want)
			}
		}
	})
}

func TestDatastoreFeaturesAreForwarded(t *testing.T) {
	ctx := t.Context()
	_, monitor := watched(t)
	inner := &featured{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}
	for _, has := range []datastore.Batching{inner, inner.Batching} {
		d := WrapDatastore(monitor, has)
		if err := d.(datastore.CheckedDatastore).Check(ctx); err != nil {
			t.Error(err)
		}
		if err := d.(datastore.ScrubbedDatastore).Scrub(ctx); err != nil {
			t.Error(err)
		}
		if err := d.(datastore.GCDatastore).CollectGarbage(ctx); err != nil {
			t.Error(err)
		}
		if _, err := d.(datastore.PersistentDatastore).DiskUsage(ctx); err != nil {
			t.Error(err)
		}
	}
	if len(inner.called) != 4 {
		t.Errorf("called: %v", inner.called)
	}
}
