// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What processes of the target used for which no other one of it waited. For the others the kernel adds it to who did. */
#include "endings.h"
#include "exit.h"
#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

PROBE = {.help = "CPU time, page faults and I/O of ended processes that nobody of the target waited for"};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct used);
} unclaimed SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_io_accounting {
	u64 rchar;
	u64 wchar;
	u64 syscr;
	u64 syscw;
	u64 read_bytes;
	u64 write_bytes;
	u64 cancelled_write_bytes;
};

struct prev_cputime {
	u64 utime;
	u64 stime;
};

struct signal_struct___used {
	u64 utime;
	u64 stime;
	u64 cutime;
	u64 cstime;
	struct prev_cputime prev_cputime;
	unsigned long min_flt;
	unsigned long maj_flt;
	unsigned long cmin_flt;
	unsigned long cmaj_flt;
	struct task_io_accounting ioac;
	u64 sum_sched_runtime;
};

struct sched_entity___used {
	u64 sum_exec_runtime;
};

struct task_struct___used {
	struct sched_entity___used se;
};

#pragma clang attribute pop

/* The system's part of `run` as the kernel splits it (cputime_adjust): by the ticks that met the process in either
 * mode, and so that neither goes back behind what was shown before. */
static __always_inline u64 system_part(u64 run, const struct signal_struct___used *s)
{
	u64 system = s->stime, both = s->utime + system, part = 0;
	u64 shown_user = s->prev_cputime.utime, shown_system = s->prev_cputime.stime;
	u32 shift = both >> 32 ? log2_floor(both) - 31 : 0;

	if (system) {
		both >>= shift;
		system >>= shift;
		part = run / both * system + run % both * system / both;
	}
	if (run < shown_user + shown_system)
		return shown_system < run ? shown_system : run;
	if (part < shown_system)
		return shown_system;
	return run - part < shown_user ? run - shown_user : part;
}

static __always_inline void add(struct used *to, struct task_struct *task)
{
	struct signal_struct___used *s = (void *)task->signal;
	u64 run = s->sum_sched_runtime;
	/* One that nobody had to wait for adds its time to the process's while it still runs: some is missing there. */
	u64 last = ((struct task_struct___used *)task)->se.sum_exec_runtime;

	if (run < last)
		run = last;
	u64 system = system_part(run, s);

	to->user_ns += run - system + s->cutime;
	to->system_ns += system + s->cstime;
	to->minor_faults += s->min_flt + s->cmin_flt;
	to->major_faults += s->maj_flt + s->cmaj_flt;
	if (bpf_core_field_exists(s->ioac.rchar)) {
		to->chars_read += s->ioac.rchar;
		to->chars_written += s->ioac.wchar;
		to->reads += s->ioac.syscr;
		to->writes += s->ioac.syscw;
	}
	if (bpf_core_field_exists(s->ioac.read_bytes)) {
		to->bytes_read += s->ioac.read_bytes;
		to->bytes_written += s->ioac.write_bytes;
		to->bytes_cancelled += s->ioac.cancelled_write_bytes;
	}
}

/* Some milliseconds after the kernel has let go of the process: its own totals are complete then, but of its parent
 * there may be nothing left. */
SEC("tp_btf/sched_process_free")
int TIMED_PROG(on_free, struct task_struct *task)
{
	struct watched *w = watching();
	u32 tgid = task->tgid, zero = 0;

	if (!w || (u32)task->pid != tgid)
		return 0;
	struct ending *ending = bpf_map_lookup_elem(&endings, &tgid);

	if (!ending || ending->started_at != task->start_boottime)
		return 0;
	struct task_struct *parent = task->real_parent;
	/* Another parent: the first one ended without having waited. */
	bool claimed = ending->parent == (u64)parent ? ending->claimed : claims(w, task, parent);
	struct used *used = bpf_map_lookup_elem(&unclaimed, &zero);

	if (((struct signal_struct___used *)task->signal)->cmin_flt)
		bpf_map_update_elem(&reapers, &tgid, &ending->started_at, BPF_ANY);
	if (!claimed && used)
		add(used, task);
	bpf_map_delete_elem(&endings, &tgid);
	return 0;
}
