// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import "time"

// BlockstoreCollector records what a blockstore does. Every method may be called from any goroutine, never waits,
// allocates nothing and costs some 10 ns (counts, gauges) to 40 ns (times).
type BlockstoreCollector struct {
	base
	hits, misses     *counterSeries
	batches          *counterSeries
	reads, writes    *sampleSeries
	batchTimes       *sampleSeries
	batchBlocks      *sampleSeries
	totalBlocks      *gaugeSeries
	compressionRatio *gaugeSeries
	storageBytes     *gaugeSeries
	cacheSize        *gaugeSeries
}

// NewBlockstoreCollector makes a collector; register it with a PerformanceMonitor, which sends what it records.
func NewBlockstoreCollector() *BlockstoreCollector {
	c := &BlockstoreCollector{}
	s := &c.set
	c.hits = s.counter("blockstore.cache_hits")
	c.misses = s.counter("blockstore.cache_misses")
	c.batches = s.counter("blockstore.batch_operations")
	c.reads = s.times("blockstore.read_time")
	c.writes = s.times("blockstore.write_time")
	c.batchTimes = s.times("blocks.batch_time")
	c.batchBlocks = s.values("blocks.batch_size")
	c.totalBlocks = s.gauge("blockstore.total_blocks")
	c.compressionRatio = s.gauge("blockstore.compression_ratio")
	c.storageBytes = s.gauge("blockstore.storage_bytes")
	c.cacheSize = s.gauge("blockstore.cache_size_bytes")
	return c
}

// RecordCacheHit counts one lookup that was answered.
func (c *BlockstoreCollector) RecordCacheHit() { c.hits.add(1) }

// RecordCacheMiss counts one lookup that was not.
func (c *BlockstoreCollector) RecordCacheMiss() { c.misses.add(1) }

// RecordReadOperation records how long one read took.
func (c *BlockstoreCollector) RecordReadOperation(d time.Duration) { c.recordTime(c.reads, d) }

// RecordWriteOperation records how long one write took.
func (c *BlockstoreCollector) RecordWriteOperation(d time.Duration) { c.recordTime(c.writes, d) }

// RecordBatchOperation counts one operation on several blocks.
func (c *BlockstoreCollector) RecordBatchOperation() { c.batches.add(1) }

// RecordBatch counts one operation on several blocks, with its time and its number of blocks.
func (c *BlockstoreCollector) RecordBatch(d time.Duration, blocks int) {
	c.batches.add(1)
	c.recordTime(c.batchTimes, d)
	if c.Enabled() {
		c.batchBlocks.record(float64(blocks))
	}
}

// UpdateTotalBlocks sets the number of blocks stored.
func (c *BlockstoreCollector) UpdateTotalBlocks(n int64) { c.totalBlocks.set(float64(n)) }

// UpdateCompressionRatio sets stored over original size; what is not a finite number is ignored.
func (c *BlockstoreCollector) UpdateCompressionRatio(ratio float64) {
	if finite(ratio) {
		c.compressionRatio.set(ratio)
	}
}

// UpdateStorage sets the bytes that the blocks occupy.
func (c *BlockstoreCollector) UpdateStorage(bytes int64) { c.storageBytes.set(float64(bytes)) }

// UpdateCacheSize sets the bytes that the cache occupies.
func (c *BlockstoreCollector) UpdateCacheSize(bytes int64) { c.cacheSize.set(float64(bytes)) }
