/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Which thread is the last of its process: of the programs at sched_process_exit. */
#ifndef BOXO_BPF_EXIT_H
#define BOXO_BPF_EXIT_H

#include "watch.h"

/* 1: the task; 2 since 6.16: also whether it was the last one. */
const volatile u32 args_of_sched_process_exit = 2;

/* Nothing of the process runs any more, though several of its threads may be on their way through the hook. */
static __always_inline bool process_ends(struct task_struct *task)
{
	return !task->signal->live.counter;
}

/* Whether this thread was the last one to end, which need not be the last one at the hook. Before 6.16 the first one
 * there that finds the process at its end stands for it: it takes it out of the set, which only one can. */
static __always_inline bool is_last(u64 *ctx, struct task_struct *task)
{
	u32 tgid = task->tgid;

	if (args_of_sched_process_exit >= 2)
		return ctx[1] & 0xff;
	return process_ends(task) && !bpf_map_delete_elem(&members, &tgid);
}

/* A thread of a member that ends after the one that took its process out of the set. */
static __always_inline bool is_late(const struct watched *w, struct task_struct *task)
{
	return w->mark[(u32)task->tgid % WATCH_MARKS] && process_ends(task) && thread_of(task);
}

#endif
