// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* TCP connections of the target: made and accepted, how long that took, how it failed, what was retransmitted and
 * reset. Most of it happens in interrupts, where the current task means nothing: whose a socket is, is decided when it
 * begins to connect or listen, or from the open files of a process that is new to the target, and then remembered with
 * the socket. An accepted connection inherits that from the socket that listened. */
#include <asm/errno.h>

#include "listeners.h"
#include "readings.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { RESULT_OK, RESULT_REFUSED, RESULT_TIMEOUT, RESULT_UNREACHABLE, RESULT_RESET, RESULT_ABORTED, RESULT_OTHER, RESULTS };

COUNTERS(connects, 2 * RESULTS);
HISTOGRAMS(latency, 1);
COUNTERS(retransmits, 1);
COUNTERS(syns_again, 1);
COUNTERS(resets, 1);
COUNTERS(full, 1);

PROBE = {.help = "TCP connections: made, accepted, failed and why, connect latency, retransmits, resets"};

METRICS = {
	{
		.map = "connects",
		.name = "boxo_network_tcp_connects_total",
		.help = "TCP connections that the target accepted (in; result=\"ok\" alone) or tried to make (out), by how that ended. aborted: "
			"given up by the target before there was an answer; other: also if there was no free local port.",
		.labels = "direction,result",
		.values = "in,out;ok,refused,timeout,unreachable,reset,aborted,other",
		.not_measured = ((1 << RESULTS) - 1) & ~(1 << RESULT_OK), /* what comes in is seen once it is established */
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
		.help = "TCP segments that the target's connections sent again, without SYNs: what it dials and nobody answers is in "
			"boxo_network_tcp_syn_retransmits_total.",
	},
	{
		.map = "syns_again",
		.name = "boxo_network_tcp_syn_retransmits_total",
		.help = "SYNs that the target sent again because nobody had answered: a node dials peers that are gone all the time.",
	},
	{
		.map = "resets",
		.name = "boxo_network_tcp_resets_total",
		.help = "TCP resets sent or received on connections of the target.",
	},
};

/* What a connection had is handed on when it ends: user space reads only those that are open then. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, ENDS_SIZE);
} ends SEC(".maps");

enum sock_flags { SOCK_DEAD, SOCK_DONE };

/* What is remembered of a socket of the target. */
struct connection {
	u64 syn_at; /* when it sent its SYN; 0: it sent none, or that was not seen */
};

KEPT_WITH_SOCKETS(sockets, struct connection);

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

/* By its number user space knows it again that has read it before. sock_diag gives the number by itself, the iterators
 * (since 6.1) do not. */
static __always_inline void number(struct sock *sk)
{
	/* Tracing programs can since 5.12 (c5dbb89fc2ac), which cannot be asked; this is of 5.13. */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_for_each_map_elem))
		bpf_get_socket_cookie(sk);
}

static __always_inline void hand_on(struct sock *sk)
{
	const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	struct connection_end *end;

	if (!tcp)
		return;
	end = bpf_ringbuf_reserve(&ends, sizeof(*end), 0);
	if (!end) {
		count(&full, 0, 1);
		return;
	}
	end->cookie = sk->__sk_common.skc_cookie.counter;
	end->bytes_sent = tcp->bytes_sent;
	end->bytes_again = tcp->bytes_retrans;
	end->bytes_received = tcp->bytes_received;
	/* The other side's FIN came, which is counted as a byte. */
	if (end->bytes_received && sk->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, SOCK_DONE) & 1)
		end->bytes_received--;
	end->segments_out = tcp->segs_out;
	end->segments_in = tcp->segs_in;
	end->retransmits = tcp->total_retrans;
	end->data_segments_out = tcp->data_segs_out;
	bpf_ringbuf_submit(end, BPF_RB_NO_WAKEUP);
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

enum { ORIGIN_ICMP = 2, ORIGIN_ICMP6 };

/* The ICMP error that waits to be read from the socket: IPv4 keeps it there for every socket that connects. */
static __always_inline u32 queued_error(const struct sock *sk)
{
	struct sk_buff *skb = BPF_CORE_READ(sk, sk_error_queue.next);

	if (!BPF_CORE_READ(sk, sk_error_queue.qlen))
		return 0;
	struct sock_exterr_skb *error = (void *)skb + bpf_core_field_offset(skb->cb);
	u8 origin = BPF_CORE_READ(error, ee.ee_origin);

	return origin == ORIGIN_ICMP || origin == ORIGIN_ICMP6 ? BPF_CORE_READ(error, ee.ee_errno) : 0;
}

/* Why the socket could not connect. An ICMP error that comes while connect() still works on the socket, as from a router on
 * the same host, does not end it: the target is told by SO_ERROR (which forgets sk_err_soft) and closes it. */
static __always_inline u32 error_of(const struct sock *sk)
{
	u32 error = BPF_CORE_READ(sk, sk_err);

	if (!error)
		error = BPF_CORE_READ(sk, sk_err_soft);
	return error ? error : queued_error(sk);
}

static __always_inline u32 result_of(const struct sock *sk)
{
	switch (error_of(sk)) {
	case 0:
		/* The kernel looks for a local port only after the socket's state has changed; connect() fails if there is none. */
		return BPF_CORE_READ((struct tcp_sock *)sk, segs_out) ? RESULT_ABORTED : RESULT_OTHER;
	case ECONNREFUSED:
		return RESULT_REFUSED;
	case ETIMEDOUT:
		return RESULT_TIMEOUT;
	case ENETUNREACH:
	case EHOSTUNREACH:
	case EACCES: /* IPv6 only, where the answer is that it is prohibited; with IPv4 that is EHOSTUNREACH */
	case EHOSTDOWN:
	case ENONET:
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
	struct connection *c = connection_of(sk);

	if (!c && target_accepts(sk, from)) {
		remember_socket(sk, 0);
		c = connection_of(sk);
	}
	if (!c)
		return;
	number(sk);
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
	/* In SYN_RECV if a SYN came in answer to its SYN. */
	if (from == TCP_SYN_SENT || (from == TCP_SYN_RECV && c->syn_at))
		count(&connects, RESULTS + result_of(sk), 1);
	hand_on(sk);
	c->syn_at = 0; /* it may connect or listen again */
	forget_socket(sk);
}

SEC("tp_btf/inet_sock_set_state")
int TIMED_PROG(on_state, struct sock *sk, int from, int to)
{
	struct watched *w = watching();

	/* A multipath socket (MPTCP) changes its state besides the TCP sockets inside, which count. */
	if (!w || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (to == TCP_SYN_SENT || to == TCP_LISTEN || to == TCP_SYN_RECV)
		begins(sk);
	if (target_begins(w, to)) {
		if (to == TCP_LISTEN) {
			listens(sk);
			return 0;
		}
		remember_socket(sk, 0);
		struct connection *c = connection_of(sk);

		if (c)
			c->syn_at = bpf_ktime_get_ns();
		number(sk);
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
		count(sk->__sk_common.skc_state == TCP_SYN_SENT ? (void *)&syns_again : (void *)&retransmits, 0, segments_of(skb));
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
	struct sock *sk = socket_of_target(ctx, &full);

	if (!sk || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	if (state == TCP_LISTEN)
		listens(sk);
	if (state == TCP_LISTEN || state == TCP_CLOSE)
		return 0;
	remember_socket(sk, 0);
	number(sk);
	return 0;
}
