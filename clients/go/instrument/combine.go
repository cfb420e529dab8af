// SPDX-License-Identifier: MIT OR Apache-2.0

package instrument

import (
	"io"

	"github.com/ipfs/boxo/blockstore"
)

// Short names, to be embedded side by side.
type (
	viewing  = blockstore.Viewer
	keysErr  = blockstore.AllKeysChanWithErrer
	locking  = blockstore.GCLocker
	blooming = blockstore.BloomCacheStatus
	closing  = io.Closer
)

// Which optional interfaces there are, as bits.
const (
	hasView = 1 << iota
	hasKeys
	hasGC
	hasBloom
	hasClose
)

// combine gives s the methods of those of the others that are not nil. A Go type has its methods or has not, so
// there is one type for each combination.
func combine(s *store, v viewing, k keysErr, g locking, b blooming, c closing) blockstore.Blockstore {
	has := 0
	for bit, there := range []bool{v != nil, k != nil, g != nil, b != nil, c != nil} {
		if there {
			has |= 1 << bit
		}
	}
	switch has {
	case hasView:
		return struct {
			*store
			viewing
		}{s, v}
	case hasKeys:
		return struct {
			*store
			keysErr
		}{s, k}
	case hasView | hasKeys:
		return struct {
			*store
			viewing
			keysErr
		}{s, v, k}
	case hasGC:
		return struct {
			*store
			locking
		}{s, g}
	case hasView | hasGC:
		return struct {
			*store
			viewing
			locking
		}{s, v, g}
	case hasKeys | hasGC:
		return struct {
			*store
			keysErr
			locking
		}{s, k, g}
	case hasView | hasKeys | hasGC:
		return struct {
			*store
			viewing
			keysErr
			locking
		}{s, v, k, g}
	case hasBloom:
		return struct {
			*store
			blooming
		}{s, b}
	case hasView | hasBloom:
		return struct {
			*store
			viewing
			blooming
		}{s, v, b}
	case hasKeys | hasBloom:
		return struct {
			*store
			keysErr
			blooming
		}{s, k, b}
	case hasView | hasKeys | hasBloom:
		return struct {
			*store
			viewing
			keysErr
			blooming
		}{s, v, k, b}
	case hasGC | hasBloom:
		return struct {
			*store
			locking
			blooming
		}{s, g, b}
	case hasView | hasGC | hasBloom:
		return struct {
			*store
			viewing
			locking
			blooming
		}{s, v, g, b}
	case hasKeys | hasGC | hasBloom:
		return struct {
			*store
			keysErr
			locking
			blooming
		}{s, k, g, b}
	case hasView | hasKeys | hasGC | hasBloom:
		return struct {
			*store
			viewing
			keysErr
			locking
			blooming
		}{s, v, k, g, b}
	case hasClose:
		return struct {
			*store
			closing
		}{s, c}
	case hasView | hasClose:
		return struct {
			*store
			viewing
			closing
		}{s, v, c}
	case hasKeys | hasClose:
		return struct {
			*store
			keysErr
			closing
		}{s, k, c}
	case hasView | hasKeys | hasClose:
		return struct {
			*store
			viewing
			keysErr
			closing
		}{s, v, k, c}
	case hasGC | hasClose:
		return struct {
			*store
			locking
			closing
		}{s, g, c}
	case hasView | hasGC | hasClose:
		return struct {
			*store
			viewing
			locking
			closing
		}{s, v, g, c}
	case hasKeys | hasGC | hasClose:
		return struct {
			*store
			keysErr
			locking
			closing
		}{s, k, g, c}
	case hasView | hasKeys | hasGC | hasClose:
		return struct {
			*store
			viewing
			keysErr
			locking
			closing
		}{s, v, k, g, c}
	case hasBloom | hasClose:
		return struct {
			*store
			blooming
			closing
		}{s, b, c}
	case hasView | hasBloom | hasClose:
		return struct {
			*store
			viewing
			blooming
			closing
		}{s, v, b, c}
	case hasKeys | hasBloom | hasClose:
		return struct {
			*store
			keysErr
			blooming
			closing
		}{s, k, b, c}
	case hasView | hasKeys | hasBloom | hasClose:
		return struct {
			*store
			viewing
			keysErr
			blooming
			closing
		}{s, v, k, b, c}
	case hasGC | hasBloom | hasClose:
		return struct {
			*store
			locking
			blooming
			closing
		}{s, g, b, c}
	case hasView | hasGC | hasBloom | hasClose:
		return struct {
			*store
			viewing
			locking
			blooming
			closing
		}{s, v, g, b, c}
	case hasKeys | hasGC | hasBloom | hasClose:
		return struct {
			*store
			keysErr
			locking
			blooming
			closing
		}{s, k, g, b, c}
	case hasView | hasKeys | hasGC | hasBloom | hasClose:
		return struct {
			*store
			viewing
			keysErr
			locking
			blooming
			closing
		}{s, v, k, g, b, c}
	}
	return s
}
