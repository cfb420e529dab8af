// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Iterators over the threads and the sockets of one process: what /proc/PID/task and sock_diag tell, without a file
 * for each thread and without the sockets of everybody else. An iterator over one process needs Linux 6.1. */
#include "hist.h"
#include "pidns.h"
#include "readings.h"
#include "sockets.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

PROBE = {.help = "threads and sockets of the target, read at each collection by iterators"};

#define AF_UNIX 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262
#define SUBFLOWS_MAX 16

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sched_entity___read {
	u64 sum_exec_runtime;
};

struct task_struct___read {
	unsigned int __state;
	int exit_state;
	int pid;
	struct sched_entity___read se;
	struct sched_info sched_info;
	struct pid *thread_pid;
	unsigned long nvcsw;
	unsigned long nivcsw;
	u64 start_boottime;
};

struct inode___read {
	unsigned long i_ino;
};

typedef struct {
	atomic_t refs;
} refcount_t;

struct numa_drop_counters {
	atomic_t drops0;
	atomic_t drops1;
};

struct sock___read {
	struct sock_common __sk_common;
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	refcount_t sk_wmem_alloc;
	atomic_t sk_drops;
	struct numa_drop_counters *sk_drop_counters;
	u16 sk_protocol;
	u32 sk_ack_backlog;
	u32 sk_max_ack_backlog;
};

struct udp_sock___read {
	int forward_deficit;
};

struct tcp_sock___read {
	u32 rcv_nxt;
	u32 copied_seq;
	u32 write_seq;
	u32 snd_una;
	u32 srtt_us;
	u32 segs_out;
	u32 segs_in;
	u32 total_retrans;
	u64 bytes_sent;
	u64 bytes_retrans;
	u64 bytes_received;
};

struct list_head {
	struct list_head *next;
};

struct mptcp_sock___read {
	struct list_head conn_list;
};

struct mptcp_subflow_context {
	struct list_head node;
	struct sock *tcp_sock;
};

#pragma clang attribute pop

SEC("iter/task")
int read_threads(struct bpf_iter__task *ctx)
{
	struct task_struct___read *task = (struct task_struct___read *)ctx->task;

	if (!task)
		return 0;
	struct thread_reading reading = {
		.state = task->__state | (u32)task->exit_state,
		.started_at = task->start_boottime,
		.run_ns = task->se.sum_exec_runtime,
		.wait_ns = task->sched_info.run_delay,
		.turns = task->sched_info.pcount,
		.voluntary = task->nvcsw,
		.involuntary = task->nivcsw,
	};
	struct pid *pid = task->thread_pid;

	if (!pid)
		return 0;
	reading.tid = number_for_agent(pid);
	if (reading.tid)
		bpf_seq_write(ctx->meta->seq, &reading, sizeof(reading));
	return 0;
}

/* The numbers of a TCP socket, as tcp_get_info() and tcp_diag give them. */
#define TAKE_TCP(reading, READ, sk, tcp) \
	do { \
		(reading)->state = READ(sk, __sk_common.skc_state); \
		if ((reading)->state == TCP_LISTEN) { \
			(reading)->receive_queue = READ(sk, sk_ack_backlog); \
			(reading)->send_queue = READ(sk, sk_max_ack_backlog); \
			break; \
		} \
		int unread = READ(tcp, rcv_nxt) - READ(tcp, copied_seq); \
		(reading)->receive_queue = unread > 0 ? unread : 0; \
		(reading)->send_queue = READ(tcp, write_seq) - READ(tcp, snd_una); \
		(reading)->bytes_sent = READ(tcp, bytes_sent); \
		(reading)->bytes_again = READ(tcp, bytes_retrans); \
		(reading)->bytes_received = READ(tcp, bytes_received); \
		(reading)->segments_out = READ(tcp, segs_out); \
		(reading)->segments_in = READ(tcp, segs_in); \
		(reading)->retransmits = READ(tcp, total_retrans); \
		(reading)->rtt_us = READ(tcp, srtt_us) >> 3; \
	} while (0)

