/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The kernel's types, as far as the probes read them: libbpf finds the real offsets on the running kernel. */
#ifndef BOXO_BPF_CORE_H
#define BOXO_BPF_CORE_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
};

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	long long counter;
} atomic64_t;

struct sched_info {
	unsigned long pcount;
	unsigned long long run_delay;
	unsigned long long last_arrival;
	unsigned long long last_queued;
};

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct super_block {
	unsigned int s_dev;
	unsigned long s_magic;
	struct file_system_type *s_type;
};

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
	struct super_block *i_sb;
};

struct file {
	struct inode *f_inode;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct signal_struct {
	atomic_t live;
	int group_exit_code;
};

struct sigaction {
	void *sa_handler;
	unsigned long sa_flags;
};

struct k_sigaction {
	struct sigaction sa;
};

struct sighand_struct {
	struct k_sigaction action[64];
};

struct rq {
	unsigned long long clock;
	unsigned long long clock_task;
};

struct cfs_rq {
	struct rq *rq;
};

struct sched_entity {
	unsigned long long exec_start;
	struct cfs_rq *cfs_rq;
};

struct task_struct {
	unsigned int __state;
	unsigned int flags;
	int pid;
	int tgid;
	unsigned in_iowait : 1;
	unsigned in_memstall : 1;
	unsigned frozen : 1;
	void *stack;
	struct sched_entity se;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct sched_info sched_info;
	struct pid *thread_pid;
	unsigned long nvcsw;
	unsigned long nivcsw;
	struct files_struct *files;
	struct signal_struct *signal;
	struct sighand_struct *sighand;
	int exit_code;
	int exit_signal;
	unsigned long long start_boottime;
};

/* Before 5.14 (2f064a59a11f) the field had another name and size. */
struct task_struct___before_5_14 {
	long state;
};

struct kernfs_node {
	unsigned long long id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup___self {
	struct cgroup_subsys_state self;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long di;
	long orig_ax;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	unsigned long long regs[31];
};
struct pt_regs {
	unsigned long long regs[31];
	unsigned long long orig_x0;
	int syscallno;
};
#endif

struct bpf_iter_meta {
	struct seq_file *seq;
	unsigned long long seq_num;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

#define S_TYPE(mode) ((mode)&0170000)
#define S_FIFO 0010000
#define S_BLOCK 0060000
#define S_REGULAR 0100000
#define S_SOCKET 0140000

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#endif
