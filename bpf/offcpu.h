/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Why a thread left the CPU, from its state and the system call it is in. No hook on system calls is needed: the
 * number still lies in the registers that user space was left with. */
#ifndef BOXO_BPF_OFFCPU_H
#define BOXO_BPF_OFFCPU_H

#include <asm/unistd.h>

#include "cast.h"
#include "core.h"
#include "reasons.h"
#include "watch.h"

#ifndef __NR_futex_waitv
#define __NR_futex_waitv 449
#endif
#ifndef __NR_futex_wait
#define __NR_futex_wait 455
#endif

enum {
	OFFCPU_RUNNABLE = OFFCPU_REASONS,
	/* Only in the table below: the file behind the descriptor decides. */
	OFFCPU_BY_FILE,
};

static const u8 offcpu_by_syscall[512] = {
	[__NR_fsync] = OFFCPU_FSYNC,
	[__NR_fdatasync] = OFFCPU_FSYNC,
	[__NR_sync] = OFFCPU_FSYNC,
	[__NR_syncfs] = OFFCPU_FSYNC,
	[__NR_sync_file_range] = OFFCPU_FSYNC,
	[__NR_msync] = OFFCPU_FSYNC,
	[__NR_futex] = OFFCPU_FUTEX,
	[__NR_futex_waitv] = OFFCPU_FUTEX,
	[__NR_futex_wait] = OFFCPU_FUTEX,
	[__NR_epoll_pwait] = OFFCPU_POLL,
	[__NR_epoll_pwait2] = OFFCPU_POLL,
	[__NR_ppoll] = OFFCPU_POLL,
	[__NR_pselect6] = OFFCPU_POLL,
	[__NR_accept] = OFFCPU_SOCKET,
	[__NR_accept4] = OFFCPU_SOCKET,
	[__NR_connect] = OFFCPU_SOCKET,
	[__NR_recvfrom] = OFFCPU_SOCKET,
	[__NR_recvmsg] = OFFCPU_SOCKET,
	[__NR_recvmmsg] = OFFCPU_SOCKET,
	[__NR_sendto] = OFFCPU_SOCKET,
	[__NR_sendmsg] = OFFCPU_SOCKET,
	[__NR_sendmmsg] = OFFCPU_SOCKET,
	[__NR_nanosleep] = OFFCPU_SLEEP,
	[__NR_clock_nanosleep] = OFFCPU_SLEEP,
	[__NR_wait4] = OFFCPU_CHILD,
	[__NR_waitid] = OFFCPU_CHILD,
	[__NR_io_uring_enter] = OFFCPU_IO_URING,
	[__NR_read] = OFFCPU_BY_FILE,
	[__NR_write] = OFFCPU_BY_FILE,
	[__NR_readv] = OFFCPU_BY_FILE,
	[__NR_writev] = OFFCPU_BY_FILE,
	[__NR_splice] = OFFCPU_BY_FILE,
	[__NR_sendfile] = OFFCPU_BY_FILE,
#ifdef __NR_epoll_wait /* not on arm64, as all of these */
	[__NR_epoll_wait] = OFFCPU_POLL,
	[__NR_poll] = OFFCPU_POLL,
	[__NR_select] = OFFCPU_POLL,
#endif
};

#define TASK_UNINTERRUPTIBLE 2
#define TASK_KILLABLE (TASK_UNINTERRUPTIBLE | 0x100)
#define TASK_STOPPED_OR_TRACED (4 | 8)
#define TASK_FROZEN 0x8000 /* since 6.1 (f5d39b020809) */
#define PF_IO_WORKER 0x10
static __always_inline u32 state_of(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return task->__state;
	struct task_struct___before_5_14 *old = (void *)task;

	return old->state;
}

#if defined(__TARGET_ARCH_x86)
#define REGS_SYSCALL orig_ax
#define REGS_FIRST di
#else
#define REGS_SYSCALL syscallno
#define REGS_FIRST regs[0]
#endif

