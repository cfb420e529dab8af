// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"context"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
)

// WatchBlockCount reports how many blocks bs holds, until ctx ends. No blockstore knows, so it counts them, at the
// start and then every so often, but never more than 1 % of the time. An enumeration that broke off is not reported.
func WatchBlockCount(ctx context.Context, monitor *boxoevents.PerformanceMonitor, bs blockstore.Blockstore, every time.Duration) {
	c := monitor.Blockstore()
	go func() {
		for {
			began := time.Now()
			if c.Enabled() {
				if n, err := countBlocks(ctx, bs); err == nil {
					c.UpdateTotalBlocks(n)
				}
			}
			select {
			case <-time.After(max(every, lookShare*time.Since(began))):
			case <-ctx.Done():
				return
			}
		}
	}()
}

func countBlocks(ctx context.Context, bs blockstore.Blockstore) (n int64, err error) {
	var keys <-chan cid.Cid
	broken := ctx.Err
	if errer, ok := bs.(blockstore.AllKeysChanWithErrer); ok {
		keys, broken, err = errer.AllKeysChanWithErr(ctx)
	} else {
		keys, err = bs.AllKeysChan(ctx)
	}
	if err != nil {
		return 0, err
	}
	for range keys {
		n++
	}
	return n, broken()
}
