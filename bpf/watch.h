/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Whom to watch. All probes share these maps; user space creates them with members.bpf.c and hands them on. */
#ifndef BOXO_BPF_WATCH_H
#define BOXO_BPF_WATCH_H

#include "core.h"
#include "watched.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct watched);
} watch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MEMBERS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} members SEC(".maps");

/* What is remembered of a thread of the target. Made where no scheduler lock is held (fork, or user space asks for
 * it through an iterator): allocating in sched_switch could wake kswapd and take the lock again. */
struct thread {
	/* First, in one cache line, what is used at each context switch and each time the thread is read. */
	u64 out_at;    /* runqueue clock when it left the CPU; 0: not seen yet */
	u64 run_delay; /* its sched_info.run_delay at that moment */
	/* How much of nvcsw, nivcsw and run_delay is counted: by user space, to which it was told, or since the thread has
	 * ended. At first what they had when this was made. */
	u64 told_voluntary;
	u64 told_involuntary;
	u64 told_wait;
	u16 reason;   /* why it left */
	u16 restarts; /* what it last waited for with a call that the kernel may go on with as restart_syscall */
	u32 syscall;
	u64 entered_at;
	u64 reclaim_at; /* when it began to free memory; 0: it does not */
	u64 pauses_at;	/* its nvcsw in the pause that the kernel last ordered it because too much is dirty; 0: none */
};

/* Task storage: 11 ns instead of a hash lookup, and it ends with its task. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

/* Before 5.12 tracing programs have no task storage. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct thread);
} threads_by_tid SEC(".maps");

/* Set by user space before the program is loaded: which of the two this kernel has. */
const volatile bool task_storage = true;

static __always_inline struct watched *watching(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&watch, &zero);
}

static __always_inline bool is_member(const struct watched *w, u32 tgid)
{
	if (!w->mark[tgid % WATCH_MARKS])
		return false;
	return tgid == w->main || bpf_map_lookup_elem(&members, &tgid);
}

/* Of whom this program runs in the name. */
static __always_inline bool current_is_member(void)
{
	struct watched *w = watching();

	return w && is_member(w, bpf_get_current_pid_tgid() >> 32);
}

static __always_inline struct thread *thread_of(struct task_struct *task)
{
	if (task_storage)
		return bpf_task_storage_get(&threads, task, 0, 0);
	u32 tid = task->pid;

	return bpf_map_lookup_elem(&threads_by_tid, &tid);
}

static __always_inline struct thread *current_thread(void)
{
	if (task_storage)
		return bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, 0);
	u32 tid = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&threads_by_tid, &tid);
}

#endif
