/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Where the target listens, for connections that have not inherited whose they are from the socket that listens. */
#ifndef BOXO_BPF_LISTENERS_H
#define BOXO_BPF_LISTENERS_H

#include "hist.h"
#include "sockets.h"

/* Two sockets that listen on the same port of the same address (SO_REUSEPORT) cannot be told apart here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct port);
	__type(value, u64); /* the listening socket */
} listeners SEC(".maps");

static __always_inline int keep_listener(const struct sock *sk)
{
	struct port port = port_of(sk);
	u64 key = (u64)sk;

	return bpf_map_update_elem(&listeners, &port, &key, BPF_ANY);
}

static __always_inline void listens_no_more(const struct sock *sk)
{
	struct port port = port_of(sk);
	u64 *listener = bpf_map_lookup_elem(&listeners, &port);

	if (listener && *listener == (u64)sk)
		bpf_map_delete_elem(&listeners, &port);
}

/* Whether the connection came in where one of them listens. */
static __always_inline bool came_to_listener(const struct sock *sk)
{
	struct port port = port_of(sk);

	if (bpf_map_lookup_elem(&listeners, &port))
		return true;
	__builtin_memset(port.address, 0, sizeof(port.address)); /* on every address */
	return bpf_map_lookup_elem(&listeners, &port);
}

/* A multipath socket (Go listens with them by default) listens through a TCP socket that the kernel made and no file
 * leads to, except as a number, with which nothing can be remembered. NULL if `sk` is no such socket. */
static __always_inline struct sock *inner_listener(struct sock *sk)
{
	if (!bpf_core_field_exists(struct mptcp_sock, first) || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_MPTCP ||
	    BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN)
		return NULL;
	return BPF_CORE_READ((struct mptcp_sock *)sk, first);
}

#endif
