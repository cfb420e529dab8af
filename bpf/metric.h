/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/* What a probe says of itself: read by user space from the probe's object file. The one header of both sides. */
#ifndef BOXO_BPF_METRIC_H
#define BOXO_BPF_METRIC_H

#include <linux/types.h>

/* Histograms have exp2 buckets whose upper edges are inclusive, as Prometheus' `le` is:
 * slot i counts values v with base * 2^(i-1) < v <= base * 2^i, slot 0 those up to base, the last one the rest. */
#define HIST_EDGES 27

struct hist {
	__u64 sum;
	__u64 slots[HIST_EDGES + 1];
};

enum metric_kind { METRIC_COUNTER, METRIC_HISTOGRAM, METRIC_REMOTES };

/* What a map of remote addresses holds: a HASH of struct remote_address to struct remote. A probe that has one has a
 * PERCPU_ARRAY `unlisted` of as many values too, for what it found no room for. The first half of the values is bytes. */
#define REMOTES_MAX 8192
#define REMOTE_VALUES 12

struct remote_address {
	__u8 bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
};

struct remote {
	__u64 values[REMOTE_VALUES];
};

/* The unit of the values in the map. Nanoseconds are exported as seconds. */
enum metric_unit { UNIT_NONE, UNIT_NANOSECONDS, UNIT_BYTES };

/* One exported metric. Its values are the elements of a PERCPU_ARRAY: __u64 for a counter, struct hist for a
 * histogram; one element for each combination of label values, the last label changing fastest. METRIC_REMOTES: counters
 * by remote address; its first label is the address ("*" in `values`), the others choose among the remote's values. */
struct metric {
	char map[16];
	char name[72];
	char help[256];
	char labels[48];  /* names, comma separated: "direction,result" */
	char values[640]; /* values of each label, comma separated, labels by ';': "in,out;ok,refused" */
	__u32 kind;
	__u32 unit;
	__u32 base;  /* upper edge of a histogram's first bucket, in the map's unit */
	__u32 edges; /* how many edges it exports; what lies above is in the last bucket. At most HIST_EDGES */
	__u32 first; /* index of the first element in the map, or of the first of a remote's values */
	/* For each value of the first label (without labels: one), or for each file system of data_on, the program that tells of
	 * it, comma separated. What a program tells whose tracepoint this kernel, or a module that is not loaded, does not have
	 * is not exported. "": all is. */
	char programs[64];
	/* It is known only where this tracepoint passes on at least so many arguments; "": always. */
	char tracepoint[32];
	__u32 arguments;
	__u32 not_measured; /* bit n: nothing counts in row n, which is not exported */
	__u32 needs_cgroup; /* says something only of a target with a cgroup of its own; otherwise absent */
	/* It counts only what is in the file system of the target's data directory (datadir.h), and is absent where that is none of
	 * these, comma separated; "*": on any that has a block device. "": it has nothing to do with that. */
	char data_on[32];
};

/* What a probe's programs cost: the only element of its PERCPU_ARRAY `runs`. Every RUNS_SAMPLED-th run is timed: a prime,
 * because programs that take turns (a call's begin and end) would otherwise be timed always at the same one of them. */
#define RUNS_SAMPLED 251

struct runs {
	__u64 runs;
	__u64 next; /* which run is timed next */
	__u64 sampled;
	__u64 sampled_ns;
};

/* What the probe is. */
struct probe {
	char help[256];
	__u32 on_request; /* loaded only with --probe NAME */
};

#endif
