/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/* What the iterators of readers.bpf.c hand to user space, one record for each thread or socket; and the probe tcp, for each
 * connection that has ended. */
#ifndef BOXO_BPF_READINGS_H
#define BOXO_BPF_READINGS_H

#include <linux/types.h>

struct thread_reading {
	__u64 task;       /* address of its task_struct */
	__u32 tid;        /* in the agent's pid namespace */
	__u32 state;      /* task_struct.__state and exit_state, as the kernel numbers them */
	__u64 started_at; /* since boot, ns */
	__u64 run_ns;     /* the three values of /proc/PID/task/TID/schedstat */
	__u64 wait_ns;
	__u64 turns;
	__u64 voluntary;
	__u64 involuntary;
	__u64 blocked_ns; /* for how long it has been waiting now */
	__u32 waits_for;  /* an OFFCPU_ value of reasons.h; OFFCPU_REASONS: it is runnable or has ended */
	__u32 unused;
};

/* The numbers of struct Socket in collectors/socket.h, as sock_diag tells them. */
struct socket_reading {
	__u64 id;     /* address of the socket */
	__u64 cookie; /* as in struct connection_end */
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
	__u32 data_segments_out; /* those with payload */
	__u32 pad;
};

/* What a TCP connection has had when it ends, as in struct socket_reading. */
struct connection_end {
	__u64 cookie; /* the kernel's number for the socket; 0: nobody has asked for it yet, not even sock_diag */
	__u64 bytes_sent;
	__u64 bytes_again;
	__u64 bytes_received; /* without the other side's FIN */
	__u32 segments_out;
	__u32 segments_in;
	__u32 retransmits;
	__u32 data_segments_out;
};

/* Bytes of the ring that holds them until the next collection: a power of 2, for 9,000 connections. */
#define ENDS_SIZE (512 * 1024)

#endif
