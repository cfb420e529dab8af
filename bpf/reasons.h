/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/* What a thread that is not on a CPU may wait for: offcpu.h finds out which. */
#ifndef BOXO_BPF_REASONS_H
#define BOXO_BPF_REASONS_H

enum {
	OFFCPU_OTHER,
	OFFCPU_BLOCK_IO,
	OFFCPU_FSYNC,
	OFFCPU_PAGE_FAULT,
	OFFCPU_FUTEX,
	OFFCPU_POLL,
	OFFCPU_SOCKET,
	OFFCPU_PIPE,
	OFFCPU_SLEEP,
	OFFCPU_CHILD,
	OFFCPU_IO_URING,
	OFFCPU_STOPPED,
	OFFCPU_KERNEL,
	OFFCPU_DIRTY_THROTTLE,
	OFFCPU_MEMORY,
	OFFCPU_REASONS,
};

#define OFFCPU_REASON_NAMES                                                                                          \
	"other,block_io,fsync,page_fault,futex,poll,socket,pipe,sleep,child,io_uring,stopped,kernel,dirty_throttle,memory"

#endif
