// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A probe that there is not, at every page fault of user space: its twin shows what it would cost at the least. */
#include "hist.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

PROBE = {.help = "nothing"};

SEC("tp_btf/page_fault_user")
int on_fault(u64 *ctx)
{
	return 0;
}
