/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Which sockets are the target's: those that it connects or listens with, those that come in there, and those that it had
 * open before. Where it listens is for connections that have not inherited whose they are from the socket that listens. */
#ifndef BOXO_BPF_LISTENERS_H
#define BOXO_BPF_LISTENERS_H

#include "hist.h"
#include "sockets.h"
#include "watch.h"

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

/* Whether the target begins to connect or to listen with this change of a TCP socket's state: the current task asks for it. */
static __always_inline bool target_begins(const struct watched *w, int to)
{
	return (to == TCP_SYN_SENT || to == TCP_LISTEN) && is_member(w, bpf_get_current_pid_tgid() >> 32);
}

/* Whether a TCP connection that is established now came in to the target. */
static __always_inline bool target_accepts(const struct sock *sk, int from)
{
	return from == TCP_SYN_RECV && came_to_listener(sk);
}

/* For an iterator: the internet socket that an open file of the target is, NULL for any other file. If it listens with
 * multipath, where it does is kept, or counted in `full`. */
static __always_inline struct sock *socket_of_target(struct bpf_iter__task_file *ctx, void *full)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct watched *w = watching();

	if (!w || !task || !file || !is_member(w, task->tgid))
		return NULL;
	struct sock *sk = sock_of(file);
	struct sock *inner = sk ? inner_listener(sk) : NULL;

	if (inner && keep_listener(inner))
		count(full, 0, 1);
	return sk;
}

#endif
