// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"sync"
	"sync/atomic"
	"time"
)

// OtherPeer is the name under which peers beyond the limit are summed.
const OtherPeer = "other"

// peerIdle is how long a peer may be silent before it is forgotten, as the agent forgets it.
const peerIdle = 10 * time.Minute

// emitter is what a peer table holds for each peer.
type emitter interface {
	// emit writes what is new and says whether there was any.
	emit(e *encoder) (active bool, err error)
}

// peerTable finds a peer's series without a lock and without allocating; adding one copies the table, which is
// bounded. Peers beyond the limit share one entry.
type peerTable[T emitter] struct {
	make    func(peer string) T
	limit   int
	keep    time.Duration // how long a silent peer is remembered; 0: for ever
	entries atomic.Pointer[map[string]T]
	mu      sync.Mutex
	idle    map[string]time.Time // since when, for those without news; the sender's goroutine only
	// leaving are forgotten peers whose last records may still be under way: they are looked at once more.
	leaving []T
}

func newPeerTable[T emitter](limit int, keep time.Duration, make func(peer string) T) *peerTable[T] {
	t := &peerTable[T]{make: make, limit: limit, keep: keep}
	t.entries.Store(&map[string]T{})
	t.idle = map[string]time.Time{}
	return t
}

func (t *peerTable[T]) get(peer string) T {
	if entry, ok := (*t.entries.Load())[peer]; ok {
		return entry
	}
	return t.add(peer)
}

func (t *peerTable[T]) add(peer string) T {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.entries.Load()
	if len(old) >= t.limit {
		peer = OtherPeer
	}
	if entry, ok := old[peer]; ok {
		return entry
	}
	entries := make(map[string]T, len(old)+1)
	for k, v := range old {
		entries[k] = v
	}
	entries[peer] = t.make(peer)
	t.entries.Store(&entries)
	return entries[peer]
}

func (t *peerTable[T]) emit(e *encoder, now time.Time) error {
	leaving := t.leaving
	t.leaving = nil
	for _, entry := range leaving {
		if _, err := entry.emit(e); err != nil {
			return err
		}
	}
	var gone []string
	for peer, entry := range *t.entries.Load() {
		active, err := entry.emit(e)
		if err != nil {
			return err
		}
		since, waiting := t.idle[peer]
		switch {
		case active:
			delete(t.idle, peer)
		case !waiting:
			t.idle[peer] = now
		case t.keep > 0 && now.Sub(since) >= t.keep:
			gone = append(gone, peer)
		}
	}
	if len(gone) > 0 {
		t.forget(gone)
	}
	return nil
}

func (t *peerTable[T]) forget(gone []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := make(map[string]T)
	for k, v := range *t.entries.Load() {
		entries[k] = v
	}
	for _, peer := range gone {
		t.leaving = append(t.leaving, entries[peer])
		delete(entries, peer)
		delete(t.idle, peer)
	}
	t.entries.Store(&entries)
}
