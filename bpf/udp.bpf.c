// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What the target's internet sockets send and receive, by remote address, and which datagrams they lose. It is counted in
 * a cgroup (v2) that is above all of them, where each packet passes once: going out before it is cut into fragments or
 * segments, coming in when its socket is known and before that takes it in. Only there are the remotes of a UDP socket seen
 * that talks to many, as QUIC does. Whose a socket is, is remembered with it when it is made, begins to listen, or is found
 * open.
 *
 * Packets are what strangers send: each is looked at in bounds, nothing in it leads to more work than a map entry, and
 * what of it decides is the address; which protocol it has, the socket says. */
#include "cgroups.h"
#include "listeners.h"

#include <bpf/bpf_endian.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { SENT, RECEIVED, DIRECTIONS };
enum { REMOTE_TCP, REMOTE_UDP, REMOTE_QUIC, PROTOCOLS };
enum { REMOTE_BYTES, REMOTE_PACKETS = PROTOCOLS * DIRECTIONS };
enum { DROP_BUFFER, DROP_MEMORY, DROP_CHECKSUM, DROP_FILTER, DROP_POLICY, DROP_OTHER, DROPS };

COUNTERS(udp_bytes, DIRECTIONS);
COUNTERS(udp_packets, DIRECTIONS);
COUNTERS(quic_bytes, DIRECTIONS);
COUNTERS(quic_packets, DIRECTIONS);
COUNTERS(drops, DROPS);
COUNTERS(unlisted, REMOTE_VALUES);
COUNTERS(full, 1);

PROBE = {.help = "bytes and packets by remote address, of UDP and QUIC; dropped datagrams by reason"};

#define QUIC_IS                                                                                                    \
	"QUIC is a datagram with the fixed bit set, on a socket that has sent a long header of a known version."

METRICS = {
	{
		.map = "remotes",
		.name = "boxo_network_remote_bytes_total",
		.help = "Payload bytes by remote address; the busiest (--peers) by themselves, the rest as other: rates add up, "
			"values do not. udp is what is not QUIC; what TCP sends again counts again.",
		.labels = "remote,protocol,direction",
		.values = "*;tcp,udp,quic;sent,received",
		.kind = METRIC_REMOTES,
		.unit = UNIT_BYTES,
		.first = REMOTE_BYTES,
	},
	{
		.map = "remotes",
		.name = "boxo_network_remote_packets_total",
		.help = "Packets by remote address, TCP's without payload included; as boxo_network_remote_bytes_total.",
		.labels = "remote,protocol,direction",
		.values = "*;tcp,udp,quic;sent,received",
		.kind = METRIC_REMOTES,
		.first = REMOTE_PACKETS,
	},
	{
		.map = "udp_bytes",
		.name = "boxo_network_udp_bytes_total",
		.help = "Payload bytes of the datagrams that the target's UDP sockets sent and that arrived for them, QUIC "
			"included, also those then dropped by a full buffer.",
		.labels = "direction",
		.values = "sent,received",
		.unit = UNIT_BYTES,
	},
	{
		.map = "udp_packets",
		.name = "boxo_network_udp_packets_total",
		.help = "Datagrams that the target's UDP sockets sent and that arrived for them, QUIC included, also those "
			"then dropped by a full buffer.",
		.labels = "direction",
		.values = "sent,received",
	},
	{
		.map = "quic_bytes",
		.name = "boxo_network_quic_bytes_total",
		.help = "The part of boxo_network_udp_bytes_total that is QUIC, QUIC's own headers included. " QUIC_IS,
		.labels = "direction",
		.values = "sent,received",
		.unit = UNIT_BYTES,
	},
	{
		.map = "quic_packets",
		.name = "boxo_network_quic_packets_total",
		.help = "The datagrams of boxo_network_udp_packets_total that are QUIC. " QUIC_IS,
		.labels = "direction",
		.values = "sent,received",
	},
	{
		.map = "drops",
		.name = "boxo_network_udp_drops_total",
		.help = "Datagrams that the target's UDP sockets did not take in, by the kernel's reason where it tells (a full "
			"receive buffer, UDP's memory limit, a bad checksum, a filter, IPsec policy), else all as socket.",
		.labels = "reason",
		.values = "receive_buffer,memory,checksum,filter,policy,other",
		.tracepoint = "kfree_skb",
		.arguments = 4,
	},
};

