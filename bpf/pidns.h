/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* How the agent numbers the kernel's tasks, for iterators that run in its name. */
#ifndef BOXO_BPF_PIDNS_H
#define BOXO_BPF_PIDNS_H

#include <bpf/bpf_core_read.h>

#include "core.h"

/* The agent's pid namespace, set by user space before load. */
const volatile u32 agent_pidns = 0;

/* The number that a task with this pid has in the agent's pid namespace; 0: it is not seen there. */
static __always_inline u32 number_for_agent(struct pid *pid)
{
	/* As a rule, and without calls. */
	if (pid->numbers[0].ns->ns.inum == agent_pidns)
		return pid->numbers[0].nr;

	u32 level = BPF_CORE_READ(pid, level);

	for (u32 i = 0; i < 32 && i <= level; i++) {
		struct upid upid = {};

		bpf_core_read(&upid, bpf_core_type_size(struct upid), &pid->numbers[i]);
		if (BPF_CORE_READ(upid.ns, ns.inum) == agent_pidns)
			return upid.nr;
	}
	return 0;
}

#endif
