// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Threads and processes that begin and end, signals that arrive, victims of the out-of-memory killer. */
#include "exit.h"
#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { MADE_THREAD, MADE_PROCESS };
enum { ENDED_THREAD, ENDED_OK, ENDED_ERROR, ENDED_SIGNAL };
#define SIGNALS 32
#define SIGKILL 9

COUNTERS(made, 2);
COUNTERS(threads_ended, 1);
COUNTERS(exits, 3);
COUNTERS(signals, SIGNALS + 1);
COUNTERS(oom, 1);

PROBE = {.help = "threads and processes that begin and end, signals, out-of-memory kills"};

METRICS = {
	{
		.map = "made",
		.name = "boxo_resource_threads_created_total",
		.help = "Threads that the target's processes created, main threads of new processes not counted.",
	},
	{
		.map = "made",
		.first = MADE_PROCESS,
		.name = "boxo_resource_processes_created_total",
		.help = "Processes that the target forked.",
	},
	{
		.map = "threads_ended",
		.name = "boxo_resource_threads_ended_total",
		.help = "Threads of the target that ended, main threads included.",
	},
	{
		.map = "exits",
		.name = "boxo_resource_process_exits_total",
		.help = "Processes of the target that ended: with status 0, with another, or by a signal.",
		.labels = "result",
		.values = "ok,error,signal",
	},
	{
		.map = "signals",
		.first = 1,
		.name = "boxo_resource_signals_total",
		.help = "Signals delivered to threads of the target; a SIGKILL ends each of them. The Go runtime preempts "
			"goroutines by SIGURG.",
		.labels = "signal",
		.values = "SIGHUP,SIGINT,SIGQUIT,SIGILL,SIGTRAP,SIGABRT,SIGBUS,SIGFPE,SIGKILL,SIGUSR1,SIGSEGV,SIGUSR2,"
			  "SIGPIPE,SIGALRM,SIGTERM,SIGSTKFLT,SIGCHLD,SIGCONT,SIGSTOP,SIGTSTP,SIGTTIN,SIGTTOU,SIGURG,"
			  "SIGXCPU,SIGXFSZ,SIGVTALRM,SIGPROF,SIGWINCH,SIGIO,SIGPWR,SIGSYS,realtime",
	},
	{
		.map = "oom",
		.name = "boxo_resource_oom_kills_total",
		.help = "Processes of the target, or of its cgroup, that the out-of-memory killer ended.",
	},
};

/* 1: the pid; 2 since 6.9 (72ba14deb40a): the task. */
const volatile u32 args_of_mark_victim = 2;

SEC("tp_btf/sched_process_fork")
int TIMED_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct watched *w = watching();

	if (w && is_member(w, parent->tgid))
		count(&made, child->pid == child->tgid ? MADE_PROCESS : MADE_THREAD, 1);
	return 0;
}

/* Runs before the program of members.bpf.c that takes the process out of the set. */
SEC("tp_btf/sched_process_exit")
int TIMED_PROG(on_exit, struct task_struct *task)
{
	struct watched *w = watching();

	if (!w || (!is_member(w, task->tgid) && !is_late(w, task)))
		return 0;
	count(&threads_ended, 0, 1);
	if (!is_last(ctx, w, task))
		return 0;
	int code = task->signal->group_exit_code;

	if (!code)
		code = task->exit_code;
	count(&exits, code & 0x7f ? 2 : code ? 1 : 0, 1);
	return 0;
}

SEC("tp_btf/signal_deliver")
int TIMED_PROG(on_signal, int signal)
{
	if (signal <= 0 || !current_is_member())
		return 0;
	if (signal == SIGKILL) {
		struct task_struct *task = (void *)bpf_get_current_task();

		/* So the kernel ends the other threads of a process that exits or execs: nobody sent it. */
		if ((BPF_CORE_READ(task, signal, group_exit_code) & 0x7f) != SIGKILL)
			return 0;
	}
	count(&signals, signal < SIGNALS ? signal : SIGNALS, 1);
	return 0;
}

SEC("tp_btf/mark_victim")
int TIMED_PROG(on_victim)
{
	struct watched *w = watching();
	u64 victim = ctx[0];

	if (!w)
		return 0;
	if (args_of_mark_victim != 1)
		victim = ((struct task_struct *)ctx[0])->tgid;
	if (is_member(w, victim))
		count(&oom, 0, 1);
	return 0;
}
