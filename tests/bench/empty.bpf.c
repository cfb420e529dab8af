// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The floor: what the kernel takes for calling a program that does nothing, on the hooks of each probe. */
#include "hist.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

PROBE = {.help = "nothing"};

SEC("tp_btf/sched_switch")
int on_switch(u64 *ctx)
{
	return 0;
}
