/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The end of a process: which thread is its last one, and who takes over what it used. */
#ifndef BOXO_BPF_EXIT_H
#define BOXO_BPF_EXIT_H

#include "watch.h"

#define CHILD_SIGNAL 17 /* SIGCHLD; SIG_IGN is 1 */
#define NO_ZOMBIES 2	 /* SA_NOCLDWAIT */

/* A member that has ended, until the kernel forgets it. */
struct ending {
	u64 started_at; /* since boot, ns: tells it from a later process with the same number */
	u64 parent;	/* only to be compared */
	u64 claimed;	/* that one will wait for it, for all that was known when it ended */
};

/* The oldest goes when it is full: only the probe endings takes them out, and that may not be there. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct ending);
} endings SEC(".maps");

/* Members that had waited for children and are forgotten themselves. The kernel may tell of the children later. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} reapers SEC(".maps");

/* Whether `parent` is a process of the target, be it at its end, and waits for children: with SIGCHLD ignored they end
 * without. A wrong yes loses something, a wrong no would count it twice. */
static __always_inline bool claims(const struct watched *w, struct task_struct *task, struct task_struct *parent)
{
	u32 tgid = parent->tgid;

	if (!is_member(w, tgid) && !bpf_map_lookup_elem(&endings, &tgid) && !bpf_map_lookup_elem(&reapers, &tgid))
		return false;
	if (task->exit_signal != CHILD_SIGNAL)
		return true;
	struct sigaction *action = &parent->sighand->action[CHILD_SIGNAL - 1].sa;

	return (u64)action->sa_handler != 1 && !(action->sa_flags & NO_ZOMBIES);
}

/* Takes the process of `task`, which ends, out of the set; only one can. */
static __always_inline bool take_out(struct watched *w, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct task_struct *parent = leader->real_parent;
	u32 tgid = task->tgid;
	struct ending ending = {
		.started_at = leader->start_boottime,
		.parent = (u64)parent,
		.claimed = claims(w, leader, parent),
	};

	/* Before it leaves the set: its children may end at the same time, and look for it in either. */
	if (bpf_map_update_elem(&endings, &tgid, &ending, BPF_ANY))
		w->full++;
	return !bpf_map_delete_elem(&members, &tgid);
}

/* 1: the task; 2 since 6.16: also whether it was the last one. */
const volatile u32 args_of_sched_process_exit = 2;

/* Nothing of the process runs any more, though several of its threads may be on their way through the hook. */
static __always_inline bool process_ends(struct task_struct *task)
{
	return !task->signal->live.counter;
}

/* Whether this thread was the last one to end, which need not be the last one at the hook. Before 6.16 the first one
 * there that finds the process at its end stands for it: it takes it out of the set, which only one can. */
static __always_inline bool is_last(u64 *ctx, struct watched *w, struct task_struct *task)
{
	if (args_of_sched_process_exit >= 2)
		return ctx[1] & 0xff;
	return process_ends(task) && is_member(w, task->tgid) && take_out(w, task);
}

/* Whether the process of this thread, which ends, has been taken out of the set at its end. */
static __always_inline bool ended_as_member(struct task_struct *task)
{
	u32 tgid = task->tgid;
	struct ending *ending = bpf_map_lookup_elem(&endings, &tgid);

	return ending && ending->started_at == task->group_leader->start_boottime;
}

/* A thread of a member that ends after the one that took its process out of the set. */
static __always_inline bool is_late(const struct watched *w, struct task_struct *task)
{
	return w->mark[(u32)task->tgid % WATCH_MARKS] && process_ends(task) && thread_of(task);
}

#endif
