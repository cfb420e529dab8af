/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/* What the iterators of readers.bpf.c hand to user space: one record for each thread or socket. */
#ifndef BOXO_BPF_READINGS_H
#define BOXO_BPF_READINGS_H

#include <linux/types.h>

struct thread_reading {
	__u32 tid;        /* in the agent's pid namespace */
	__u32 state;      /* task_struct.__state and exit_state, as the kernel numbers them */
	__u64 started_at; /* since boot, ns */
	__u64 run_ns;     /* the three values of /proc/PID/task/TID/schedstat */
	__u64 wait_ns;
	__u64 turns;
	__u64 voluntary;
	__u64 involuntary;
};

/* The numbers of struct Socket in collectors/socket.h, as sock_diag tells them. */
struct socket_reading {
	__u64 id; /* address of the socket */
	__u64 bytes_sent;
	__u64 bytes_again; /* of them sent more than once */
	__u64 bytes_received;
	__u32 inode;
	__u32 drops;
	__u32 receive_queue;
	__u32 send_queue;
	__u32 segments_out;
	__u32 segments_in;
	__u32 retransmits;
	__u32 rtt_us;
	__u16 family;
	__u16 protocol; /* IPPROTO_TCP, IPPROTO_UDP; 0 for AF_UNIX */
	__u32 state;
};

#endif
