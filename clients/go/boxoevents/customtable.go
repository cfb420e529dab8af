// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
)

// customTable holds the custom series, by name and tags.
type customTable struct {
	monitor *PerformanceMonitor
	mu      sync.Mutex
	set     seriesSet
	handles map[string]any
	polled  map[string]*polledMetric
}

type polledMetric struct {
	counter *Counter
	gauge   *Gauge
	last    uint64
}

func (t *customTable) init(m *PerformanceMonitor) {
	t.monitor = m
	t.handles = map[string]any{}
	t.polled = map[string]*polledMetric{}
}

func lookup[T any](t *customTable, kind, name string, tags []string, make func(lineID) any,
	wrap func(any, *counterSeries) T,
) (T, error) {
	drops := &t.monitor.drops
	id := lineID{name: name, kind: kind, tags: tagText(tags...)}
	if err := checkID(&id, tags); err != nil {
		return wrap(nil, drops.byName["invalid"]), err
	}
	key := name + id.tags
	t.mu.Lock()
	defer t.mu.Unlock()
	if have, ok := t.handles[key]; ok {
		if handle, ok := have.(T); ok {
			return handle, nil
		}
		return wrap(nil, drops.byName["invalid"]), fmt.Errorf("boxoevents: %s is a metric of another type", key)
	}
	if len(t.handles) >= t.monitor.config.maxSeries {
		return wrap(nil, drops.byName["series_limit"]), ErrTooManySeries
	}
	series := make(id)
	switch s := series.(type) {
	case *counterSeries:
		t.set.counters = append(t.set.counters, s)
	case *gaugeSeries:
		t.set.gauges = append(t.set.gauges, s)
	case *sampleSeries:
		t.set.samples = append(t.set.samples, s)
	}
	handle := wrap(series, drops.byName["invalid"])
	t.handles[key] = handle
	return handle, nil
}

func (t *customTable) emit(e *encoder, all bool) error {
	t.mu.Lock()
	set := t.set // series are only ever added, and the slices' elements never change
	t.mu.Unlock()
	return set.emit(e, all)
}

// ownCollector is a collector that is not one of ours, with its name.
type ownCollector struct {
	name      string
	collector Collector
}

// collect asks one collector of the application's own and turns what it says into custom series.
func (t *customTable) collect(ctx context.Context, own ownCollector) error {
	values, err := own.collector.CollectMetrics(ctx)
	if err != nil {
		return fmt.Errorf("collector %q: %w", own.name, err)
	}
	var failed error
	for key, value := range values {
		name := own.name + "." + key
		if err := t.setPolled(name, value); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func (t *customTable) setPolled(name string, value any) error {
	count, present, isCount, err := polledValue(value)
	if err != nil {
		t.monitor.drops.add("invalid", 1)
		return fmt.Errorf("%s: %w", name, err)
	}
	p := t.polled[name] // the poller's goroutine only
	if p == nil {
		p = &polledMetric{}
		if isCount {
			p.counter, err = t.monitor.Counter(name)
		} else {
			p.gauge, err = t.monitor.Gauge(name)
		}
		if err != nil {
			t.monitor.drops.add("invalid", 1)
			return err
		}
		t.polled[name] = p
	}
	if !isCount {
		p.gauge.Set(present)
		return nil
	}
	if count < p.last {
		p.last = 0 // the collector began anew
	}
	p.counter.Add(int64(count - p.last))
	p.last = count
	return nil
}

func polledValue(value any) (count uint64, present float64, isCount bool, err error) {
	if d, ok := value.(time.Duration); ok {
		return 0, d.Seconds(), false, nil
	}
	v := reflect.ValueOf(value)
	switch {
	case v.CanInt():
		if v.Int() < 0 {
			return 0, 0, true, errors.New("a count cannot be negative")
		}
		return uint64(v.Int()), 0, true, nil
	case v.CanUint():
		return v.Uint(), 0, true, nil
	case v.CanFloat():
		return 0, v.Float(), false, nil
	}
	return 0, 0, false, fmt.Errorf("a %T is no number", value)
}
