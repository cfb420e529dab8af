// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What the target's write calls put into files, told by the file systems' own tracepoints: nobody else's system calls are
 * touched. Raw tracepoints, because a file system may be a module whose types the agent cannot see. */
#include "datadir.h"
#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { EXT4, XFS, FILESYSTEMS };

COUNTERS(written, FILESYSTEMS);
COUNTERS(data_written, 1);
COUNTERS(unplaced, 1);

PROBE = {.help = "bytes that write calls put into files of ext4 and xfs, for write amplification"};

METRICS = {
	{
		.map = "written",
		.name = "boxo_resource_file_written_bytes_total",
		.help = "Bytes that write calls of the target put into files of these file systems, through the page cache (no "
			"O_DIRECT, no mmap). What reached the block layer for it, divided by this, is the write amplification.",
		.labels = "filesystem",
		.values = "ext4,xfs",
		.programs = "on_ext4_delayed,on_xfs",
		.unit = UNIT_BYTES,
	},
	{
		.map = "data_written",
		.name = "boxo_resource_data_file_written_bytes_total",
		.help = "The part of boxo_resource_file_written_bytes_total that is in the file system of the data directory. "
			"boxo_resource_data_block_bytes_total{operation=\"write\"} divided by this is its write amplification.",
		.programs = "on_ext4_delayed,on_xfs",
		.unit = UNIT_BYTES,
		.data_on = "ext4,xfs",
	},
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct iov_iter {
	size_t count;
};

struct kiocb {
	struct file *ki_filp;
};

struct xfs_inode {
	struct inode i_vnode;
};

#pragma clang attribute pop

/* The inode, the position, the length, and how much of it was copied. */
static __always_inline int wrote_ext4(struct inode *inode, u64 bytes)
{
	if (!current_is_member())
		return 0;
	count(&written, EXT4, bytes);
	if (in_data_filesystem(inode))
		count(&data_written, 0, bytes);
	return 0;
}

SEC("?raw_tp/ext4_da_write_end")
int TIMED_PROG(on_ext4_delayed)
{
	return wrote_ext4((struct inode *)ctx[0], (u32)ctx[3]);
}

SEC("?raw_tp/ext4_write_end")
int TIMED_PROG(on_ext4_ordered)
{
	return wrote_ext4((struct inode *)ctx[0], (u32)ctx[3]);
}

SEC("?raw_tp/ext4_journalled_write_end")
int TIMED_PROG(on_ext4_journalled)
{
	return wrote_ext4((struct inode *)ctx[0], (u32)ctx[3]);
}

/* The inode and the length or, since 5.12 (ee1b218b0956), the kiocb and the iterator that has it: no length is as large as an
 * address. The types of a module are known to no 5.10: where the inode of the first form is in xfs' own is not told then. */
SEC("?raw_tp/xfs_file_buffered_write")
int TIMED_PROG(on_xfs)
{
	u64 bytes = ctx[1];
	struct xfs_inode *own = (struct xfs_inode *)ctx[0];
	u32 device = 0;

	if (!current_is_member())
		return 0;
	if (bytes >> 63) {
		bytes = BPF_CORE_READ((struct iov_iter *)bytes, count);
		device = BPF_CORE_READ((struct kiocb *)ctx[0], ki_filp, f_inode, i_sb, s_dev);
	} else if (bpf_core_field_exists(own->i_vnode)) {
		device = BPF_CORE_READ(own, i_vnode.i_sb, s_dev);
	} else {
		count(&unplaced, 0, 1);
	}
	count(&written, XFS, bytes);
	if (is_data_device(device, DATA_FILES))
		count(&data_written, 0, bytes);
	return 0;
}
