// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Run-queue latency and off-CPU time from one hook. The scheduler keeps in sched_info when a task was queued and how
 * long it has waited in all, so no wakeup hook is needed: half the cost for everybody, on every switch of the host. */
#include "hist.h"
#include "offcpu.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

HISTOGRAMS(runqueue, 1);
HISTOGRAMS(offcpu, OFFCPU_REASONS);

PROBE = {.help = "run-queue latency and off-CPU time by reason, at every context switch"};

METRICS = {
	{
		.map = "runqueue",
		.name = "boxo_resource_runqueue_latency_seconds",
		.help = "How long threads of the target were runnable until they were on a CPU.",
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_NANOSECONDS,
		.base = 1000,
		.edges = 24,
	},
	{
		.map = "offcpu",
		.name = "boxo_resource_offcpu_seconds",
		.help = "How long threads of the target were blocked until they were runnable again, by what they waited for. A "
			"wait counts when it is over; boxo_resource_longest_wait_seconds tells those that are not.",
		.labels = "reason",
		.values = OFFCPU_REASON_NAMES,
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_NANOSECONDS,
		.base = 1000,
		.edges = 27,
	},
};

static __always_inline void leaves(struct task_struct *task, struct thread *thread, bool preempt, u64 now)
{
	u32 state = state_of(task), reason = OFFCPU_RUNNABLE;

	thread->out_at = now;
	thread->run_delay = task->sched_info.run_delay;
	/* Preempted, or given up the CPU by sched_yield: it stays runnable whatever its state says. */
	if (!preempt && state)
		reason = offcpu_reason(task, thread, state);
	thread->reason = reason;
	if (reason == OFFCPU_SLEEP || reason == OFFCPU_FUTEX || reason == OFFCPU_POLL)
		thread->restarts = reason;
}

static __always_inline void arrives(struct task_struct *task, struct thread *thread, u64 now)
{
	u64 away = since(now, thread->out_at);

	if (thread->out_at && thread->reason == OFFCPU_RUNNABLE) {
		observe(&runqueue, 0, away, 1000);
		return;
	}
	/* run_delay grows by a part of the wait when a waiting task is moved to another CPU's queue. */
	u64 queued = task->sched_info.last_queued;
	u64 waited = task->sched_info.run_delay - thread->run_delay + (queued ? since(now, queued) : 0);

	observe(&runqueue, 0, waited, 1000);
	if (thread->out_at && thread->reason < OFFCPU_REASONS)
		observe(&offcpu, thread->reason, since(away, waited), 1000);
}

SEC("tp_btf/sched_switch")
int TIMED_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct watched *w = watching();

	if (!w)
		return 0;
	bool leaving = is_member(w, prev->tgid), arriving = is_member(w, next->tgid);

	if (!leaving && !arriving)
		return 0;
	u64 now = rq_clock(arriving ? next : prev); /* both are of this CPU's queue */
	struct thread *thread = leaving ? thread_of(prev) : NULL;

	if (thread)
		leaves(prev, thread, preempt, now);
	thread = arriving ? thread_of(next) : NULL;
	if (thread)
		arrives(next, thread, now);
	return 0;
}