struct mark {
	u32 quic; /* it has sent a long header of a known version */
};

/* Sockets of the target. */
KEPT_WITH_SOCKETS(marks, struct mark);

/* User space takes out who is silent. Made beforehand: entries come into being in interrupts. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, REMOTES_MAX);
	__type(key, struct remote_address);
	__type(value, struct remote);
} remotes SEC(".maps");

struct transfer {
	struct remote_address remote;
	u32 protocol;
	u32 direction;
	u64 bytes;
	u64 packets;
};

/* Unlike count(): a program of a cgroup may be interrupted by itself. */
static __always_inline void add(void *map, u32 index, u64 n)
{
	u64 *value = bpf_map_lookup_elem(map, &index);

	if (value)
		__sync_fetch_and_add(value, n);
}

static __always_inline void add_to_remote(const struct transfer *t)
{
	u32 index = t->protocol * DIRECTIONS + t->direction;
	struct remote *remote = bpf_map_lookup_elem(&remotes, &t->remote);

	if (!remote) {
		struct remote new = {};

		bpf_map_update_elem(&remotes, &t->remote, &new, BPF_NOEXIST);
		remote = bpf_map_lookup_elem(&remotes, &t->remote);
	}
	if (index >= PROTOCOLS * DIRECTIONS)
		return;
	if (remote) {
		__sync_fetch_and_add(&remote->values[REMOTE_BYTES + index], t->bytes);
		__sync_fetch_and_add(&remote->values[REMOTE_PACKETS + index], t->packets);
		return;
	}
	add(&unlisted, REMOTE_BYTES + index, t->bytes);
	add(&unlisted, REMOTE_PACKETS + index, t->packets);
	add(&full, 0, 1);
}

/* RFC 9000 and 9369: a long header has the two highest bits set, then the version; drafts are 0xff0000… */
static __always_inline bool quic_version(u32 version)
{
	return version == 1 || version == 0x6b3343cf || (version & 0xffffff00) == 0xff000000;
}

/* Only what the target sends makes a socket one of QUIC: no stranger can. */
static __always_inline bool is_quic(struct __sk_buff *skb, u32 at, struct mark *mark, u32 direction)
{
	struct {
		u8 first;
		u8 version[4];
	} head;

	if (!mark->quic && direction == RECEIVED)
		return false;
	if (bpf_skb_load_bytes(skb, at, &head, sizeof(head)))
		return false;
	if (!mark->quic && (head.first & 0xc0) == 0xc0) {
		u32 version;

		__builtin_memcpy(&version, head.version, sizeof(version));
		mark->quic = quic_version(bpf_ntohl(version));
	}
	return mark->quic && (head.first & 0x40);
}

