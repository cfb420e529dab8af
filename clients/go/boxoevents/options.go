// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"os"
	"time"
)

const (
	// DefaultSocket is where the agent listens unless it was told otherwise.
	DefaultSocket = "/run/boxo-agent/events.sock"
	// SocketEnv names the environment variable that sets the socket's path; "off" sends nothing.
	SocketEnv = "BOXO_EVENTS_SOCKET"

	defaultInterval  = time.Second
	defaultGrace     = time.Minute
	defaultMaxSeries = 1000
	// gaugeRefresh is how often gauges that did not change are sent again.
	gaugeRefresh = 10 * time.Second
)

type config struct {
	socket    string
	interval  time.Duration
	grace     time.Duration
	tags      []string
	maxSeries int
}

// Option changes how a PerformanceMonitor sends.
type Option func(*config)

// WithSocket sets the path of the agent's socket; it wins over the environment. "off" sends nothing.
func WithSocket(path string) Option { return func(c *config) { c.socket = path } }

// WithFlushInterval sets how often what was recorded is sent; 1 s if not given.
func WithFlushInterval(d time.Duration) Option { return func(c *config) { c.interval = d } }

// WithTags adds "key:value" tags to every line. They become labels of custom metrics only.
func WithTags(tags ...string) Option { return func(c *config) { c.tags = append(c.tags, tags...) } }

// WithGrace sets how long the absence of the agent is bridged by collecting on, 1 minute if not given. After it
// clocks are no longer read and times no longer collected, until the agent is there again; counters count on.
func WithGrace(d time.Duration) Option { return func(c *config) { c.grace = d } }

// WithMaxSeries bounds the number of custom series, 1000 if not given.
func WithMaxSeries(n int) Option { return func(c *config) { c.maxSeries = n } }

func makeConfig(options []Option) config {
	c := config{
		socket:    DefaultSocket,
		interval:  defaultInterval,
		grace:     defaultGrace,
		maxSeries: defaultMaxSeries,
	}
	if path := os.Getenv(SocketEnv); path != "" {
		c.socket = path
	}
	for _, option := range options {
		option(&c)
	}
	if c.interval <= 0 {
		c.interval = defaultInterval
	}
	return c
}
