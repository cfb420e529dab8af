// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* TCP connections of the target: made and accepted, how long that took, how it failed, what was retransmitted and
 * reset. Most of it happens in interrupts, where the current task means nothing: whose a socket is, is decided when it
 * begins to connect or listen, or from the open files of a process that is new to the target, and then remembered with
 * the socket. An accepted connection inherits that from the socket that listened. */
#include <asm/errno.h>

#include "hist.h"
#include "listeners.h"
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

/* What is remembered of a socket of the target. */
struct connection {
	u64 syn_at; /* when it sent its SYN; 0: it sent none, or that was not seen */
};

/* The kernel gives a connection that is accepted a copy of what its listener has. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct connection);
} sockets SEC(".maps");

/* Where the kernel is too old for that. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, struct connection);
} sockets_by_address SEC(".maps");

/* There, what was closed last: a socket is closed before its reset is sent. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u8);
} closed_by_address SEC(".maps");

static __always_inline struct connection *connection_of(struct sock *sk)
{
	u64 key = (u64)sk;

	if (socket_storage())
		return bpf_sk_storage_get(&sockets, sk, 0, 0);
	return bpf_map_lookup_elem(&sockets_by_address, &key);
}

/* Leaves what is already known of it as it is. */
static __always_inline void remember_socket(struct sock *sk, u64 syn_at)
{
	struct connection new = {.syn_at = syn_at};
	u64 key = (u64)sk;

	if (socket_storage()) {
		if (!bpf_sk_storage_get(&sockets, sk, &new, BPF_SK_STORAGE_GET_F_CREATE))
			count(&full, 0, 1);
	} else if (bpf_map_update_elem(&sockets_by_address, &key, &new, BPF_NOEXIST) == -7 /* E2BIG */) {
		count(&full, 0, 1);
	}
}

static __always_inline void forget_socket(struct sock *sk)
{
	u64 key = (u64)sk;
	u8 yes = 1;

	if (socket_storage()) /* which ends with its socket */
		return;
	bpf_map_delete_elem(&sockets_by_address, &key);
	bpf_map_update_elem(&closed_by_address, &key, &yes, BPF_ANY);
}

/* A socket begins that may lie where another one was. */
static __always_inline void begins(struct sock *sk)
{
	u64 key = (u64)sk;

	if (!socket_storage())
		bpf_map_delete_elem(&closed_by_address, &key);
}

static __always_inline bool closed_lately(struct sock *sk)
{
	u64 key = (u64)sk;

	return !socket_storage() && bpf_map_lookup_elem(&closed_by_address, &key);
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

static __always_inline void listens(struct sock *sk)
{
	if (socket_storage())
		remember_socket(sk, 0);
	else if (keep_listener(sk))
		count(&full, 0, 1);
}

static __always_inline void established(struct sock *sk, int from)
{
	if (from == TCP_SYN_RECV && !connection_of(sk) && came_to_listener(sk))
		remember_socket(sk, 0);
	struct connection *c = connection_of(sk);

	if (!c)
		return;
	if (from == TCP_SYN_RECV && !c->syn_at) {
		count(&connects, RESULT_OK, 1);
		return;
	}
	u64 now = bpf_ktime_get_ns();

	count(&connects, RESULTS + RESULT_OK, 1);
	if (c->syn_at)
		observe(&latency, 0, now > c->syn_at ? now - c->syn_at : 0, 16000);
	c->syn_at = 0;
}

static __always_inline void closed(struct sock *sk, int from)
{
	if (from == TCP_LISTEN)
		return listens_no_more(sk);
	struct connection *c = connection_of(sk);

	if (!c)
		return;
	if (from == TCP_SYN_SENT)
		count(&connects, RESULTS + result_of(sk), 1);
	c->syn_at = 0; /* it may connect or listen again */
	forget_socket(sk);
}

SEC("tp_btf/inet_sock_set_state")
int TIMED_PROG(on_state, struct sock *sk, int from, int to)
{
	struct watched *w = watching();

	if (!w || sk->sk_type != SOCK_STREAM)
		return 0;
	if (to == TCP_SYN_SENT || to == TCP_LISTEN || to == TCP_SYN_RECV)
		begins(sk);
	if (to == TCP_SYN_SENT || to == TCP_LISTEN) { /* in connect() or listen(): the current task asks for it */
		if (!is_member(w, bpf_get_current_pid_tgid() >> 32))
			return 0;
		if (to == TCP_LISTEN) {
			listens(sk);
			return 0;
		}
		remember_socket(sk, 0);
		struct connection *c = connection_of(sk);

		if (c)
			c->syn_at = bpf_ktime_get_ns();
	} else if (to == TCP_ESTABLISHED) {
		established(sk, from);
	} else if (to == TCP_CLOSE) {
		closed(sk, from);
	}
	return 0;
}

/* The segments in a buffer that is sent again. */
static __always_inline u32 segments_of(struct sk_buff *skb)
{
	struct tcp_skb_cb *cb = (void *)skb + bpf_core_field_offset(skb->cb);
	u32 segments = BPF_CORE_READ(cb, tcp_gso_segs);

	return segments ? segments : 1;
}

SEC("tp_btf/tcp_retransmit_skb")
int TIMED_PROG(on_retransmit, struct sock *sk, struct sk_buff *skb)
{
	if (sk && connection_of(sk))
		count(&retransmits, 0, segments_of(skb));
	return 0;
}

static __always_inline int reset(struct sock *sk)
{
	if (sk && sk->__sk_common.skc_state != TCP_LISTEN && (connection_of(sk) || closed_lately(sk)))
		count(&resets, 0, 1);
	return 0;
}

SEC("tp_btf/tcp_send_reset")
int TIMED_PROG(on_reset_sent, struct sock *sk)
{
	return reset(sk);
}

SEC("tp_btf/tcp_receive_reset")
int TIMED_PROG(on_reset_received, struct sock *sk)
{
	return reset(sk);
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
	struct sock *inner = inner_listener(sk);
	u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	if (inner && keep_listener(inner))
		count(&full, 0, 1);
	if (state == TCP_LISTEN)
		listens(sk);
	else if (state != TCP_CLOSE)
		remember_socket(sk, 0);
	return 0;
}
