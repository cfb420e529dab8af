// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Iterators over the threads and the sockets of one process: what /proc/PID/task and sock_diag tell, without a file
 * for each thread and without the sockets of everybody else. An iterator over one process needs Linux 6.1. */
#include "cast.h"
#include "exit.h"
#include "hist.h"
#include "offcpu.h"
#include "pidns.h"
#include "readings.h"
#include "sockets.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

PROBE = {.help = "threads and sockets of the target, read at each collection by iterators"};

#define AF_UNIX 1
#define SUBFLOWS_MAX 16

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sched_entity___read {
	u64 sum_exec_runtime;
	void *cfs_rq;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct bpf_local_storage_data {
	void *smap;
};

struct bpf_local_storage_elem {
	struct hlist_node snode;
	struct bpf_local_storage_data sdata;
};

struct bpf_local_storage {
	void *cache[16];
	struct hlist_head list;
};

struct task_struct___read {
	unsigned int __state;
	void *stack;
	void *signal;
	struct list_head thread_node;
	void *bpf_storage;
	int exit_state;
	int pid;
	struct sched_entity___read se;
	struct sched_info sched_info;
	struct pid *thread_pid;
	unsigned long nvcsw;
	unsigned long nivcsw;
	u64 start_boottime;
};

struct file___read {
	void *private_data;
	const void *f_op;
	struct inode *f_inode;
	struct {
		struct {
			long counter;
		} refcnt;
	} f_ref;
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

struct mptcp_sock___read {
	struct list_head conn_list;
};

struct mptcp_subflow_context {
	struct list_head node;
	struct sock *tcp_sock;
};

#pragma clang attribute pop

/* Interruptible, uninterruptible, stopped, traced; for a lock of the kernel where that sleeps. */
#define TASK_WAITS (0xf | 0x1000)

/* The scheduler's clock as of the last tick of this CPU. */
static __always_inline u64 now_of_scheduler(void)
{
	return task_storage ? rq_clock(bpf_get_current_task_btf()) : 0;
}

/* For how long the task has not been on a CPU. */
static __always_inline u64 away(struct task_struct *task, const struct thread *thread)
{
	u64 arrived = task->sched_info.last_arrival;

	/* The probe sched saw it leave, and it has not been back. */
	if (thread && thread->out_at && thread->out_at >= arrived)
		return since(now_of_scheduler(), thread->out_at);
	/* Without: exec_start is when its time on the CPU was last reckoned, by a clock that leaves out interrupts and what a
	 * virtual machine's host took. So it is too short by as much as its CPU has spent on that since. */
	struct rq *rq = task->se.cfs_rq->rq;
	u64 left = task->se.exec_start + since(rq->clock, rq->clock_task);

	return since(now_of_scheduler(), left > arrived ? left : arrived);
}

/* Beside what is counted: the thread has ended, and the kernel counts what is left. */
#define ENDED (1ULL << 63)

/* What user space is to know of a count that stands at `now`. If the thread ends meanwhile, one exchange is the first: that
 * of count_rest() sees what was told here, or this one sees that nothing is to be told any more. */
static __always_inline u64 tell(u64 *told, u64 now)
{
	u64 before = *told;

	if (before == now)
		return now;
	if (!(before & ENDED))
		before = __sync_lock_test_and_set(told, now);
	if (!(before & ENDED))
		return now;
	*told = before;
	return 0;
}

static __always_inline void count_rest(u64 *sum, u64 *told, u64 now)
{
	u64 before = __sync_lock_test_and_set(told, now | ENDED) & ~ENDED;

	if (before < now)
		__sync_fetch_and_add(sum, now - before);
}

static __always_inline void count_thread(struct watched *w, struct thread *thread, struct task_struct *task)
{
	count_rest(&w->ended_voluntary, &thread->told_voluntary, task->nvcsw);
	count_rest(&w->ended_involuntary, &thread->told_involuntary, task->nivcsw);
	count_rest(&w->ended_wait_ns, &thread->told_wait, task->sched_info.run_delay);
}

SEC("tp_btf/sched_process_exit")
int TIMED_PROG(on_exit, struct task_struct *task)
{
	struct watched *w = watching();
	u32 tgid = task->tgid;

	if (!w || !w->mark[tgid % WATCH_MARKS] || !task_storage)
		return 0;
	if (!is_member(w, tgid) && !ended_as_member(task))
		return 0;
	struct thread *thread = thread_of(task);

	if (thread)
		count_thread(w, thread, task);
	return 0;
}

/* The last it did was to leave the CPU for good. */
SEC("tp_btf/sched_process_free")
int TIMED_PROG(on_free, struct task_struct *task)
{
	struct thread *thread = task_storage ? thread_of(task) : NULL;
	struct watched *w = watching();

	if (thread && w && thread->told_voluntary & ENDED)
		count_thread(w, thread, task);
	return 0;
}

#define AHEAD 32
/* Of both architectures, in most kernels. */
#define STACK_SIZE 16384

/* Reads the value, so that it is near when it is wanted, and forgets it. */
#define TOUCH(value) asm volatile("" : : "r"(value))

static __always_inline struct task_struct___read *after(struct task_struct___read *task)
{
	void *node = task->thread_node.next;

	return AS(task_struct___read, node - bpf_core_field_offset(struct task_struct___read, thread_node));
}

/* Who reads a thread waits for memory, again and again: the thread, its number, its registers, what is remembered of it. The
 * next threads' is made to be near before they are read, of all of them at once what needs no other's answer. */
static __always_inline void touch_next_threads(struct bpf_iter__task *ctx, struct task_struct___read *first)
{
	struct task_struct___read *task = first;
	void *signal = first->signal;

	if (!has_rdonly_cast || ctx->meta->seq_num % AHEAD)
		return;
	/* The end of the list is no thread. */
	for (u32 i = 0; i < AHEAD && (task = after(task))->signal == signal; i++) {
		TOUCH(task->__state);
		TOUCH(task->exit_state);
		TOUCH(task->se.sum_exec_runtime);
		TOUCH(task->se.cfs_rq);
		TOUCH(task->sched_info.run_delay);
		TOUCH(task->sched_info.last_arrival);
		TOUCH(task->start_boottime);
		TOUCH(task->nvcsw);
	}
	task = first;
	for (u32 i = 0; i < AHEAD && (task = after(task))->signal == signal; i++) {
		struct bpf_local_storage *store = AS(bpf_local_storage, task->bpf_storage);
		struct pid *pid = AS(pid, task->thread_pid);

		TOUCH(store->cache[0]);
		TOUCH(store->cache[8]);
		TOUCH(store->list.first);
		TOUCH(pid->level);
		TOUCH(pid->numbers[0].nr);
		TOUCH(AS(list_head, task->stack + STACK_SIZE - 128)->next);
		TOUCH(AS(list_head, task->stack + STACK_SIZE - 64)->next);
	}
	task = first;
	for (u32 i = 0; i < AHEAD && (task = after(task))->signal == signal; i++) {
		void *node = AS(bpf_local_storage, task->bpf_storage)->list.first;

		TOUCH(AS(bpf_local_storage_elem, node - bpf_core_field_offset(struct bpf_local_storage_elem, snode))->sdata.smap);
	}
}

SEC("iter/task")
int read_threads(struct bpf_iter__task *ctx)
{
	struct task_struct *known = ctx->task;
	struct task_struct___read *task = (struct task_struct___read *)known;

	if (!task)
		return 0;
	struct thread_reading reading = {
		.task = (u64)task,
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
	touch_next_threads(ctx, task);
	struct thread *thread = thread_of(known);

	if (thread && task_storage) {
		reading.voluntary = tell(&thread->told_voluntary, reading.voluntary);
		reading.involuntary = tell(&thread->told_involuntary, reading.involuntary);
		reading.wait_ns = tell(&thread->told_wait, reading.wait_ns);
	}
	reading.waits_for = OFFCPU_REASONS;
	if (!task->exit_state && (task->__state & (TASK_WAITS | TASK_FROZEN))) {
		reading.waits_for = offcpu_reason(known, thread, task->__state);
		reading.blocked_ns = away(known, thread);
	}
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
		(reading)->data_segments_out = READ(tcp, data_segs_out); \
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
		reading->cookie = BPF_CORE_READ(tcp, __sk_common.skc_cookie.counter);
		reading->protocol = IPPROTO_TCP;
		TAKE_TCP(reading, BPF_CORE_READ, (const struct sock___read *)tcp, (const struct tcp_sock *)tcp);
		if (reading->state != TCP_CLOSE)
			bpf_seq_write(seq, reading, sizeof(*reading));
	}
}

/* Of the array of a process's files. Any type does that begins with a pointer. */
static __always_inline struct file___read *file_at(struct file **files, u32 fd)
{
	return AS(file___read, AS(list_head, files + fd)->next);
}

/* As for threads: the file tells where the socket is, and that where the numbers are. */
static __always_inline void touch_next_sockets(struct bpf_iter__task_file *ctx, const struct file___read *this)
{
	struct task_struct *task = ctx->task;

	if (!has_rdonly_cast || !task || ctx->fd % AHEAD)
		return;
	struct fdtable *table = task->files->fdt;
	struct file **files = table->fd;
	u32 first = ctx->fd + AHEAD, end = table->max_fds;

	for (u32 fd = first, i = 0; i < AHEAD && fd < end; i++, fd++) {
		struct file___read *file = file_at(files, fd);

		TOUCH(file->f_op);
		if (bpf_core_field_exists(file->f_ref.refcnt.counter)) /* since 6.13 */
			TOUCH(file->f_ref.refcnt.counter);
	}
	for (u32 fd = first, i = 0; i < AHEAD && fd < end; i++, fd++) {
		struct file___read *file = file_at(files, fd);

		if (file->f_op != this->f_op)
			continue;
		TOUCH(file->f_inode->i_ino);
		TOUCH(AS(socket, file->private_data)->sk);
	}
	for (u32 fd = first, i = 0; i < AHEAD && fd < end; i++, fd++) {
		struct file___read *file = file_at(files, fd);

		if (file->f_op != this->f_op)
			continue;
		void *sk = AS(socket, file->private_data)->sk;
		struct sock___read *sock = AS(sock___read, sk);
		struct tcp_sock *tcp = AS(tcp_sock, sk);

		TOUCH(sock->__sk_common.skc_family);
		TOUCH(sock->__sk_common.skc_cookie.counter);
		TOUCH(sock->sk_protocol);
		TOUCH(tcp->rcv_nxt);
		TOUCH(tcp->copied_seq);
		TOUCH(tcp->bytes_sent);
		TOUCH(tcp->segs_in);
		TOUCH(tcp->total_retrans);
	}
}

SEC("iter/task_file")
int read_sockets(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct socket *socket = file ? bpf_sock_from_file(file) : NULL;

	if (!socket)
		return 0;
	touch_next_sockets(ctx, (const void *)file);
	struct sock *any = socket->sk;

	if (!any)
		return 0;
	const struct sock___read *sk = (const void *)any;
	struct socket_reading reading = {
		.id = (u64)any,
		.cookie = sk->__sk_common.skc_cookie.counter,
		.inode = file->f_inode->i_ino,
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
		const struct tcp_sock *tcp = (const void *)bpf_skc_to_tcp_sock(any);

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
