// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"context"
	"strings"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-datastore"
)

// WrapDatastore reports reads and writes of blocks where they happen, below any cache of a blockstore; for the hits and
// misses above it there is WrapBlockstoreLookups. A Get that finds a block is a read, a Put is a write, a batch that
// holds blocks is a write and a batch when it is committed. Other keys than blocks' pass through.
//
// The result can Check, Scrub, CollectGarbage and tell its DiskUsage; if d cannot, these do nothing, as go-datastore's
// own wrappers do. It has no TTL and no transactions.
func WrapDatastore(monitor *boxoevents.PerformanceMonitor, d datastore.Batching) datastore.Batching {
	return &blockDatastore{d, monitor.Blockstore()}
}

type blockDatastore struct {
	datastore.Batching
	c *boxoevents.BlockstoreCollector
}

func isBlock(key datastore.Key) bool {
	rest, ok := strings.CutPrefix(key.String(), blockstore.BlockPrefix.String())
	return ok && strings.HasPrefix(rest, "/")
}

func (d *blockDatastore) Get(ctx context.Context, key datastore.Key) ([]byte, error) {
	if !d.c.Enabled() || !isBlock(key) {
		return d.Batching.Get(ctx, key)
	}
	began := time.Now()
	value, err := d.Batching.Get(ctx, key)
	if err == nil {
		d.c.RecordReadOperation(time.Since(began))
	}
	return value, err
}

func (d *blockDatastore) Put(ctx context.Context, key datastore.Key, value []byte) error {
	if !d.c.Enabled() || !isBlock(key) {
		return d.Batching.Put(ctx, key, value)
	}
	began := time.Now()
	err := d.Batching.Put(ctx, key, value)
	if err == nil {
		d.c.RecordWriteOperation(time.Since(began))
	}
	return err
}

func (d *blockDatastore) Batch(ctx context.Context) (datastore.Batch, error) {
	batch, err := d.Batching.Batch(ctx)
	if err != nil {
		return nil, err
	}
	return &blockBatch{batch, d.c, 0}, nil
}

// blockBatch counts the blocks of one batch, which one goroutine fills.
type blockBatch struct {
	datastore.Batch
	c      *boxoevents.BlockstoreCollector
	blocks int
}

func (b *blockBatch) Put(ctx context.Context, key datastore.Key, value []byte) error {
	err := b.Batch.Put(ctx, key, value)
	if err == nil && isBlock(key) {
		b.blocks++
	}
	return err
}

func (b *blockBatch) Commit(ctx context.Context) error {
	began := time.Now()
	err := b.Batch.Commit(ctx)
	if err == nil && b.blocks > 0 {
		took := time.Since(began)
		b.c.RecordWriteOperation(took)
		b.c.RecordBatch(took, b.blocks)
	}
	b.blocks = 0
	return err
}

func (d *blockDatastore) Check(ctx context.Context) error {
	if inner, ok := d.Batching.(datastore.CheckedDatastore); ok {
		return inner.Check(ctx)
	}
	return nil
}

func (d *blockDatastore) Scrub(ctx context.Context) error {
	if inner, ok := d.Batching.(datastore.ScrubbedDatastore); ok {
		return inner.Scrub(ctx)
	}
	return nil
}

func (d *blockDatastore) CollectGarbage(ctx context.Context) error {
	if inner, ok := d.Batching.(datastore.GCDatastore); ok {
		return inner.CollectGarbage(ctx)
	}
	return nil
}

func (d *blockDatastore) DiskUsage(ctx context.Context) (uint64, error) {
	return datastore.DiskUsage(ctx, d.Batching)
}