/* The system call that the task is in, negative if none, and its first argument: of its last entry into the kernel. */
static __always_inline long syscall_of(struct task_struct *task, u32 *first)
{
	struct pt_regs *regs;

	/* Since 5.15 (dd6e10fbd9fb). */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		regs = (struct pt_regs *)bpf_task_pt_regs(task);
		*first = regs->REGS_FIRST;
		return regs->REGS_SYSCALL;
	}
	/* Both architectures have stacks of 16 KiB and left no padding at the top then. */
	regs = (struct pt_regs *)((char *)task->stack + 16384 - bpf_core_type_size(struct pt_regs));
	*first = BPF_CORE_READ(regs, REGS_FIRST);
	return BPF_CORE_READ(regs, REGS_SYSCALL);
}

static __always_inline u32 offcpu_by_file(struct task_struct *task, u32 fd)
{
	struct fdtable *table = task->files->fdt;
	struct file **files = table->fd;
	struct file *file = fd < table->max_fds ? READ_POINTER(files + fd) : NULL;

	if (!file)
		return OFFCPU_OTHER;
	u32 type = S_TYPE(READ(inode, READ(file, file, f_inode), i_mode));

	return type == S_SOCKET ? OFFCPU_SOCKET : type == S_FIFO ? OFFCPU_PIPE : OFFCPU_OTHER;
}

/* By the freezer of cgroup version 2. Who waits for the child of a vfork is marked so too, but is not interruptible. */
static __always_inline bool is_frozen(struct task_struct *task, u32 state)
{
	return !(state & TASK_UNINTERRUPTIBLE) && bpf_core_field_exists(task->frozen) && BPF_CORE_READ_BITFIELD(task, frozen);
}

/* The clock that sched_info uses. Reached through the task, because the address of the symbol `runqueues` is known only to
 * kernels with CONFIG_KALLSYMS_ALL. */
static __always_inline u64 rq_clock(struct task_struct *task)
{
	return task->se.cfs_rq->rq->clock;
}

static __always_inline u64 since(u64 now, u64 then)
{
	return now > then ? now - then : 0;
}

/* The kernel marks who has to free memory, and who is slowed down because its cgroup has more than memory.high. */
static __always_inline bool waits_for_memory(struct task_struct *task)
{
	return bpf_core_field_exists(task->in_memstall) && BPF_CORE_READ_BITFIELD(task, in_memstall);
}

/* Of `thread` is used what others remembered; NULL: nothing. */
static __always_inline u32 offcpu_reason(struct task_struct *task, const struct thread *thread, u32 state)
{
	bool io = BPF_CORE_READ_BITFIELD(task, in_iowait);
	u32 fd;
	long nr;

	if (state & (TASK_STOPPED_OR_TRACED | TASK_FROZEN) || is_frozen(task, state))
		return OFFCPU_STOPPED;
	/* Since 6.0 (fe6c9c6e3e3e) a pause is ordered of a write that must not wait, too, which then does not. */
	if (io && state == TASK_KILLABLE && thread && thread->pauses_at == task->nvcsw)
		return OFFCPU_DIRTY_THROTTLE;
	if (!io && state & TASK_UNINTERRUPTIBLE && waits_for_memory(task))
		return OFFCPU_MEMORY;
	if (task->flags & PF_IO_WORKER)
		return io ? OFFCPU_BLOCK_IO : OFFCPU_IO_URING;
	nr = syscall_of(task, &fd);
	if (nr < 0) /* not in a system call: an exception, which is a page fault if it waits */
		return OFFCPU_PAGE_FAULT;

	u32 reason = nr < (long)sizeof(offcpu_by_syscall) ? offcpu_by_syscall[nr & 511] : OFFCPU_OTHER;

	if (nr == __NR_restart_syscall && thread) /* it was stopped, say, and goes on with what it did before */
		reason = thread->restarts;

	/* Since 6.5 (8a796565cec3), and in stable kernels of before, every wait in io_uring_enter is marked as one for a device if
	 * requests are under way, be it of sockets or timers. */
	if (reason == OFFCPU_FSYNC || reason == OFFCPU_IO_URING)
		return reason;
	if (io)
		return OFFCPU_BLOCK_IO;
	if (state & TASK_UNINTERRUPTIBLE)
		return OFFCPU_KERNEL;
	return reason == OFFCPU_BY_FILE ? offcpu_by_file(task, fd) : reason;
}

#endif
