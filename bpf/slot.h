/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/* Into which slot of a struct hist a value falls. */
#ifndef BOXO_BPF_SLOT_H
#define BOXO_BPF_SLOT_H

#include "metric.h"

static inline __attribute__((always_inline)) __u32 log2_floor(__u64 v)
{
	__u32 r = 0;

	if (v >> 32) {
		v >>= 32;
		r = 32;
	}
	__u32 w = v;
	__u32 s = (w > 0xffff) << 4;
	w >>= s;
	r |= s;
	s = (w > 0xff) << 3;
	w >>= s;
	r |= s;
	s = (w > 0xf) << 2;
	w >>= s;
	r |= s;
	s = (w > 0x3) << 1;
	w >>= s;
	r |= s;
	return r | (w >> 1);
}

/* The slot of `v`: the smallest i with v <= base << i. That is one of two, which the highest bits of both tell: BPF divides by a
 * constant with the processor's division, which takes longer than the rest. */
static inline __attribute__((always_inline)) __u32 hist_slot(__u64 v, __u32 base)
{
	if (v <= base)
		return 0;
	__u32 slot = log2_floor(v) - log2_floor(base);

	if (v > (__u64)base << slot)
		slot++;
	return slot < HIST_EDGES ? slot : HIST_EDGES;
}

#endif
