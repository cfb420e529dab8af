// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// closeWait is how long StopCollection waits for an agent that does not read.
const closeWait = time.Second

// runner is one StartCollection: a goroutine that encodes and sends, and one that polls.
type runner struct {
	m        *PerformanceMonitor
	interval time.Duration
	ctx      context.Context
	cancel   context.CancelFunc
	done     chan struct{}
	flushes  chan chan error
	polls    chan chan struct{}
	polling  chan struct{} // of the poll under way, if it is late
	sender   sender
	encoder  encoder
	closing  atomic.Int64 // when closing began, in Unix nanoseconds

	fullAt     time.Time
	connection int
}

func clientID() string {
	return fmt.Sprintf("%d-%08x", os.Getpid(), rand.Uint32())
}

func startRunner(ctx context.Context, m *PerformanceMonitor, interval time.Duration) *runner {
	r := &runner{
		m:        m,
		interval: interval,
		done:     make(chan struct{}),
		flushes:  make(chan chan error),
		polls:    make(chan chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.sender = sender{path: m.config.socket, grace: m.config.grace, gate: &m.gate, stop: r.ctx.Done(), giveUp: r.giveUp}
	r.encoder = encoder{buf: make([]byte, 0, datagramSize), tags: tagText(m.config.tags...), begin: r.begin, send: r.send}
	go r.loop()
	go r.pollLoop()
	return r
}

// begin starts each datagram with its number, from which the agent sees what got lost on the way.
func (r *runner) begin(buf []byte) []byte {
	r.m.sequence++ // only one runner lives at a time
	buf = append(buf, "agent.client.sequence:"...)
	buf = strconv.AppendUint(buf, r.m.sequence, 10)
	buf = append(buf, "|g|#client:"...)
	return append(append(buf, r.m.client...), '\n')
}

func (r *runner) send(datagram []byte) error {
	err := r.sender.send(datagram)
	if err != nil {
		r.m.drops.add("closed", int64(bytes.Count(datagram, []byte{'\n'}))-1)
	}
	return err
}

func (r *runner) giveUp() bool {
	if r.ctx.Err() == nil {
		return false
	}
	r.closing.CompareAndSwap(0, time.Now().UnixNano())
	return time.Since(time.Unix(0, r.closing.Load())) > closeWait
}

func (r *runner) loop() {
	defer close(r.done)
	defer r.sender.disconnect()
	defer close(r.polls)
	ticker := time.NewTicker(r.interval)
	defer ticker.Stop()
	for {
		var answer chan error
		select {
		case <-ticker.C:
		case answer = <-r.flushes:
		case <-r.ctx.Done():
			_ = r.tick()
			return
		}
		err := r.tick()
		if answer != nil {
			answer <- err
		}
	}
}

func (r *runner) tick() error {
	now := time.Now()
	if !r.sender.connect(now) {
		return fmt.Errorf("boxoevents: no agent at %s", r.sender.path)
	}
	r.poll()
	all := r.connection != r.sender.reconnects || now.Sub(r.fullAt) >= gaugeRefresh
	if all {
		r.connection, r.fullAt = r.sender.reconnects, now
	}
	err := r.m.emit(&r.encoder, all, now)
	if err == nil {
		err = r.encoder.flush()
	}
	r.m.drops.add("closed", r.encoder.lost)
	r.encoder.lost = 0
	return err
}

// poll runs the pollers, and goes on without them when they take too long.
func (r *runner) poll() {
	if r.polling != nil { // late since an earlier tick
		select {
		case <-r.polling:
			r.polling = nil
		default:
			return
		}
	}
	done := make(chan struct{})
	r.polls <- done
	patience := time.NewTimer(min(r.interval, time.Second))
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		r.polling = done
	}
}

func (r *runner) pollLoop() {
	for done := range r.polls {
		r.m.poll(context.WithoutCancel(r.ctx)) // the last one runs while closing
		close(done)
	}
}

func (r *runner) flushNow(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case r.flushes <- answer:
	case <-r.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-r.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poll reads everything that has to be read.
func (m *PerformanceMonitor) poll(ctx context.Context) {
	m.mu.Lock()
	pollers := append([]func(){}, m.pollers...)
	for _, b := range m.builtins {
		pollers = append(pollers, b.poll)
	}
	var own []ownCollector
	for name, c := range m.collectors {
		if _, ok := c.(builtin); !ok {
			own = append(own, ownCollector{name, c})
		}
	}
	run := m.run
	m.mu.Unlock()
	for _, poll := range pollers {
		poll()
	}
	for _, c := range own {
		if err := m.custom.collect(ctx, c); err != nil && run != nil {
			run.sender.fail(err)
		}
	}
}

// emit writes all that is new.
func (m *PerformanceMonitor) emit(e *encoder, all bool, now time.Time) error {
	m.mu.Lock()
	builtins := m.builtins
	m.mu.Unlock()
	for _, b := range builtins {
		if err := b.emit(e, all, now); err != nil {
			return err
		}
	}
	if err := m.custom.emit(e, all); err != nil {
		return err
	}
	return m.drops.emit(e)
}