/* The place of the transport header; 0 if it is not what the socket speaks. */
static __always_inline u32 transport_of(struct __sk_buff *skb, struct transfer *t, u32 protocol)
{
	if (skb->protocol == bpf_htons(0x0800 /* IPv4 */)) {
		u8 ip[20];

		if (bpf_skb_load_bytes(skb, 0, ip, sizeof(ip)) || ip[9] != protocol)
			return 0;
		t->remote.bytes[10] = t->remote.bytes[11] = 0xff;
		__builtin_memcpy(t->remote.bytes + 12, ip + (t->direction == SENT ? 16 : 12), 4);
		return (ip[0] & 15) * 4;
	}
	u8 ip[40];
	u32 at = sizeof(ip);

	if (bpf_skb_load_bytes(skb, 0, ip, sizeof(ip)))
		return 0;
	u8 next = ip[6];

	if (t->direction == SENT)
		__builtin_memcpy(t->remote.bytes, ip + 24, 16);
	else
		__builtin_memcpy(t->remote.bytes, ip + 8, 16);
	/* Extension headers with their own length: hop-by-hop, routing, destination options. */
	for (int i = 0; i < 4 && (next == 0 || next == 43 || next == 60); i++) {
		u8 extension[2];

		if (bpf_skb_load_bytes(skb, at, extension, sizeof(extension)))
			return 0;
		next = extension[0];
		at += (extension[1] + 1) * 8;
	}
	return next == protocol ? at : 0;
}

static __always_inline void account(struct __sk_buff *skb, u32 direction)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	struct mark *mark = bpf_sk_storage_get(&marks, sk, 0, 0);
	u32 protocol = sk->protocol;

	if (!mark || (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP))
		return;
	struct transfer t = {.direction = direction};
	u32 at = transport_of(skb, &t, protocol), header = 8;

	if (!at)
		return;
	if (protocol == IPPROTO_TCP) {
		u8 offset;

		if (bpf_skb_load_bytes(skb, at + 12, &offset, sizeof(offset)))
			return;
		header = (offset >> 4) * 4;
	}
	if (skb->len < at + header)
		return;
	t.bytes = skb->len - at - header;
	/* The kernel handles several segments or datagrams as one; whoever hands one in from outside need not say how many. */
	t.packets = skb->gso_segs;
	if (!t.packets && skb->gso_size)
		t.packets = (t.bytes + skb->gso_size - 1) / skb->gso_size;
	if (!t.packets)
		t.packets = 1;
	t.protocol = REMOTE_TCP;
	if (protocol == IPPROTO_UDP) {
		t.protocol = is_quic(skb, at + header, mark, direction) ? REMOTE_QUIC : REMOTE_UDP;
		add(&udp_bytes, direction, t.bytes);
		add(&udp_packets, direction, t.packets);
	}
	if (t.protocol == REMOTE_QUIC) {
		add(&quic_bytes, direction, t.bytes);
		add(&quic_packets, direction, t.packets);
	}
	add_to_remote(&t);
}

/* Who moves to another cgroup is in both for a moment, and a packet may pass both: the programs of one turn count, those
 * of the other do not. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} turn SEC(".maps");

static __always_inline int count_in_turn(struct __sk_buff *skb, u32 direction, u32 mine)
{
	u32 zero = 0, *now = bpf_map_lookup_elem(&turn, &zero);

	if (now && *now == mine)
		account(skb, direction);
	return 1;
}

SEC("cgroup_skb/egress")
int TIMED_CGROUP_PROG(on_sent_turn0, struct __sk_buff, skb)
{
	return count_in_turn(skb, SENT, 0);
}

SEC("cgroup_skb/egress")
int TIMED_CGROUP_PROG(on_sent_turn1, struct __sk_buff, skb)
{
	return count_in_turn(skb, SENT, 1);
}

SEC("cgroup_skb/ingress")
int TIMED_CGROUP_PROG(on_received_turn0, struct __sk_buff, skb)
{
	return count_in_turn(skb, RECEIVED, 0);
}

SEC("cgroup_skb/ingress")
int TIMED_CGROUP_PROG(on_received_turn1, struct __sk_buff, skb)
{
	return count_in_turn(skb, RECEIVED, 1);
}

SEC("cgroup/sock_create")
int TIMED_CGROUP_PROG(on_socket, struct bpf_sock, sk)
{
	struct mark new = {};

	if (current_is_member() && !bpf_sk_storage_get(&marks, sk, &new, BPF_SK_STORAGE_GET_F_CREATE))
		add(&full, 0, 1);
	return 1;
}

static __always_inline void remember_socket(struct sock *sk)
{
	struct mark new = {};

	if (!bpf_sk_storage_get(&marks, sk, &new, BPF_SK_STORAGE_GET_F_CREATE))
		count(&full, 0, 1);
}

/* The TCP sockets inside of multipath sockets: the kernel makes them, which on_socket does not see. */
SEC("tp_btf/inet_sock_set_state")
int TIMED_PROG(on_state, struct sock *sk, int from, int to)
{
	struct watched *w = watching();

	if (!w || sk->sk_type != SOCK_STREAM)
		return 0;
	if (target_begins(w, to)) {
		meet_socket(sk);
		remember_socket(sk);
	} else if (to == TCP_ESTABLISHED && target_accepts(sk, from)) {
		remember_socket(sk); /* in the cgroup of the one that listens */
	} else if (to == TCP_CLOSE && from == TCP_LISTEN) {
		listens_no_more(sk);
	}
	return 0;
}

