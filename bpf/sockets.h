/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The kernel's sockets, as far as the probes read them. */
#ifndef BOXO_BPF_SOCKETS_H
#define BOXO_BPF_SOCKETS_H

#include "core.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	unsigned char bytes[16];
};

struct sock_common {
	unsigned int skc_rcv_saddr;
	struct in6_addr skc_v6_rcv_saddr;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned short skc_num;
	possible_net_t skc_net;
	unsigned long skc_flags;
	atomic64_t skc_cookie;
};

struct sk_buff {
	char cb[48];
};

struct sk_buff_head {
	struct sk_buff *next;
	u32 qlen;
};

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_error_queue;
	int sk_err;
	int sk_err_soft;
	unsigned short sk_type;
	unsigned short sk_protocol;
};

struct tcp_sock {
	u32 rcv_nxt;
	u32 copied_seq;
	u32 write_seq;
	u32 snd_una;
	u32 srtt_us;
	u32 segs_out;
	u32 segs_in;
	u32 data_segs_out;
	u32 total_retrans;
	u64 bytes_sent;
	u64 bytes_retrans;
	u64 bytes_received;
};

struct mptcp_sock {
	struct sock *first;
};

struct socket {
	struct sock *sk;
};

struct sock_extended_err {
	u32 ee_errno;
	u8 ee_origin;
};

struct sock_exterr_skb {
	struct sock_extended_err ee;
};

struct tcp_skb_cb {
	unsigned short tcp_gso_segs;
};

struct file___socket {
	void *private_data;
};

#pragma clang attribute pop

/* Not relocated: the verifier wants a constant place in the context. */
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	unsigned int fd;
	struct file *file;
};

enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT, TCP_SYN_RECV, TCP_CLOSE = 7, TCP_LISTEN = 10 };

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262

/* Where a socket listens: a port of an address in a network namespace. */
struct port {
	u64 net;
	u32 number;
	u32 pad;
	u8 address[16]; /* IPv4 as ::ffff:a.b.c.d; zeros: every address */
};

static __always_inline struct port port_of(const struct sock *sk)
{
	struct port port = {
		.net = (u64)BPF_CORE_READ(sk, __sk_common.skc_net.net),
		.number = BPF_CORE_READ(sk, __sk_common.skc_num),
	};
	u32 v4 = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);

	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
		bpf_core_read(port.address, sizeof(port.address), &sk->__sk_common.skc_v6_rcv_saddr);
	} else if (v4) {
		port.address[10] = port.address[11] = 0xff;
		__builtin_memcpy(port.address + 12, &v4, sizeof(v4));
	}
	return port;
}

/* What is remembered with a socket. One that is accepted gets a copy from the one that listened. */
#define KEPT_WITH_SOCKETS(name, what)                                                                              \
	struct {                                                                                                   \
		__uint(type, BPF_MAP_TYPE_SK_STORAGE);                                                             \
		__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);                                                \
		__type(key, int);                                                                                  \
		__type(value, what);                                                                               \
	} name SEC(".maps")

static __always_inline bool socket_storage(void)
{
	/* Tracing programs have it since 5.11 (8e4597c627fb), as this function. */
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_sock_from_file);
}

/* The internet socket that an open file is; NULL if it is none. */
static __always_inline struct sock *sock_of(struct file *file)
{
	struct sock *sk = NULL;

	if (socket_storage()) { /* which takes no pointer that was read as a number */
		struct socket *socket = bpf_sock_from_file(file);

		if (socket)
			sk = socket->sk;
	} else if ((BPF_CORE_READ(file, f_inode, i_mode) & 0170000) == 0140000) {
		struct socket *socket = BPF_CORE_READ((struct file___socket *)file, private_data);

		sk = BPF_CORE_READ(socket, sk);
	}
	if (!sk)
		return NULL;
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return family == AF_INET || family == AF_INET6 ? sk : NULL;
}

#endif
