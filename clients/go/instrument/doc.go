// SPDX-License-Identifier: MIT OR Apache-2.0

// Package instrument reports what boxo and libp2p do to boxo-agent, without further code of yours:
//
//	monitor := boxoevents.NewPerformanceMonitor()
//	store = instrument.WrapBlockstore(monitor, store)
//	swap := bitswap.New(ctx, net, nil, store, bitswap.WithTracer(instrument.NewPeerTracer(monitor)))
//	instrument.WatchBitswap(monitor, swap, host)
//	instrument.WatchHost(monitor, host, bandwidth)
//	service := blockservice.New(store, instrument.WrapExchange(monitor, swap))
//	monitor.StartCollection(ctx, time.Second)
//
// Everything here may be used from any goroutine, as what it wraps may. A wrapped call costs some 100 ns more,
// most of it for reading the clock twice; where there is no agent, some 10 ns.
package instrument
