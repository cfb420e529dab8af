// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Block I/O of the target. Requests are issued by whoever runs the queue and completed by an interrupt, so the owner is
 * decided when the request is made, by its submitter, and remembered by the request's address. */
#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { OP_READ, OP_WRITE, OP_FLUSH, OP_DISCARD, OPS };
#define OP_NAMES "read,write,flush,discard"

HISTOGRAMS(latency, OPS);
HISTOGRAMS(size, OPS);
COUNTERS(full, 1);

PROBE = {.help = "block I/O latency and size, attributed when a request is made"};

METRICS = {
	{
		.map = "latency",
		.name = "boxo_resource_block_io_latency_seconds",
		.help = "Block I/O of the target: from issue to the device until completion.",
		.labels = "operation",
		.values = OP_NAMES,
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_NANOSECONDS,
		.base = 1000,
		.edges = 26,
	},
	{
		.map = "size",
		.name = "boxo_resource_block_io_size_bytes",
		.help = "Size of the target's block I/O requests as issued to the device.",
		.labels = "operation",
		.values = OP_NAMES,
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_BYTES,
		.base = 512,
		.edges = 16,
	},
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

struct bio {
	struct blkcg_gq *bi_blkg;
};

struct request_queue {
	void *elevator;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	struct bio *bio;
};

#pragma clang attribute pop

enum req_flag_bits { __REQ_PREFLUSH = 18 };

struct owned {
	u64 at; /* made, then issued */
	u32 bytes;
	u32 op;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct owned);
} requests SEC(".maps");

/* How many arguments these have here: 5.11 (a54895fa057c) took the request queue away; 0 if there is no such hook. */
const volatile u32 args_of_block_io_start = 0;
const volatile u32 args_of_block_rq_insert = 1;
const volatile u32 args_of_block_rq_issue = 1;

static __always_inline u32 op_of(struct request *rq)
{
	u32 flags = rq->cmd_flags;

	/* An fsync without data: an empty write that asks for a flush before it. */
	if (!rq->__data_len && flags & (1u << bpf_core_enum_value(enum req_flag_bits, __REQ_PREFLUSH)))
		return OP_FLUSH;
	switch (flags & 0xff) {
	case 0:
		return OP_READ;
	case 1: /* write */
	case 7: /* zone append, before 5.18 13 */
	case 13:
	case 9: /* write zeroes */
		return OP_WRITE;
	case 2:
		return OP_FLUSH;
	case 3: /* discard, secure erase */
	case 5:
		return OP_DISCARD;
	}
	return OPS;
}

/* Written back by a kernel thread for the cgroup that is watched, or for one below it. */
static __always_inline bool of_watched_cgroup(const struct watched *w, struct request *rq)
{
	if (!w->cgroup)
		return false;
	struct bio *bio = rq->bio;
	struct blkcg *blkcg = BPF_CORE_READ(bio, bi_blkg, blkcg);
	struct cgroup_subsys_state *css = &blkcg->css;

	for (int depth = 0; depth < 16 && css; depth++) {
		if (BPF_CORE_READ(css, cgroup, kn, id) == w->cgroup)
			return true;
		css = BPF_CORE_READ(css, parent);
	}
	return false;
}

/* Requests are made and queued where the kernel may sleep, never in an interrupt: the current task is the submitter. */
static __always_inline bool is_ours(const struct watched *w, struct request *rq)
{
	return is_member(w, bpf_get_current_pid_tgid() >> 32) || of_watched_cgroup(w, rq);
}

static __always_inline void remember(struct request *rq)
{
	u64 key = (u64)rq;
	struct owned owned = {.at = bpf_ktime_get_ns(), .bytes = rq->__data_len, .op = op_of(rq)};

	if (owned.op < OPS && bpf_map_update_elem(&requests, &key, &owned, BPF_ANY))
		count(&full, 0, 1);
}

static __always_inline int made(struct request *rq)
{
	struct watched *w = watching();
	u64 key = (u64)rq;

	if (w && is_ours(w, rq))
		remember(rq);
	else /* Requests live again: one that was merged away never completed. */
		bpf_map_delete_elem(&requests, &key);
	return 0;
}

static __always_inline int issued(struct request *rq)
{
	u64 key = (u64)rq;
	struct owned *owned = bpf_map_lookup_elem(&requests, &key);

	if (owned) {
		owned->at = bpf_ktime_get_ns();
		owned->bytes = rq->__data_len;
		return 0;
	}
	/* Without block_io_start, a request that no scheduler queues is first seen here, from its submitter. */
	struct watched *w = watching();

	if (!args_of_block_io_start && w && !BPF_CORE_READ(rq, q, elevator) && is_ours(w, rq))
		remember(rq);
	return 0;
}

/* Loaded here and now: the verifier refuses an address in the context that was chosen before. */
#define REQUEST(argument)                                                                                          \
	({                                                                                                         \
		struct request *rq_ = (struct request *)(argument);                                                \
		barrier_var(rq_);                                                                                  \
		rq_;                                                                                               \
	})

/* Since 6.5 (5a80bd075f3b). */
SEC("?tp_btf/block_io_start")
int TIMED_PROG(on_start, struct request *rq)
{
	return made(rq);
}

SEC("tp_btf/block_rq_insert")
int TIMED_PROG(on_insert)
{
	if (args_of_block_io_start)
		return 0;
	return args_of_block_rq_insert == 2 ? made(REQUEST(ctx[1])) : made(REQUEST(ctx[0]));
}

SEC("tp_btf/block_rq_issue")
int TIMED_PROG(on_issue)
{
	return args_of_block_rq_issue == 2 ? issued(REQUEST(ctx[1])) : issued(REQUEST(ctx[0]));
}

SEC("tp_btf/block_rq_complete")
int TIMED_PROG(on_complete, struct request *rq, int error, unsigned int bytes)
{
	u64 key = (u64)rq;
	struct owned *owned = bpf_map_lookup_elem(&requests, &key);

	if (!owned || bytes < rq->__data_len) /* there is more to come */
		return 0;
	u64 now = bpf_ktime_get_ns();

	if (owned->op < OPS) {
		observe(&latency, owned->op, now > owned->at ? now - owned->at : 0, 1000);
		if (owned->bytes)
			observe(&size, owned->op, owned->bytes, 512);
	}
	bpf_map_delete_elem(&requests, &key);
	return 0;
}
