// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* fsync and fdatasync of the target, from the file systems' own tracepoints: nobody else's system calls are touched.
 * Raw tracepoints, because a file system may be a module whose types the agent cannot see. */
#include "hist.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { EXT4, XFS, BTRFS, FILESYSTEMS };

HISTOGRAMS(latency, 1);
COUNTERS(syncs, FILESYSTEMS);
COUNTERS(full, 1);

PROBE = {.help = "fsync and fdatasync: how long they take (ext4) and how many (ext4, xfs, btrfs)"};

METRICS = {
	{
		.map = "latency",
		.name = "boxo_resource_fsync_seconds",
		.help = "Time that what boxo_resource_fsyncs_total counts took in the file system; ext4 only.",
		.programs = "on_ext4_exit",
		.kind = METRIC_HISTOGRAM,
		.unit = UNIT_NANOSECONDS,
		.base = 1000,
		.edges = 25,
	},
	{
		.map = "syncs",
		.name = "boxo_resource_fsyncs_total",
		.help = "fsync and fdatasync calls of the target that reached a file system, with msync and buffered writes into files "
			"that were opened with O_SYNC or O_DSYNC.",
		.labels = "filesystem",
		.values = "ext4,xfs,btrfs",
		.programs = "on_ext4_enter,on_xfs,on_btrfs",
	},
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u64);
} begun SEC(".maps");

SEC("?raw_tp/ext4_sync_file_enter")
int TIMED_PROG(on_ext4_enter)
{
	u64 thread = bpf_get_current_pid_tgid(), now;

	if (!current_is_member())
		return 0;
	now = bpf_ktime_get_ns();
	count(&syncs, EXT4, 1);
	if (bpf_map_update_elem(&begun, &thread, &now, BPF_ANY))
		count(&full, 0, 1);
	return 0;
}

SEC("?raw_tp/ext4_sync_file_exit")
int TIMED_PROG(on_ext4_exit)
{
	u64 thread = bpf_get_current_pid_tgid();

	if (!current_is_member())
		return 0;
	u64 *at = bpf_map_lookup_elem(&begun, &thread);

	if (!at)
		return 0;
	observe(&latency, 0, bpf_ktime_get_ns() - *at, 1000);
	bpf_map_delete_elem(&begun, &thread);
	return 0;
}

SEC("?raw_tp/xfs_file_fsync")
int TIMED_PROG(on_xfs)
{
	if (current_is_member())
		count(&syncs, XFS, 1);
	return 0;
}

SEC("?raw_tp/btrfs_sync_file")
int TIMED_PROG(on_btrfs)
{
	if (current_is_member())
		count(&syncs, BTRFS, 1);
	return 0;
}
