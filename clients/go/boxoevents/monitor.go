// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Collector is a source of metrics that the monitor asks before each flush: the four built-in collectors, or one
// of your own.
//
// What CollectMetrics of your own collector returns is sent under "name.key", name being the one it was
// registered with: whole numbers of any integer type as a count since the start (a counter), floating-point
// numbers as a present value (a gauge), a time.Duration as a gauge in seconds. Anything else is refused.
type Collector interface {
	CollectMetrics(ctx context.Context) (map[string]any, error)
	GetMetricNames() []string
}

// builtin is a Collector that owns its series.
type builtin interface {
	Collector
	attach(g *gate) bool // false: it has a monitor already
	// poll reads what has to be read rather than recorded.
	poll()
	emit(e *encoder, all bool, now time.Time) error
}

// PerformanceMonitor sends what its collectors recorded to the agent. All methods may be called from any goroutine.
type PerformanceMonitor struct {
	config config
	client string
	gate   gate
	custom customTable
	drops  dropCounts

	mu         sync.Mutex
	collectors map[string]Collector
	builtins   []builtin
	pollers    []func()
	run        *runner
	sequence   uint64
	history    Stats // of the runs that ended
}

// NewPerformanceMonitor makes a monitor that sends nothing until StartCollection.
func NewPerformanceMonitor(options ...Option) *PerformanceMonitor {
	m := &PerformanceMonitor{
		config:     makeConfig(options),
		client:     clientID(),
		collectors: map[string]Collector{},
	}
	m.drops.init(m.client)
	m.custom.init(m)
	return m
}

// RegisterCollector adds a collector under a name. It fails if the name is taken, if a built-in collector is
// registered a second time, or if the name of a collector of your own cannot begin a metric's name.
func (m *PerformanceMonitor) RegisterCollector(name string, collector Collector) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.register(name, collector)
}

func (m *PerformanceMonitor) register(name string, collector Collector) error {
	if _, taken := m.collectors[name]; taken {
		return fmt.Errorf("boxoevents: a collector %q is registered already", name)
	}
	if own, ok := collector.(builtin); ok {
		if !own.attach(&m.gate) {
			return fmt.Errorf("boxoevents: collector %q has a monitor already", name)
		}
		m.builtins = append(m.builtins, own)
	} else if err := checkName(name); err != nil {
		return err
	}
	m.collectors[name] = collector
	return nil
}

// standard finds the collector under name, or registers a new one.
func standard[T Collector](m *PerformanceMonitor, name string, make func() T) T {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have, ok := m.collectors[name].(T); ok {
		return have
	}
	made := make()
	for m.register(name, made) != nil {
		name += "_" // only a collector of another type can be in the way
	}
	return made
}

// Bitswap is the collector registered as "bitswap", made when it is asked for first.
func (m *PerformanceMonitor) Bitswap() *BitswapCollector {
	return standard(m, "bitswap", NewBitswapCollector)
}

// Blockstore is the collector registered as "blockstore", made when it is asked for first.
func (m *PerformanceMonitor) Blockstore() *BlockstoreCollector {
	return standard(m, "blockstore", NewBlockstoreCollector)
}

// Network is the collector registered as "network", made when it is asked for first.
func (m *PerformanceMonitor) Network() *NetworkCollector {
	return standard(m, "network", NewNetworkCollector)
}

// Resource is the collector registered as "resource", made when it is asked for first.
func (m *PerformanceMonitor) Resource() *ResourceCollector {
	return standard(m, "resource", NewResourceCollector)
}

// OnFlush has poll called before each flush, on a goroutine of the monitor's own, while there is an agent.
// It is the place to read what counts by itself; a slow one delays its own news only.
func (m *PerformanceMonitor) OnFlush(poll func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pollers = append(m.pollers, poll)
}

// CollectMetrics asks every collector and returns what each said, by its name.
func (m *PerformanceMonitor) CollectMetrics(ctx context.Context) (map[string]map[string]any, error) {
	m.mu.Lock()
	collectors := maps.Clone(m.collectors)
	m.mu.Unlock()
	all := make(map[string]map[string]any, len(collectors))
	var failed error
	for _, name := range slices.Sorted(maps.Keys(collectors)) {
		values, err := collectors[name].CollectMetrics(ctx)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("collector %q: %w", name, err))
			continue
		}
		all[name] = values
	}
	return all, failed
}

// StartCollection begins to send, every interval (zero: what WithFlushInterval said), until the context ends or
// StopCollection is called. It does nothing when collection runs already, or when the socket is "off".
func (m *PerformanceMonitor) StartCollection(ctx context.Context, interval time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run != nil {
		select {
		case <-m.run.done: // ended with its context
			m.retire()
		default:
			return
		}
	}
	if m.config.socket == "off" {
		m.gate.set(false)
		return
	}
	if interval <= 0 {
		interval = m.config.interval
	}
	m.gate.set(true)
	m.run = startRunner(ctx, m, interval)
}

// StopCollection sends what is left, waiting at most one second for the agent, and ends sending.
func (m *PerformanceMonitor) StopCollection() {
	m.mu.Lock()
	run := m.run
	m.mu.Unlock()
	if run == nil {
		return
	}
	run.cancel()
	<-run.done
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == run {
		m.retire()
	}
}

// retire keeps the numbers of the run that ended.
func (m *PerformanceMonitor) retire() {
	m.history = m.statsLocked()
	m.run = nil
}

// Close is StopCollection, as an io.Closer.
func (m *PerformanceMonitor) Close() error {
	m.StopCollection()
	return nil
}

// Flush sends what was recorded before the call, and returns when the kernel has it: an error if there is no agent, or
// with the context.
func (m *PerformanceMonitor) Flush(ctx context.Context) error {
	m.mu.Lock()
	run := m.run
	m.mu.Unlock()
	if run == nil {
		return errors.New("boxoevents: collection does not run")
	}
	return run.flushNow(ctx)
}

// Stats says how the sending goes.
type Stats struct {
	Connected bool
	Datagrams uint64
	Bytes     uint64
	// Dropped counts records, or lines of several, that will not reach the agent, by reason.
	Dropped map[string]uint64
	// LastError is the latest failure to reach the agent, or of a collector.
	LastError error
}

// Stats returns a copy of the present numbers.
func (m *PerformanceMonitor) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statsLocked()
}

func (m *PerformanceMonitor) statsLocked() Stats {
	s := m.history
	s.Dropped = m.drops.snapshot()
	if r := m.run; r != nil {
		s.Connected = r.sender.connected.Load()
		s.Datagrams += r.sender.datagrams.Load()
		s.Bytes += r.sender.bytes.Load()
		if err := r.sender.lastError.Load(); err != nil {
			s.LastError = *err
		}
	}
	return s
}
