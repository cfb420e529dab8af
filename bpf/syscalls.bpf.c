// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Latency of the system calls that a datastore and a network node make. Its hooks cost every system call of every
 * process on the host, so it is loaded only when asked for. */
#include <asm/unistd.h>

#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* The number, 1 + the index in the label's values. */
#ifdef __NR_unlink
#define ONLY_X86(name, index) [__NR_##name] = index,
#else
#define ONLY_X86(name, index)
#endif

static const u8 index_of[512] = {
	[__NR_read] = 1,
	[__NR_write] = 2,
	[__NR_pread64] = 3,
	[__NR_pwrite64] = 4,
	[__NR_readv] = 5,
	[__NR_writev] = 6,
	[__NR_openat] = 7,
	[__NR_close] = 8,
	[__NR_fsync] = 9,
	[__NR_fdatasync] = 10,
	[__NR_unlinkat] = 11,
	ONLY_X86(rename, 12)
	[__NR_renameat] = 13,
	[__NR_renameat2] = 14,
	[__NR_ftruncate] = 15,
	[__NR_getdents64] = 16,
	ONLY_X86(stat, 17)
	[__NR_newfstatat] = 18,
	[__NR_mmap] = 19,
	[__NR_munmap] = 20,
	[__NR_madvise] = 21,
	[__NR_msync] = 22,
	[__NR_futex] = 23,
	[__NR_epoll_pwait] = 24,
	[__NR_nanosleep] = 25,
	[__NR_sendmsg] = 26,
	[__NR_recvmsg] = 27,
	[__NR_sendto] = 28,
	[__NR_recvfrom] = 29,
	[__NR_sendmmsg] = 30,
	[__NR_recvmmsg] = 31,
	[__NR_accept4] = 32,
	[__NR_connect] = 33,
	[__NR_io_uring_enter] = 34,
};

#define SYSCALLS 34
#define SYSCALL_NAMES                                                                                              \
	"read,write,pread64,pwrite64,readv,writev,openat,close,fsync,fdatasync,unlinkat,rename,renameat,"          \
	"renameat2,ftruncate,getdents64,stat,newfstatat,mmap,munmap,madvise,msync,futex,epoll_pwait,nanosleep,"    \
	"sendmsg,recvmsg,sendto,recvfrom,sendmmsg,recvmmsg,accept4,connect,io_uring_enter"

HISTOGRAMS(latency, SYSCALLS);

PROBE = {
	.help = "latency of system calls; costs every system call of every process on the host",
	.on_request = 1,
};

METRICS = {
	{
		.map = "latency",
		.name = "boxo_resource_syscall_latency_seconds",
		.help = "Time that threads of the target spent in a system call, waiting included. Only with --probe "
			"syscalls.",
		.labels = "syscall",
		.values = SYSCALL_NAMES,
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_NANOSECONDS,
		.base = 1000,
		.edges = 26,
	},
};

SEC("tp_btf/sys_enter")
int TIMED_PROG(on_enter, struct pt_regs *regs, long id)
{
	struct thread *thread = current_is_member() ? current_thread() : NULL;

	if (!thread)
		return 0;
	thread->syscall = id >= 0 && id < (long)sizeof(index_of) ? index_of[id & 511] : 0;
	if (thread->syscall)
		thread->entered_at = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sys_exit")
int TIMED_PROG(on_exit, struct pt_regs *regs, long result)
{
	struct watched *w = watching();

	if (!w || !is_member(w, bpf_get_current_pid_tgid() >> 32))
		return 0;
	struct thread *thread = current_thread();

	if (!thread || !thread->syscall)
		return 0;
	u32 index = thread->syscall - 1;

	thread->syscall = 0;
	/* Entered before the probe was last attached: other calls may have come and gone since. */
	if (thread->entered_at < w->attached_at)
		return 0;
	observe(&latency, index, bpf_ktime_get_ns() - thread->entered_at, 1000);
	return 0;
}
