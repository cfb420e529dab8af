// SPDX-License-Identifier: MIT OR Apache-2.0

// Package plugin is boxo-agent's events as a kubo plugin: a node that has it tells the agent of every block it is
// asked for, fetches, sends, reads and writes, of its peers and of the Go runtime.
//
// Build it in with one line: in a main of your own
//
//	kubo.Start(kubo.BuildEnv(func(l *loader.PluginLoader) error { return l.Load(plugin.New()) }))
//
// (the command ipfs of this module is no more than that), or in kubo's plugin/loader/preload_list:
//
//	boxo-events github.com/boxo-agent/boxo-agent/clients/go/kubo/plugin *
//
// Only the daemon opens the socket. Its configuration, all of it optional, is in kubo's own; CountBlocks is how often
// blocks and bytes stored are counted ("off": never), at most 1 % of the time:
//
//	"Plugins": {"Plugins": {"boxo-events": {"Disabled": false, "Config": {
//	  "Socket": "/run/boxo-agent/events.sock", "Interval": "1s", "CountBlocks": "30s"}}}}
package plugin

import (
	"context"
	"fmt"
	"time"

	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/boxo-agent/boxo-agent/clients/go/instrument"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/kubo/core"
	"github.com/ipfs/kubo/core/node"
	"github.com/ipfs/kubo/plugin"
	"github.com/ipfs/kubo/repo"
	"go.uber.org/fx"
)

const (
	// Name is the plugin's name in kubo's configuration.
	Name = "boxo-events"

	version = "1.0.0"
	// storageShare bounds what asking for the repository's size costs: 1 % of the time.
	storageShare = 100
)

// Plugins is what kubo's preload list takes.
var Plugins = []plugin.Plugin{New()}

var (
	_ plugin.PluginFx             = (*Plugin)(nil)
	_ plugin.PluginDaemonInternal = (*Plugin)(nil)
)

// Plugin is one node's plugin.
type Plugin struct {
	config  config
	monitor *boxoevents.PerformanceMonitor
	cancel  context.CancelFunc
}

// New makes a plugin, for PluginLoader.Load.
func New() *Plugin { return &Plugin{} }

// Name is what kubo knows the plugin by.
func (*Plugin) Name() string { return Name }

// Version is the plugin's own.
func (*Plugin) Version() string { return version }

// Init reads the configuration. It runs for every command, so it opens nothing.
func (p *Plugin) Init(env *plugin.Environment) error {
	var err error
	if p.config, err = readConfig(env.Config); err != nil {
		return fmt.Errorf("plugin %s: %w", Name, err)
	}
	var options []boxoevents.Option
	if p.config.socket != "" {
		options = append(options, boxoevents.WithSocket(p.config.socket))
	}
	p.monitor = boxoevents.NewPerformanceMonitor(options...)
	return nil
}

// bitswapOptions joins kubo's own options for Bitswap.
type bitswapOptions struct {
	fx.Out
	Options []bitswap.Option `group:"bitswap-options,flatten"`
}

// Options wraps the blockstore and the exchange of every node that is made, be it for one command. Without a daemon
// the wrappers only count.
func (p *Plugin) Options(info core.FXNodeInfo) ([]fx.Option, error) {
	return append(info.FXOptions,
		fx.Provide(func() bitswapOptions {
			return bitswapOptions{Options: []bitswap.Option{
				bitswap.WithTracer(instrument.NewPeerTracer(p.monitor)),
				bitswap.WithClientOption(client.WithTraceBlock(true)),
			}}
		}),
		// What is asked of the base is there or is not; what kubo's cache does not answer is read and written below.
		fx.Decorate(func(bs node.BaseBlocks) node.BaseBlocks { return instrument.WrapBlockstoreLookups(p.monitor, bs) }),
		fx.Decorate(func(r repo.Repo) repo.Repo { return wrapRepo(p.monitor, r) }),
		fx.Decorate(func(ex exchange.Interface) exchange.Interface {
			if swap, ok := ex.(*bitswap.Bitswap); ok {
				return instrument.WrapExchange(p.monitor, swap)
			}
			return ex // an offline node's, which only looks into the blockstore
		}),
	), nil
}

// Start begins to send; kubo calls it in the daemon only.
func (p *Plugin) Start(n *core.IpfsNode) error {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	if n.Bitswap != nil {
		instrument.WatchBitswap(p.monitor, n.Bitswap, n.PeerHost)
	}
	if n.PeerHost != nil {
		if n.Reporter != nil {
			instrument.WatchHost(p.monitor, n.PeerHost, n.Reporter)
		} else {
			instrument.WatchHost(p.monitor, n.PeerHost, nil)
		}
	}
	p.monitor.Resource()
	if p.config.countBlocks > 0 {
		instrument.WatchBlockCount(ctx, p.monitor, n.BaseBlocks, p.config.countBlocks)
		go p.watchStorage(ctx, n.Repo)
	}
	p.monitor.StartCollection(context.Background(), p.config.interval)
	return nil
}

// watchStorage reports the repository's size, as "ipfs repo stat" does. Some datastores walk their files for it.
func (p *Plugin) watchStorage(ctx context.Context, r repo.Repo) {
	for {
		began := time.Now()
		if bytes, err := r.GetStorageUsage(ctx); err == nil {
			p.monitor.Blockstore().UpdateStorage(int64(bytes))
		}
		select {
		case <-time.After(max(p.config.countBlocks, storageShare*time.Since(began))):
		case <-ctx.Done():
			return
		}
	}
}

// Close sends what is left.
func (p *Plugin) Close() error {
	p.cancel()
	p.monitor.StopCollection()
	return nil
}
