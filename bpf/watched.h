/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/* What user space and the probes share about the target. */
#ifndef BOXO_BPF_WATCHED_H
#define BOXO_BPF_WATCHED_H

#include <linux/types.h>

#define WATCH_MARKS 4096
#define MEMBERS_MAX 4096
#define DATA_DEVICES_MAX 16

/* Values of the map `data_devices`. */
enum data_device {
	DATA_FILES = 1,	 /* the number of the file system: s_dev of its super block */
	DATA_BLOCKS = 2, /* a block device that it lies on */
};

/* Process ids are those of the initial pid namespace. */
struct watched {
	__u32 main;  /* the main process of the target, 0 if there is none */
	__u32 forks; /* how many members the kernel has added by itself */
	__u64 full;  /* how often `members` or the store of threads was full */
	/* Ids of the target's cgroup in the hierarchies of the memory and of the I/O controller; 0: it has none of its own. */
	__u64 cgroup_memory;
	__u64 cgroup_io;
	/* What threads have counted until their end, beyond what the iterator of readers.bpf.c has told of them. */
	__u64 ended_voluntary;
	__u64 ended_involuntary;
	__u64 ended_wait_ns;
	__u64 attached_at; /* CLOCK_MONOTONIC ns: when probes that are attached for windows were attached last */
	/* mark[tgid % WATCH_MARKS] is set for every member: a cheap no for nearly everybody else. Bytes, because setting
	 * one needs no atomic operation (which BPF has only since 5.12). */
	__u8 mark[WATCH_MARKS];
};

/* Values of the map `members`. */
enum member_of {
	MEMBER_TOLD = 1, /* user space said so */
	MEMBER_BORN = 2, /* forked by a member since user space last looked */
	MEMBER_SEEN = 3, /* the same, and user space has looked once without finding it in the target */
};

/* How far down the row from the topmost cgroup that the agent sees to the main process's one process or socket of the target
 * has been found: at[n] is set if the nearest that is above both is number n of the row, at[GROUP_ANYWHERE] if there is none
 * in the row, as far as one could look. */
#define GROUP_LEVELS 64
#define GROUP_ANYWHERE GROUP_LEVELS

struct groups_met {
	__u32 at[GROUP_LEVELS + 1];
	__u32 only_sockets; /* set by user space: whoever is elsewhere is not the target's */
};

/* One record of the iterator `translate`: a process as the agent numbers it and as the kernel does. */
struct translation {
	__u32 pid;
	__u32 tgid;
};

#endif
