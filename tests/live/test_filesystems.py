# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the probes `files` and `fsync` count on each file system that they know, held against a program that makes a known
number of calls. Each test mounts a file system of its own, before the agent starts: a module that is loaded later has no
tracepoint yet when the agent asks for it."""
import os

import pytest

MIB = 1 << 20
SYNCS = "boxo_resource_fsyncs_total"
WRITTEN = "boxo_resource_file_written_bytes_total"
LATENCY = "boxo_resource_fsync_seconds_count"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"), reason="eBPF needs root and a kernel with BTF")


def counted(page):
    """{(metric, filesystem): value}"""
    return {(name, s.labels["filesystem"]): s.value for name in (SYNCS, WRITTEN) for s in page.all(name)}


def risen(before, after):
    """By how much each metric rose, of those that did."""
    old = counted(before)
    return {key: value - old[key] for key, value in counted(after).items() if value != old[key]}


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_calls_and_bytes(file_system, agent, target, kind):
    where = file_system(kind)
    (where / "other").mkdir()
    t, other = target("disk", cwd=where), target("disk", cwd=where / "other")
    a, b = agent("--pid", t.pid), agent("--pid", other.pid)
    start, others = a.next_page(), b.next_page()
    # btrfs has no tracepoint that tells how much is written.
    told = {(SYNCS, kind), (WRITTEN, kind)} - {(WRITTEN, "btrfs")}
    assert told <= counted(start).keys() and (WRITTEN, "btrfs") not in counted(start)

    before = start
    for command, syncs, written in (("append 20", 20, 20 * 512), ("sync 3", 3, 3 * MIB), ("lay 2", 1, 2 * MIB),
                                    ("dirty 2", 0, 2 * MIB), ("cancel 1", 0, MIB), ("through 5", 5, 5 * 512)):
        assert t.tell(command)
        after = a.next_page()
        expected = {(SYNCS, kind): syncs, (WRITTEN, kind): written}
        assert risen(before, after) == {key: n for key, n in expected.items() if n and key in told}, command
        before = after
    # How long they took is known of ext4 alone.
    if kind == "ext4":
        assert after.value(LATENCY) - start.value(LATENCY) == 29
    else:
        assert (after.value(LATENCY) or 0) == (start.value(LATENCY) or 0)

    # Past the page cache, and what does not write.
    for command in ("write 2", "read 2", "again 2"):
        assert t.tell(command) == "done"
    after = a.next_page()
    assert risen(before, after) == {}

    # Somebody else on the same file system.
    now = b.next_page()
    assert risen(others, now) == {}
    assert other.tell("sync 2") == "done"
    assert risen(now, b.next_page()) == {key: n for key, n in {(SYNCS, kind): 2, (WRITTEN, kind): 2 * MIB}.items() if key in told}
    assert risen(after, a.next_page()) == {}
