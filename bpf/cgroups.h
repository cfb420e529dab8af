/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* In which cgroups (v2) the target's processes and sockets are. Programs of a cgroup see only what is in it or below: user
 * space puts them above everything that is met here (collectors/kernel/packet_group.h). */
#ifndef BOXO_BPF_CGROUPS_H
#define BOXO_BPF_CGROUPS_H

#include "sockets.h"
#include "watched.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* A socket's cgroup is that of the process which made it, at that time. */
struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* Before 5.15 (8520e224f547) it was lost as soon as a controller of version 1 marked sockets (net_cls, net_prio). */
struct sock_cgroup_data___before_5_15 {
	u64 val;
};

struct sock___before_5_15 {
	struct sock_cgroup_data___before_5_15 sk_cgrp_data;
};

struct sock___groups {
	struct sock_cgroup_data sk_cgrp_data;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct___groups {
	struct css_set *cgroups;
};

#pragma clang attribute pop

/* Ids of the main process's cgroup and of those above it, with their distance from the topmost that the agent sees. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GROUP_LEVELS);
	__type(key, u64);
	__type(value, u32);
} row SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct groups_met);
} met SEC(".maps");

/* Bounded, since groups may be made as deep as one likes; what is not found within is said to be anywhere. */
static __always_inline void meet(struct groups_met *m, struct cgroup *group)
{
	for (int i = 0; i < GROUP_LEVELS && group; i++) {
		u64 id = BPF_CORE_READ(group, kn, id);
		u32 *level = bpf_map_lookup_elem(&row, &id);

		if (level) {
			u32 at = *level;

			if (at < GROUP_LEVELS)
				m->at[at] = 1;
			return;
		}
		struct cgroup_subsys_state *above = BPF_CORE_READ((struct cgroup___self *)group, self.parent);

		group = above ? BPF_CORE_READ(above, cgroup) : NULL;
	}
	m->at[GROUP_ANYWHERE] = 1;
}

static __always_inline void meet_task(struct task_struct *task)
{
	u32 zero = 0;
	struct groups_met *m = bpf_map_lookup_elem(&met, &zero);

	if (!m || m->only_sockets)
		return;
	struct cgroup *group = BPF_CORE_READ((struct task_struct___groups *)task, cgroups, dfl_cgrp);

	if (group)
		meet(m, group);
}

static __always_inline void meet_socket(struct sock *sk)
{
	struct sock___groups *socket = (void *)sk;
	u32 zero = 0;
	struct groups_met *m = bpf_map_lookup_elem(&met, &zero);

	if (!m)
		return;
	if (bpf_core_field_exists(struct sock_cgroup_data, cgroup)) {
		struct cgroup *group = BPF_CORE_READ(socket, sk_cgrp_data.cgroup);

		if (group)
			meet(m, group);
		return;
	}
	u64 val = BPF_CORE_READ((struct sock___before_5_15 *)sk, sk_cgrp_data.val);

	meet(m, val & 3 ? NULL : (struct cgroup *)val); /* lost, or none: as if it were the root's */
}

#endif
