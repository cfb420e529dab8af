// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What the target's write calls put into files, told by the file systems' own tracepoints: nobody else's system calls are
 * touched. Raw tracepoints, because a file system may be a module whose types the agent cannot see. */
#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { EXT4, XFS, FILESYSTEMS };

COUNTERS(written, FILESYSTEMS);

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
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct iov_iter {
	size_t count;
};

#pragma clang attribute pop

static __always_inline int wrote(u32 filesystem, u64 bytes)
{
	struct watched *w = watching();

	if (w && is_member(w, bpf_get_current_pid_tgid() >> 32))
		count(&written, filesystem, bytes);
	return 0;
}

/* The inode, the position, the length, and how much of it was copied. */
SEC("?raw_tp/ext4_da_write_end")
int TIMED_PROG(on_ext4_delayed)
{
	return wrote(EXT4, (u32)ctx[3]);
}

SEC("?raw_tp/ext4_write_end")
int TIMED_PROG(on_ext4_ordered)
{
	return wrote(EXT4, (u32)ctx[3]);
}

SEC("?raw_tp/ext4_journalled_write_end")
int TIMED_PROG(on_ext4_journalled)
{
	return wrote(EXT4, (u32)ctx[3]);
}

/* The second argument is the length or, on newer kernels, the iterator that has it: no length is as large as an address. */
SEC("?raw_tp/xfs_file_buffered_write")
int TIMED_PROG(on_xfs)
{
	u64 bytes = ctx[1];

	if (bytes >> 63)
		bytes = BPF_CORE_READ((struct iov_iter *)bytes, count);
	return wrote(XFS, bytes);
}
