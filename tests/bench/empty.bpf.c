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

SEC("tp_btf/inet_sock_set_state")
int on_state(u64 *ctx)
{
	return 0;
}

SEC("cgroup_skb/egress")
int on_sent(struct __sk_buff *skb)
{
	return 1;
}

SEC("cgroup_skb/ingress")
int on_received(struct __sk_buff *skb)
{
	return 1;
}

SEC("cgroup/sock_create")
int on_socket(struct bpf_sock *sk)
{
	return 1;
}