/* As in the kernel, whose numbers these take. */
enum skb_drop_reason {
	SKB_DROP_REASON_SOCKET_FILTER = 1,
	SKB_DROP_REASON_UDP_CSUM,
	SKB_DROP_REASON_XFRM_POLICY,
	SKB_DROP_REASON_SOCKET_RCVBUFF,
	SKB_DROP_REASON_PROTO_MEM,
};

#define REASON(name) bpf_core_enum_value(enum skb_drop_reason, SKB_DROP_REASON_##name)

/* Since 6.11 (c53795d48ee8) the kernel says for which socket a packet was, as the fourth argument. */
const volatile u32 args_of_kfree_skb = 0;

SEC("?tp_btf/kfree_skb")
int TIMED_PROG(on_drop)
{
	if (args_of_kfree_skb < 4)
		return 0;
	struct sock *sk = (void *)ctx[3];
	u32 reason = ctx[2];

	if (!sk || sk->sk_protocol != IPPROTO_UDP || !bpf_sk_storage_get(&marks, sk, 0, 0))
		return 0;
	if (reason == REASON(SOCKET_RCVBUFF))
		count(&drops, DROP_BUFFER, 1);
	else if (reason == REASON(PROTO_MEM))
		count(&drops, DROP_MEMORY, 1);
	else if (reason == REASON(UDP_CSUM))
		count(&drops, DROP_CHECKSUM, 1);
	else if (reason == REASON(SOCKET_FILTER))
		count(&drops, DROP_FILTER, 1);
	else if (reason == REASON(XFRM_POLICY))
		count(&drops, DROP_POLICY, 1);
	else
		count(&drops, DROP_OTHER, 1);
	return 0;
}

/* Sockets that a process had before it was watched. */
SEC("iter/task_file")
int remember(struct bpf_iter__task_file *ctx)
{
	struct sock *sk = socket_of_target(ctx, &full);

	if (sk) {
		meet_socket(sk);
		remember_socket(sk);
	}
	return 0;
}

SEC("iter/task")
int remember_groups(struct bpf_iter__task *ctx)
{
	struct watched *w = watching();
	struct task_struct *task = ctx->task;

	if (w && task && is_member(w, task->tgid))
		meet_task(task);
	return 0;
}

/* A process that is moved to another cgroup, of whichever version; told by its first thread, or by the one that moves alone. */
SEC("tp_btf/cgroup_attach_task")
int TIMED_PROG(on_moved, struct cgroup *to, const char *path, struct task_struct *task)
{
	struct watched *w = watching();

	if (w && is_member(w, task->tgid))
		meet_task(task);
	return 0;
}

/* A process may begin in another cgroup (clone3 with CLONE_INTO_CGROUP). */
SEC("tp_btf/sched_process_fork")
int TIMED_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct watched *w = watching();

	if (w && is_member(w, parent->tgid) && child->tgid == child->pid)
		meet_task(child);
	return 0;
}
