/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef BOXO_BPF_HIST_H
#define BOXO_BPF_HIST_H

#include "core.h"
#include "metric.h"
#include "slot.h"

/* Maps that hold a probe's metrics: see struct metric. */
#define HISTOGRAMS(name, entries)                                                                                  \
	struct {                                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                           \
		__uint(max_entries, entries);                                                                      \
		__type(key, __u32);                                                                                \
		__type(value, struct hist);                                                                        \
	} name SEC(".maps")

#define COUNTERS(name, entries)                                                                                    \
	struct {                                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                           \
		__uint(max_entries, entries);                                                                      \
		__type(key, __u32);                                                                                \
		__type(value, __u64);                                                                              \
	} name SEC(".maps")

#define METRICS const struct metric metrics[] SEC(".rodata.metrics") __attribute__((used))
#define PROBE const struct probe probe SEC(".rodata.probe") __attribute__((used))

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct runs);
} runs SEC(".maps");

/* BPF_PROG that knows what it costs. The kernel can time programs too, but only for CAP_SYS_ADMIN, and then it times
 * those of everybody on the host. */
#define TIMED_PROG(name, args...)										\
	name(u64 *ctx);												\
	static __always_inline int timed_##name(u64 *ctx, ##args);						\
	int name(u64 *ctx)											\
	{													\
		u32 zero = 0;											\
		struct runs *r = bpf_map_lookup_elem(&runs, &zero);						\
		u64 start = 0;											\
														\
		if (r && r->runs++ >= r->next) {								\
			r->next += RUNS_SAMPLED;								\
			start = bpf_ktime_get_ns();								\
		}												\
		_Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wint-conversion\"")		\
		int result = timed_##name(___bpf_ctx_cast(args));						\
		_Pragma("GCC diagnostic pop")									\
		if (start && r) {										\
			r->sampled_ns += bpf_ktime_get_ns() - start;						\
			r->sampled++;										\
		}												\
		return result;											\
	}													\
	static __always_inline int timed_##name(u64 *ctx, ##args)

/* The same for a program of a cgroup, which has one argument, and which an interrupt may start anew on the same CPU. */
#define TIMED_CGROUP_PROG(name, type, ctx)									\
	name(type *ctx);											\
	static __always_inline int timed_##name(type *ctx);							\
	int name(type *ctx)											\
	{													\
		u32 zero = 0;											\
		struct runs *r = bpf_map_lookup_elem(&runs, &zero);						\
		u64 start = 0;											\
														\
		if (r && r->runs >= r->next) {									\
			r->next += RUNS_SAMPLED;								\
			start = bpf_ktime_get_ns();								\
		}												\
		if (r)												\
			__sync_fetch_and_add(&r->runs, 1);							\
		int result = timed_##name(ctx);									\
														\
		if (start && r) {										\
			__sync_fetch_and_add(&r->sampled_ns, bpf_ktime_get_ns() - start);			\
			__sync_fetch_and_add(&r->sampled, 1);							\
		}												\
		return result;											\
	}													\
	static __always_inline int timed_##name(type *ctx)

/* Written without atomics: a program is not interrupted by itself on one CPU (the kernel skips it then), and programs
 * that may interrupt each other write different elements. */
static __always_inline void observe(void *map, u32 index, u64 v, u32 base)
{
	struct hist *hist = bpf_map_lookup_elem(map, &index);
	u32 slot = hist_slot(v, base);

	if (!hist || slot > HIST_EDGES)
		return;
	hist->slots[slot]++;
	hist->sum += v;
}

static __always_inline void count(void *map, u32 index, u64 n)
{
	u64 *value = bpf_map_lookup_elem(map, &index);

	if (value)
		*value += n;
}

/* The same two for elements that two programs write of which one may interrupt the other. */
static __always_inline void observe_shared(void *map, u32 index, u64 v, u32 base)
{
	struct hist *hist = bpf_map_lookup_elem(map, &index);
	u32 slot = hist_slot(v, base);

	if (!hist || slot > HIST_EDGES)
		return;
	__sync_fetch_and_add(&hist->slots[slot], 1);
	__sync_fetch_and_add(&hist->sum, v);
}

static __always_inline void count_shared(void *map, u32 index, u64 n)
{
	u64 *value = bpf_map_lookup_elem(map, &index);

	if (value)
		__sync_fetch_and_add(value, n);
}

#endif
