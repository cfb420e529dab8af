/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Where the target's data directory lies. User space finds that out (collectors/host/data_place.h) and fills the map, which
 * members.bpf.c makes and all probes share. */
#ifndef BOXO_BPF_DATADIR_H
#define BOXO_BPF_DATADIR_H

#include "cast.h"
#include "core.h"
#include "hist.h"
#include "watched.h"

/* By device number as the kernel has it, MAJOR << 20 | MINOR: bits of enum data_device. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DATA_DEVICES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} data_devices SEC(".maps");

static __always_inline bool is_data_device(u32 device, enum data_device what)
{
	u32 *known = bpf_map_lookup_elem(&data_devices, &device);

	return known && *known & what;
}

static __always_inline bool in_data_filesystem(struct inode *inode)
{
	return is_data_device(READ(super_block, READ(inode, inode, i_sb), s_dev), DATA_FILES);
}

#endif
