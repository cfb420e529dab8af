// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"context"
	"io"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// WrapBlockstore reports what is read from and written to bs.
//
//   - A Get or View that finds its block is a hit with its read time, one that does not is a miss. (Has and GetSize
//     are neither: Bitswap asks them about blocks that it knows to be elsewhere.)
//   - A Put is a write. A PutMany is one write too, and one batch with its time and its number of blocks.
//   - What fails is not timed.
//
// The result has the optional methods that bs has, and no others: View, AllKeysChanWithErr, those of GCLocker and
// of BloomCacheStatus, and Close.
func WrapBlockstore(monitor *boxoevents.PerformanceMonitor, bs blockstore.Blockstore) blockstore.Blockstore {
	return wrap(&store{Blockstore: bs, c: monitor.Blockstore(), timed: true}, bs)
}

// WrapBlockstoreLookups reports hits and misses only, for a program that reports reads and writes at another layer.
func WrapBlockstoreLookups(monitor *boxoevents.PerformanceMonitor, bs blockstore.Blockstore) blockstore.Blockstore {
	return wrap(&store{Blockstore: bs, c: monitor.Blockstore()}, bs)
}

func wrap(s *store, bs blockstore.Blockstore) blockstore.Blockstore {
	var view blockstore.Viewer
	if inner, ok := bs.(blockstore.Viewer); ok {
		view = viewer{s, inner}
	}
	keys, _ := bs.(blockstore.AllKeysChanWithErrer)
	gc, _ := bs.(blockstore.GCLocker)
	bloom, _ := bs.(blockstore.BloomCacheStatus)
	closer, _ := bs.(io.Closer)
	return combine(s, view, keys, gc, bloom, closer)
}

// store embeds what it wraps for the methods that are not reported.
type store struct {
	blockstore.Blockstore
	c     *boxoevents.BlockstoreCollector
	timed bool
}

// start is the present time if times are wanted, else the zero time.
func (s *store) start() time.Time {
	if s.timed && s.c.Enabled() {
		return time.Now()
	}
	return time.Time{}
}

func (s *store) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	began := s.start()
	block, err := s.Blockstore.Get(ctx, c)
	s.read(began, err)
	return block, err
}

func (s *store) Put(ctx context.Context, block blocks.Block) error {
	began := s.start()
	err := s.Blockstore.Put(ctx, block)
	if err == nil && !began.IsZero() {
		s.c.RecordWriteOperation(time.Since(began))
	}
	return err
}

func (s *store) PutMany(ctx context.Context, many []blocks.Block) error {
	began := s.start()
	err := s.Blockstore.PutMany(ctx, many)
	if err != nil || len(many) == 0 || !s.timed {
		return err
	}
	if began.IsZero() {
		s.c.RecordBatchOperation()
		return nil
	}
	took := time.Since(began)
	s.c.RecordWriteOperation(took)
	s.c.RecordBatch(took, len(many))
	return nil
}

func (s *store) read(began time.Time, err error) {
	switch {
	case err == nil:
		s.c.RecordCacheHit()
		if !began.IsZero() {
			s.c.RecordReadOperation(time.Since(began))
		}
	case ipld.IsNotFound(err):
		s.c.RecordCacheMiss()
	}
}

// viewer reports View, whose read ends where the callback begins.
type viewer struct {
	*store
	inner blockstore.Viewer
}

func (v viewer) View(ctx context.Context, c cid.Cid, callback func([]byte) error) error {
	began := v.start()
	found := false
	err := v.inner.View(ctx, c, func(data []byte) error {
		found = true
		v.read(began, nil)
		return callback(data)
	})
	if !found {
		v.read(began, err)
	}
	return err
}
