// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Block I/O of the target. Requests are issued by whoever runs the queue and completed by an interrupt, so the owner is
 * decided when the request is made and remembered by the request's address. It is the submitter; or, where a kernel
 * thread writes back what the target left in the page cache, the cgroup that the page is charged to. */
#include "datadir.h"
#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { OP_READ, OP_WRITE, OP_FLUSH, OP_DISCARD, OPS };
#define OP_NAMES "read,write,flush,discard"
#define OP_PROGRAMS "on_issue,on_issue,on_start,on_issue"

HISTOGRAMS(latency, OPS);
HISTOGRAMS(size, OPS);
COUNTERS(written_back, 1);
COUNTERS(data_bytes, 2); /* OP_READ, OP_WRITE */
COUNTERS(unplaced, 1);
COUNTERS(full, 1);

PROBE = {.help = "block I/O latency and size, attributed when a request is made"};

METRICS = {
	{
		.map = "latency",
		.name = "boxo_resource_block_io_latency_seconds",
		.help = "Block I/O of the target: from issue to the device until completion. Without memory that is swapped out.",
		.labels = "operation",
		.values = OP_NAMES,
		.programs = OP_PROGRAMS,
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_NANOSECONDS,
		.base = 1000,
		.edges = 26,
	},
	{
		.map = "size",
		.name = "boxo_resource_block_io_size_bytes",
		.help = "Size of the target's block I/O requests as issued to the device. Without memory that is swapped out.",
		.labels = "operation",
		.values = OP_NAMES,
		.programs = OP_PROGRAMS,
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_BYTES,
		.base = 512,
		.edges = 16,
	},
	{
		.map = "written_back",
		.name = "boxo_resource_writeback_bytes_total",
		.help = "The part of the bytes written in boxo_resource_block_io_size_bytes that kernel threads, or other "
			"processes, wrote back for the target: pages that its cgroup is charged for.",
		.unit = UNIT_BYTES,
		.needs_cgroup = 1,
	},
	{
		.map = "data_bytes",
		.name = "boxo_resource_data_block_bytes_total",
		.help = "The part of the bytes read and written in boxo_resource_block_io_size_bytes that went to the devices which "
			"the file system of the data directory lies on.",
		.labels = "operation",
		.values = "read,write",
		.unit = UNIT_BYTES,
		.data_on = "*",
	},
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

struct address_space {
	struct inode *host;
};

struct page {
	struct address_space *mapping;
	unsigned long compound_head;
	unsigned long memcg_data; /* since 5.11 (bcfe06bf2622) */
};

struct page___before_5_11 {
	unsigned long mem_cgroup;
};

struct bio_vec {
	struct page *bv_page;
};

struct bvec_iter {
	unsigned int bi_idx;
};

struct block_device {
	unsigned int bd_dev;
};

/* Until 5.10 (0d02129e76ed). */
struct device {
	unsigned int devt;
};

struct hd_struct {
	struct device __dev;
};

struct bio {
	struct block_device *bi_bdev;
	struct bvec_iter bi_iter;
	struct blkcg_gq *bi_blkg;
	struct bio_vec *bi_io_vec;
};

struct request_queue {
	void *elevator;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	struct bio *bio;
	struct block_device *part;
};

#pragma clang attribute pop

enum req_flag_bits { __REQ_PREFLUSH = 18, __REQ_SWAP = 26 };

#define PF_KTHREAD 0x00200000
/* In memcg_data: not a page of the page cache, but the kernel's own. */
#define MEMCG_DATA_FLAGS 3
/* In mapping: no file's page. */
#define PAGE_MAPPING_FLAGS 3

enum whose { NOT_OURS, SUBMITTED, WRITTEN_BACK };

struct owned {
	u64 at; /* made, then issued */
	u32 bytes;
	u8 op;
	u8 whose;
	u8 issued;
	u8 data; /* on a device of the data directory */
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
	/* Memory that is swapped out is no data, and whoever frees memory writes that of others too. */
	if (bpf_core_enum_value_exists(enum req_flag_bits, __REQ_SWAP) &&
	    flags & (1u << bpf_core_enum_value(enum req_flag_bits, __REQ_SWAP)))
		return OPS;
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

static __always_inline bool in_cgroup(struct cgroup_subsys_state *css, u64 id)
{
	for (int depth = 0; depth < 16 && css; depth++) {
		struct cgroup *cgroup = READ(cgroup_subsys_state, css, cgroup);

		if (READ(kernfs_node, READ(cgroup, cgroup, kn), id) == id)
			return true;
		css = READ(cgroup_subsys_state, css, parent);
	}
	return false;
}

/* No field of a page is READ(): a page is made of unions, in which the verifier takes numbers for pointers, with which one may not
 * reckon. */

/* A page of the block device itself: what the file system keeps there for all its files. Such a page is charged to whoever
 * happened to read it first. */
static __always_inline bool is_metadata(struct page *page)
{
	if (!bpf_core_field_exists(page->mapping))
		return false;
	struct address_space *mapping = BPF_CORE_READ(page, mapping);

	if (!mapping || (unsigned long)mapping & PAGE_MAPPING_FLAGS)
		return false;
	return S_TYPE(READ(inode, READ(address_space, mapping, host), i_mode)) == S_BLOCK;
}

/* The memory cgroup that the first page of the request is charged to: both cgroup versions have it, on every file system,
 * while the cgroup of the request itself is known of writeback only with version 2, and on some file systems. */
static __always_inline struct cgroup_subsys_state *charged_to(struct bio *bio)
{
	char *vecs = (char *)READ(bio, bio, bi_io_vec);
	struct bio_vec *vec = (void *)(vecs + READ(bio, bio, bi_iter.bi_idx) * bpf_core_type_size(struct bio_vec));
	struct page *page = READ(bio_vec, vec, bv_page);
	unsigned long data = 0, head = 0;

	if (!page || !bpf_core_field_exists(page->compound_head))
		return NULL;
	head = BPF_CORE_READ(page, compound_head);
	if (head & 1)
		page = (struct page *)(head - 1);
	if (is_metadata(page))
		return NULL;
	if (bpf_core_field_exists(page->memcg_data)) {
		data = BPF_CORE_READ(page, memcg_data);
	} else {
		struct page___before_5_11 *old = (void *)page;

		if (bpf_core_field_exists(old->mem_cgroup))
			data = BPF_CORE_READ(old, mem_cgroup);
	}
	/* A struct mem_cgroup begins with its css. */
	return data & MEMCG_DATA_FLAGS ? NULL : (struct cgroup_subsys_state *)data;
}

static __always_inline bool of_own_cgroup(const struct watched *w, struct request *rq, u32 op)
{
	struct bio *bio = rq->bio;

	if (!bio)
		return false;
	if (w->cgroup_memory && op == OP_WRITE && in_cgroup(charged_to(bio), w->cgroup_memory))
		return true;
	/* What a layer below the file system (encryption, say) submits by its own threads keeps its cgroup. */
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	if (!w->cgroup_io || !bpf_core_field_exists(bio->bi_blkg) || !(READ(task_struct, task, flags) & PF_KTHREAD))
		return false;
	struct blkcg *blkcg = READ(blkcg_gq, READ(bio, bio, bi_blkg), blkcg);

	return blkcg && in_cgroup(&blkcg->css, w->cgroup_io);
}

/* Requests are made and queued where the kernel may sleep, never in an interrupt: the current task is the submitter. */
static __always_inline enum whose whose_is(const struct watched *w, struct request *rq, u32 op)
{
	if (is_member(w, bpf_get_current_pid_tgid() >> 32))
		return SUBMITTED;
	return of_own_cgroup(w, rq, op) ? WRITTEN_BACK : NOT_OURS;
}

/* The device that it was submitted to, a partition rather than its disk; 0 if that is not known. */
static __always_inline u32 device_of(struct request *rq)
{
	struct bio *bio = rq->bio;

	/* Since 5.12 (309dca309fc3). Sooner than rq->part, which is not set yet at block_io_start. */
	if (bpf_core_field_exists(bio->bi_bdev))
		return bio ? READ(block_device, READ(bio, bio, bi_bdev), bd_dev) : 0;
	struct block_device *part = BPF_CORE_READ(rq, part);
	struct hd_struct *old = (struct hd_struct *)part;

	if (!part)
		return 0;
	return bpf_core_field_exists(old->__dev) ? BPF_CORE_READ(old, __dev.devt) : BPF_CORE_READ(part, bd_dev);
}

static __always_inline bool is_of_data(struct request *rq)
{
	u32 device = device_of(rq);

	if (!device)
		count(&unplaced, 0, 1);
	return is_data_device(device, DATA_BLOCKS);
}

/* False if it is not the target's. */
static __always_inline bool remember(struct request *rq)
{
	struct watched *w = watching();
	u64 key = (u64)rq;
	u32 op = op_of(rq);
	enum whose whose = w && op < OPS ? whose_is(w, rq, op) : NOT_OURS;

	if (whose == NOT_OURS)
		return false;
	struct owned owned = {.at = bpf_ktime_get_ns(), .bytes = rq->__data_len, .op = op, .whose = whose};

	if (op <= OP_WRITE)
		owned.data = is_of_data(rq);
	if (bpf_map_update_elem(&requests, &key, &owned, BPF_ANY))
		count(&full, 0, 1);
	return true;
}

/* Where a request is made, and in the interrupt at its end. */
static __always_inline void done(struct owned *owned)
{
	if (owned->bytes)
		observe_shared(&size, owned->op, owned->bytes, 512);
	if (owned->whose == WRITTEN_BACK && owned->op == OP_WRITE)
		count_shared(&written_back, 0, owned->bytes);
	if (owned->data)
		count_shared(&data_bytes, owned->op, owned->bytes);
}

static __always_inline int made(struct request *rq)
{
	u64 key = (u64)rq;
	struct owned *old = bpf_map_lookup_elem(&requests, &key);

	/* Requests live again. One that was issued has ended, but the kernel did not run the program at its end (on 6.18 in a
	 * virtual machine a few of a thousand); one that was not was merged into another. */
	if (old && old->issued && old->op < OPS)
		done(old);
	if (!remember(rq) && old)
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
		owned->issued = 1;
		return 0;
	}
	/* Without block_io_start, a request that no scheduler queues is first seen here, from its submitter. */
	if (!args_of_block_io_start && !BPF_CORE_READ(rq, q, elevator))
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
		done(owned);
	}
	bpf_map_delete_elem(&requests, &key);
	return 0;
}
