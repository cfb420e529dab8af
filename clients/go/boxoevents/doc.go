// SPDX-License-Identifier: MIT OR Apache-2.0

// Package boxoevents tells boxo-agent what only the application knows: which requests, how long, hit or miss,
// which peer. It needs nothing but the standard library; wrappers for boxo and libp2p that call it by themselves
// are in the module instrument, a kubo with everything built in is in the module kubo.
//
//	monitor := boxoevents.NewPerformanceMonitor()
//	bitswap := boxoevents.NewBitswapCollector()
//	monitor.RegisterCollector("bitswap", bitswap)
//	monitor.StartCollection(ctx, time.Second)
//	defer monitor.StopCollection()
//
//	bitswap.RecordRequest()
//	bitswap.RecordResponse(50*time.Millisecond, true)
//
// # What a record costs
//
// Every Record and Update method may be called from any goroutine. None waits for another goroutine or for the
// agent, none allocates, and each costs some 10 ns (counts) to 50 ns (times), with 8 goroutines at once too.
// Records are added up in the process and sent once per interval by one goroutine of the monitor:
//
//   - counts as their increase, exactly, whatever happens in between: a count is never lost while the process lives;
//   - gauges as their last value;
//   - times and other samples one by one, up to 2048 of a series per interval. Of more than that a fair choice is
//     sent, each with a whole number as its weight (@rate), so that their number stays exact.
//
// # When there is no agent
//
// The socket is $BOXO_EVENTS_SOCKET, else /run/boxo-agent/events.sock. If nobody listens there, the monitor looks
// again, every 5 seconds at last. What is recorded meanwhile is kept, in bounded memory, and sent later; after a
// minute times are no longer collected and clocks no longer read (Enabled says so), only counts go on.
// BOXO_EVENTS_SOCKET=off sends nothing.
//
// # What gets lost is told
//
// Every datagram carries its number, so that the agent can count those that never arrived, and the client's own
// losses are sent as agent.client.dropped with a reason: "invalid" (no finite number, a negative count),
// "series_limit" (custom series beyond the limit), "closed" (the agent did not read when the monitor stopped).
package boxoevents