/* Of a pointer whose type the verifier knows: a load, where the other way is a call. */
#define LOAD(pointer, member) ((pointer)->member)

/* As udp_diag does. */
static __always_inline void read_udp(struct socket_reading *reading, const struct sock___read *sk)
{
	struct numa_drop_counters *spread = NULL;
	int unread = BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter) -
		     BPF_CORE_READ((const struct udp_sock___read *)sk, forward_deficit);

	reading->receive_queue = unread;
	reading->send_queue = BPF_CORE_READ(sk, sk_wmem_alloc.refs.counter) - 1;
	reading->drops = BPF_CORE_READ(sk, sk_drops.counter);
	/* Since 6.18 (fb7c46a4d9f1) many CPUs count in two places. */
	if (bpf_core_field_exists(sk->sk_drop_counters))
		spread = BPF_CORE_READ(sk, sk_drop_counters);
	if (spread)
		reading->drops = BPF_CORE_READ(spread, drops0.counter) + BPF_CORE_READ(spread, drops1.counter);
}

/* The TCP sockets behind an MPTCP one. */
static __always_inline void read_subflows(struct seq_file *seq, struct socket_reading *reading,
					  const struct mptcp_sock___read *sk)
{
	const struct list_head *node = BPF_CORE_READ(sk, conn_list.next);
	const void *head = &sk->conn_list;

	for (int i = 0; i < SUBFLOWS_MAX && node && node != head; i++) {
		const struct mptcp_subflow_context *subflow = (const void *)node;
		struct sock *tcp = BPF_CORE_READ(subflow, tcp_sock);

		node = BPF_CORE_READ(node, next);
		if (!tcp)
			continue;
		reading->id = (u64)tcp;
		reading->protocol = IPPROTO_TCP;
		TAKE_TCP(reading, BPF_CORE_READ, (const struct sock___read *)tcp, (const struct tcp_sock___read *)tcp);
		if (reading->state != TCP_CLOSE)
			bpf_seq_write(seq, reading, sizeof(*reading));
	}
}

SEC("iter/task_file")
int read_sockets(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct socket *socket = file ? bpf_sock_from_file(file) : NULL;

	if (!socket)
		return 0;
	struct sock *any = socket->sk;

	if (!any)
		return 0;
	const struct sock___read *sk = (const void *)any;
	struct socket_reading reading = {
		.id = (u64)any,
		.inode = ((struct inode___read *)file->f_inode)->i_ino,
		.family = sk->__sk_common.skc_family,
		.state = sk->__sk_common.skc_state,
	};

	if (reading.family == AF_UNIX) {
		bpf_seq_write(ctx->meta->seq, &reading, sizeof(reading));
		return 0;
	}
	if (reading.family != AF_INET && reading.family != AF_INET6)
		return 0;
	reading.protocol = sk->sk_protocol;
	/* Those that sock_diag lists: one that was never bound or connected is in no table. */
	if (reading.protocol == IPPROTO_TCP) {
		const struct tcp_sock___read *tcp = (const void *)bpf_skc_to_tcp_sock(any);

		if (!tcp)
			return 0;
		TAKE_TCP(&reading, LOAD, sk, tcp);
		if (reading.state == TCP_CLOSE)
			return 0;
	} else if (reading.protocol == IPPROTO_UDP) {
		if (!sk->__sk_common.skc_num)
			return 0;
		read_udp(&reading, sk);
	} else if (reading.protocol == IPPROTO_MPTCP &&
		   bpf_core_field_exists(((struct mptcp_sock___read *)sk)->conn_list)) {
		read_subflows(ctx->meta->seq, &reading, (const void *)sk);
		return 0;
	} else {
		return 0;
	}
	bpf_seq_write(ctx->meta->seq, &reading, sizeof(reading));
	return 0;
}
