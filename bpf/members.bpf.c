// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Keeps the set of the target's processes right between two ticks, and the store of their threads. */
#include "datadir.h"
#include "exit.h"
#include "hist.h"
#include "pidns.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

PROBE = {.help = "which processes and threads belong to the target, followed through fork and exit"};

static __always_inline void remember_thread(struct watched *w, struct task_struct *task)
{
	struct thread thread = {
		.run_delay = task->sched_info.run_delay,
		.told_voluntary = task->nvcsw,
		.told_involuntary = task->nivcsw,
		.told_wait = task->sched_info.run_delay,
	};

	if (task_storage) {
		if (!bpf_task_storage_get(&threads, task, &thread, BPF_LOCAL_STORAGE_GET_F_CREATE))
			w->full++;
		return;
	}
	u32 tid = task->pid;

	if (bpf_map_update_elem(&threads_by_tid, &tid, &thread, BPF_NOEXIST) == -7 /* E2BIG */)
		w->full++;
}

SEC("tp_btf/sched_process_fork")
int TIMED_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct watched *w = watching();
	u32 tgid = child->tgid, born = MEMBER_BORN;

	if (!w)
		return 0;
	if (!is_member(w, parent->tgid)) {
		/* A pid that a member had and whose end was missed. */
		if (tgid == (u32)child->pid && w->mark[tgid % WATCH_MARKS]) {
			bpf_map_delete_elem(&members, &tgid);
			if (w->main == tgid)
				w->main = 0;
		}
		return 0;
	}
	if (tgid == (u32)child->pid) {
		if (bpf_map_update_elem(&members, &tgid, &born, BPF_ANY))
			w->full++;
		w->mark[tgid % WATCH_MARKS] = 1;
		__sync_fetch_and_add(&w->forks, 1); /* on two CPUs at once */
	}
	remember_thread(w, child);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int TIMED_PROG(on_exit, struct task_struct *task)
{
	struct watched *w = watching();
	u32 tgid = task->tgid, tid = task->pid;

	if (!w || !w->mark[tgid % WATCH_MARKS])
		return 0;
	/* Also of a thread that ends after its process was taken out. */
	if (!task_storage)
		bpf_map_delete_elem(&threads_by_tid, &tid);
	if (!is_member(w, tgid) || !process_ends(task))
		return 0;
	take_out(w, task);
	if (w->main == tgid)
		w->main = 0;
	return 0;
}

/* Run by user space after it has added members: gives their threads a place in the store. */
SEC("iter/task")
int remember(struct bpf_iter__task *ctx)
{
	struct watched *w = watching();
	struct task_struct *task = ctx->task;

	if (w && task && is_member(w, task->tgid))
		remember_thread(w, task);
	return 0;
}

/* For an agent that is itself in a pid namespace: the pids that it sees, beside the ones that the kernel uses. */
SEC("iter/task")
int translate(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task || task->pid != task->tgid)
		return 0;
	struct pid *pid = task->thread_pid;

	if (!pid)
		return 0;
	struct translation record = {.pid = number_for_agent(pid), .tgid = task->tgid};

	if (record.pid)
		bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}
