// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What memory makes the target wait for: writers held back because too much is dirty, and reclaim that an allocation
 * has to do itself. All hooks run in the thread that waits, and only when it does. */
#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

HISTOGRAMS(dirty, 1);
HISTOGRAMS(reclaim, 2);

PROBE = {.help = "writers held back by dirty memory, and direct reclaim"};

METRICS = {
	{
		.map = "dirty",
		.name = "boxo_resource_dirty_throttle_seconds",
		.help = "Pauses that the kernel ordered a writing thread of the target because too many pages were dirty. Since Linux "
			"6.0 also of writes of io_uring, which go to another thread instead.",
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_NANOSECONDS,
		.base = 1000000,
		.edges = 12,
	},
	{
		.map = "reclaim",
		.name = "boxo_resource_direct_reclaim_seconds",
		.help = "Time in which a thread of the target had to free memory before it got some: host short of memory, or "
			"its cgroup at the limit.",
		.labels = "scope",
		.values = "host,cgroup",
		.programs = "on_host_end,on_cgroup_end",
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_NANOSECONDS,
		.base = 1000,
		.edges = 24,
	},
};

/* 12 arguments, 8 since 6.13 or so (dirty_throttle_control instead of its parts); the pause is the last but one. */
const volatile u32 args_of_balance_dirty_pages = 12;
/* Length of a jiffy; set by user space. */
const volatile u64 jiffy_ns = 4000000;

static __always_inline int paused(long pause)
{
	if (pause <= 0 || !current_is_member())
		return 0;
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct thread *thread = current_thread();

	observe(&dirty, 0, pause * jiffy_ns, 1000000);
	if (thread) /* it sleeps next, which counts as a switch */
		thread->pauses_at = BPF_CORE_READ(task, nvcsw) + 1;
	return 0;
}

/* Two programs, because the place of an argument must be a constant. */
SEC("tp_btf/balance_dirty_pages")
int TIMED_PROG(on_dirty_12)
{
	return args_of_balance_dirty_pages == 12 ? paused(ctx[10]) : 0;
}

SEC("tp_btf/balance_dirty_pages")
int TIMED_PROG(on_dirty_8)
{
	return args_of_balance_dirty_pages == 8 ? paused(ctx[6]) : 0;
}

static __always_inline int begin(void)
{
	struct thread *thread = current_is_member() ? current_thread() : NULL;

	if (thread)
		thread->reclaim_at = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int end(u32 scope)
{
	struct thread *thread = current_is_member() ? current_thread() : NULL;

	if (!thread || !thread->reclaim_at)
		return 0;
	observe(&reclaim, scope, bpf_ktime_get_ns() - thread->reclaim_at, 1000);
	thread->reclaim_at = 0;
	return 0;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int TIMED_PROG(on_host_begin)
{
	return begin();
}

SEC("tp_btf/mm_vmscan_direct_reclaim_end")
int TIMED_PROG(on_host_end)
{
	return end(0);
}

SEC("?tp_btf/mm_vmscan_memcg_reclaim_begin")
int TIMED_PROG(on_cgroup_begin)
{
	return begin();
}

SEC("?tp_btf/mm_vmscan_memcg_reclaim_end")
int TIMED_PROG(on_cgroup_end)
{
	return end(1);
}
