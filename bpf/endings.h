/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/* What endings.bpf.c hands to user space: the only element of its PERCPU_ARRAY `unclaimed`. */
#ifndef BOXO_BPF_ENDINGS_H
#define BOXO_BPF_ENDINGS_H

#include <linux/types.h>

struct used {
	__u64 user_ns;
	__u64 system_ns;
	__u64 minor_faults;
	__u64 major_faults;
	__u64 chars_read;
	__u64 chars_written;
	__u64 reads;
	__u64 writes;
	__u64 bytes_read;
	__u64 bytes_written;
	__u64 bytes_cancelled;
};

#endif
