// SPDX-License-Identifier: MIT OR Apache-2.0

// Package eventstest is an agent for tests: it listens, checks every line and adds up what it receives, with a
// parser that shares nothing with the sender.
package eventstest

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// maxDatagram is what the agent reads at once.
const maxDatagram = 8192

// Totals is what arrived. A key is the metric's name, followed by "|#tags" if the line had any.
type Totals struct {
	Counters map[string]float64   // sums
	Gauges   map[string]float64   // last values
	Samples  map[string][]float64 // values as sent
	Weights  map[string]float64   // for how many observations the samples stand
}

// Agent listens on Path until the test ends. All methods may be called from any goroutine.
type Agent struct {
	Path string

	t    testing.TB
	conn *net.UnixConn
	done chan struct{}

	mu        sync.Mutex
	totals    Totals
	largest   int
	sequences []int64
	bad       []string
}

// New makes an agent that listens on path, or on a path of its own if that is empty.
func New(t testing.TB, path string) *Agent {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "events.sock")
	}
	s := &Agent{t: t, Path: path}
	s.Reset()
	s.Listen()
	t.Cleanup(s.Close)
	return s
}

// Reset forgets what arrived.
func (s *Agent) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.totals = Totals{
		Counters: map[string]float64{},
		Gauges:   map[string]float64{},
		Samples:  map[string][]float64{},
		Weights:  map[string]float64{},
	}
}

// Listen begins anew after Close.
func (s *Agent) Listen() {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.Path, Net: "unixgram"})
	if err != nil {
		s.t.Fatal(err)
	}
	s.conn, s.done = conn, make(chan struct{})
	go s.read(conn, s.done)
}

// Close ends listening and removes the socket.
func (s *Agent) Close() {
	_ = s.conn.Close()
	<-s.done
	_ = os.Remove(s.Path)
}

func (s *Agent) read(conn *net.UnixConn, done chan struct{}) {
	defer close(done)
	buf := make([]byte, 1<<16)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			s.t.Error(err)
			return
		}
		s.mu.Lock()
		s.largest = max(s.largest, n)
		text := string(buf[:n])
		if !strings.HasSuffix(text, "\n") || !strings.HasPrefix(text, "agent.client.sequence:") {
			s.bad = append(s.bad, text)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
			if err := s.line(line); err != nil {
				s.bad = append(s.bad, fmt.Sprintf("%v: %s", err, line))
			}
		}
		s.mu.Unlock()
	}
}

func (s *Agent) line(line string) error {
	parts := strings.Split(line, "|")
	if len(parts) < 2 {
		return errors.New("no type")
	}
	name, packed, ok := strings.Cut(parts[0], ":")
	if !ok {
		return errors.New("no value")
	}
	rate, key := 1.0, name
	for _, part := range parts[2:] {
		switch {
		case strings.HasPrefix(part, "@"):
			var err error
			if rate, err = strconv.ParseFloat(part[1:], 64); err != nil || rate < 1e-6 || rate > 1 {
				return errors.New("bad rate")
			}
		case strings.HasPrefix(part, "#"):
			key += "|" + part
		default:
			return errors.New("unknown part")
		}
	}
	for value := range strings.SplitSeq(packed, ":") {
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return errors.New("bad value")
		}
		switch parts[1] {
		case "c":
			s.totals.Counters[key] += v / rate
		case "g":
			if value[0] == '-' || value[0] == '+' {
				v += s.totals.Gauges[key]
			}
			s.totals.Gauges[key] = v
			if name == "agent.client.sequence" {
				s.sequences = append(s.sequences, int64(v))
			}
		case "ms", "h":
			s.totals.Samples[key] = append(s.totals.Samples[key], v)
			s.totals.Weights[key] += math.Round(1 / rate)
		default:
			return errors.New("bad type")
		}
	}
	return nil
}

// Stall stops reading until the returned function is called.
func (s *Agent) Stall() (resume func()) {
	s.mu.Lock()
	return s.mu.Unlock
}

// Check runs f on the sums, and fails the test if a line was bad or a datagram is missing.
func (s *Agent) Check(f func(now *Totals)) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, bad := range s.bad {
		s.t.Errorf("bad: %.300s", bad)
	}
	for i, n := range s.sequences {
		if n != int64(i+1) {
			s.t.Fatalf("datagram %d has number %d", i+1, n)
		}
	}
	if s.largest > maxDatagram {
		s.t.Errorf("a datagram has %d bytes", s.largest)
	}
	f(&s.totals)
}

// Wait waits until the sums are such, and fails the test after 10 seconds.
func (s *Agent) Wait(what string, until func(now *Totals) bool) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		s.mu.Lock()
		ok := until(&s.totals)
		s.mu.Unlock()
		if ok {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Fatalf("%s: counters %v gauges %v weights %v", what, s.totals.Counters, s.totals.Gauges, s.totals.Weights)
}
