// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Bytes that the target's read and write calls moved from and to files on disks. Its hook costs every system call of every
 * process on the host, so it is loaded only when asked for. */
#include <asm/unistd.h>

#include "datadir.h"
#include "hist.h"
#include "offcpu.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { MOVED_IN, MOVED_OUT, DIRECTIONS };

COUNTERS(moved, DIRECTIONS);
COUNTERS(calls, DIRECTIONS);
COUNTERS(data_moved, DIRECTIONS);

PROBE = {
	.help = "bytes that read and write calls moved from and to files; costs every system call of every process",
	.on_request = 1,
};

METRICS = {
	{
		.map = "moved",
		.name = "boxo_resource_file_bytes_total",
		.help = "Bytes that read and write calls of the target moved from and to regular files on disks, page cache or "
			"not. Only with --probe filecalls.",
		.labels = "operation",
		.values = "read,write",
		.unit = UNIT_BYTES,
	},
	{
		.map = "calls",
		.name = "boxo_resource_file_calls_total",
		.help = "The calls that moved them. Only with --probe filecalls.",
		.labels = "operation",
		.values = "read,write",
	},
	{
		.map = "data_moved",
		.name = "boxo_resource_data_file_bytes_total",
		.help = "The part of boxo_resource_file_bytes_total that is in the file system of the data directory. Only with "
			"--probe filecalls.",
		.labels = "operation",
		.values = "read,write",
		.unit = UNIT_BYTES,
		.data_on = "*",
	},
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct file_system_type {
	int fs_flags;
};

#pragma clang attribute pop

#define FS_REQUIRES_DEV 1
#define OVERLAYFS_SUPER_MAGIC 0x794c7630

/* 1 + the direction. */
static const u8 direction_of[512] = {
	[__NR_read] = 1 + MOVED_IN,	[__NR_pread64] = 1 + MOVED_IN,	 [__NR_readv] = 1 + MOVED_IN,
	[__NR_preadv] = 1 + MOVED_IN,	[__NR_preadv2] = 1 + MOVED_IN,

	[__NR_write] = 1 + MOVED_OUT,	[__NR_pwrite64] = 1 + MOVED_OUT, [__NR_writev] = 1 + MOVED_OUT,
	[__NR_pwritev] = 1 + MOVED_OUT, [__NR_pwritev2] = 1 + MOVED_OUT,
};

static __always_inline struct file *file_of(struct task_struct *task, u32 fd)
{
	struct fdtable *table = READ(files_struct, READ(task_struct, task, files), fdt);

	return fd < READ(fdtable, table, max_fds) ? READ_POINTER(READ(fdtable, table, fd) + fd) : NULL;
}

/* A regular file of a file system that lies on a block device; overlayfs, of a container, lies on one of those. */
static __always_inline bool on_disk(struct inode *inode)
{
	if (S_TYPE(READ(inode, inode, i_mode)) != S_REGULAR)
		return false;
	struct super_block *super = READ(inode, inode, i_sb);

	return READ(file_system_type, READ(super_block, super, s_type), fs_flags) & FS_REQUIRES_DEV ||
	       READ(super_block, super, s_magic) == OVERLAYFS_SUPER_MAGIC;
}

SEC("tp_btf/sys_exit")
int TIMED_PROG(on_exit, struct pt_regs *regs, long result)
{
	if (result <= 0 || !current_is_member())
		return 0;
#if defined(__TARGET_ARCH_x86)
	long nr = regs->orig_ax;
	u32 fd = regs->di;
#else
	long nr = regs->syscallno;
	u32 fd = regs->orig_x0;
#endif
	u32 direction = nr >= 0 && nr < (long)sizeof(direction_of) ? direction_of[nr & 511] : 0;

	if (!direction)
		return 0;
	struct file *file = file_of((struct task_struct *)bpf_get_current_task(), fd);
	struct inode *inode = file ? READ(file, file, f_inode) : NULL;

	if (!inode || !on_disk(inode))
		return 0;
	count(&moved, direction - 1, result);
	count(&calls, direction - 1, 1);
	if (in_data_filesystem(inode))
		count(&data_moved, direction - 1, result);
	return 0;
}
