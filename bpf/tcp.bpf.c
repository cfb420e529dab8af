// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* TCP connections of the target: made and accepted, how long that took, how it failed, what was retransmitted and
 * reset. Most of it happens in interrupts, where the current task means nothing: whose a socket is, is decided when it
 * begins to connect or listen, or from the open files of a process that is new to the target, and then remembered. */
#include <asm/errno.h>

#include "hist.h"
#include "sockets.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { RESULT_OK, RESULT_REFUSED, RESULT_TIMEOUT, RESULT_UNREACHABLE, RESULT_RESET, RESULT_ABORTED, RESULT_OTHER, RESULTS };

COUNTERS(connects, 2 * RESULTS);
HISTOGRAMS(latency, 1);
COUNTERS(retransmits, 1);
COUNTERS(resets, 1);
COUNTERS(full, 1);

PROBE = {.help = "TCP connections: made, accepted, failed and why, connect latency, retransmits, resets"};

METRICS = {
	{
		.map = "connects",
		.name = "boxo_network_tcp_connects_total",
		.help = "TCP connections that the target accepted (in) or tried to make (out), by how that ended; aborted: "
			"given up by the target before there was an answer.",
		.labels = "direction,result",
		.values = "in,out;ok,refused,timeout,unreachable,reset,aborted,other",
	},
	{
		.map = "latency",
		.name = "boxo_network_tcp_connect_latency_seconds",
		.help = "Outgoing TCP connections of the target: from the first SYN until established.",
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_NANOSECONDS,
		.base = 16000,
		.edges = 21,
	},
	{
		.map = "retransmits",
		.name = "boxo_network_tcp_retransmits_total",
		.help = "TCP segments that the target's connections sent again.",
	},
	{
		.map = "resets",
		.name = "boxo_network_tcp_resets_total",
		.help = "TCP resets sent or received on connections of the target.",
	},
};

/* Sockets of the target by address, with the time of the SYN (0: not known). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, u64);
} connections SEC(".maps");

/* Ports on which the target listens. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct port);
	__type(value, u64); /* the listening socket */
} listeners SEC(".maps");

static __always_inline void keep(void *map, const void *key, u64 value)
{
	if (bpf_map_update_elem(map, key, &value, BPF_ANY))
		count(&full, 0, 1);
}

static __always_inline u32 result_of(const struct sock *sk)
{
	switch (BPF_CORE_READ(sk, sk_err)) {
	case 0:
		return RESULT_ABORTED;
	case ECONNREFUSED:
		return RESULT_REFUSED;
	case ETIMEDOUT:
		return RESULT_TIMEOUT;
	case ENETUNREACH:
	case EHOSTUNREACH:
		return RESULT_UNREACHABLE;
	case ECONNRESET:
		return RESULT_RESET;
	}
	return RESULT_OTHER;
}

static __always_inline void listens(const struct sock *sk)
{
	struct port port = port_of(sk);

	keep(&listeners, &port, (u64)sk);
}

static __always_inline void established(const struct sock *sk, int from)
{
	u64 key = (u64)sk, now = bpf_ktime_get_ns();

	if (from == TCP_SYN_RECV) {
		struct port port = port_of(sk);

		if (!bpf_map_lookup_elem(&listeners, &port))
			return;
		keep(&connections, &key, 0);
		count(&connects, RESULT_OK, 1);
		return;
	}
	u64 *at = bpf_map_lookup_elem(&connections, &key);

	if (!at || from != TCP_SYN_SENT)
		return;
	count(&connects, RESULTS + RESULT_OK, 1);
	if (*at)
		observe(&latency, 0, now > *at ? now - *at : 0, 16000);
}

static __always_inline void closed(const struct sock *sk, int from)
{
	u64 key = (u64)sk;

	if (from == TCP_LISTEN) {
		struct port port = port_of(sk);
		u64 *listener = bpf_map_lookup_elem(&listeners, &port);

		if (listener && *listener == key)
			bpf_map_delete_elem(&listeners, &port);
		return;
	}
	if (!bpf_map_lookup_elem(&connections, &key))
		return;
	if (from == TCP_SYN_SENT)
		count(&connects, RESULTS + result_of(sk), 1);
	bpf_map_delete_elem(&connections, &key);
}

SEC("tp_btf/inet_sock_set_state")
int TIMED_PROG(on_state, const struct sock *sk, int from, int to)
{
	struct watched *w = watching();

	if (!w || sk->sk_type != SOCK_STREAM)
		return 0;
	if (to == TCP_SYN_SENT || to == TCP_LISTEN) { /* in connect() or listen(): the current task asks for it */
		u64 key = (u64)sk;

		if (!is_member(w, bpf_get_current_pid_tgid() >> 32))
			return 0;
		if (to == TCP_LISTEN)
			listens(sk);
		else
			keep(&connections, &key, bpf_ktime_get_ns());
	} else if (to == TCP_ESTABLISHED) {
		established(sk, from);
	} else if (to == TCP_CLOSE) {
		closed(sk, from);
	}
	return 0;
}

static __always_inline int counted(void *map, u64 sk)
{
	if (sk && bpf_map_lookup_elem(&connections, &sk))
		count(map, 0, 1);
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int TIMED_PROG(on_retransmit)
{
	return counted(&retransmits, ctx[0]);
}

SEC("tp_btf/tcp_send_reset")
int TIMED_PROG(on_reset_sent)
{
	return counted(&resets, ctx[0]);
}

SEC("tp_btf/tcp_receive_reset")
int TIMED_PROG(on_reset_received)
{
	return counted(&resets, ctx[0]);
}

/* Sockets that a process had before it was watched. */
SEC("iter/task_file")
int remember(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct watched *w = watching();

	if (!w || !task || !file || !is_member(w, task->tgid))
		return 0;
	struct sock *sk = sock_of(file);

	if (!sk || BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return 0;
	u64 key = (u64)sk;
	u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	if (state == TCP_LISTEN)
		listens(sk);
	else if (state != TCP_CLOSE)
		keep(&connections, &key, 0);
	return 0;
}
