/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Loads from addresses of which the verifier knows no type: each helper that reads memory costs some 10 ns more. */
#ifndef BOXO_BPF_CAST_H
#define BOXO_BPF_CAST_H

#include "calls.h"
#include "core.h"

/* Since 6.2: an address as a pointer to a kernel's type. What is not there reads as zero. */
const volatile bool has_rdonly_cast = false;
static void *(*const bpf_rdonly_cast)(const void *address, u32 type) = (void *)CALL_RDONLY_CAST;

#define AS(type, address) ((struct type *)bpf_rdonly_cast(address, bpf_core_type_id_kernel(struct type)))

/* A field of what lies at the address. */
#define READ(type, address, field)                                                                                 \
	({                                                                                                         \
		struct type *at_ = (void *)(address);                                                              \
		has_rdonly_cast ? AS(type, at_)->field : BPF_CORE_READ(at_, field);                                \
	})

/* The pointer that lies there. */
#define READ_POINTER(address) ((void *)READ(list_head, address, next))

#endif
