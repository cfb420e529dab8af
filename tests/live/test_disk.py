# SPDX-License-Identifier: MIT OR Apache-2.0
"""Disk and memory through the kernel's eyes: what the probes count, held against the kernel's own accounts and against
programs whose numbers are known. Cgroups of version 1 and 2."""
import os
import pathlib
import subprocess

import pytest
from conftest import wait_until

MIB = 1 << 20
CGROUPS = pathlib.Path("/sys/fs/cgroup")
V2 = (CGROUPS / "cgroup.controllers").exists()
SIZE = "boxo_resource_block_io_size_bytes"
WRITEBACK = "boxo_resource_writeback_bytes_total"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"), reason="eBPF needs root and a kernel with BTF")


def on_ext4(path):
    return subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True).stdout.startswith("ext")


@pytest.fixture
def memory_group():
    """memory_group(limit=None) makes a cgroup with the memory controller and removes it; returns its directory."""
    made = []

    def make(limit=None):
        parent = CGROUPS if V2 else CGROUPS / "memory"
        path = parent / f"boxo-disk-{os.getpid()}-{len(made)}"
        try:
            path.mkdir()
        except OSError as e:
            pytest.skip(f"cannot make a memory cgroup: {e}")
        made.append(path)
        if not (path / ("memory.current" if V2 else "memory.usage_in_bytes")).exists():
            pytest.skip("no memory controller here")
        if limit:
            (path / ("memory.max" if V2 else "memory.limit_in_bytes")).write_text(str(limit))
        return path

    yield make
    for path in made:
        def removed():
            for pid in (path / "cgroup.procs").read_text().split():
                (path.parent / "cgroup.procs").write_text(pid)
            try:
                path.rmdir()
            except OSError:
                return False
            return True
        wait_until(f"{path} can be removed", removed)


def enter(group, *targets):
    for t in targets:
        (group / "cgroup.procs").write_text(str(t.pid))


def risen(before, after, name, **labels):
    return (after.sum(name, **labels) or 0) - (before.sum(name, **labels) or 0)


# --- writeback ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["--cgroup", "--pid"])
def test_what_the_kernel_writes_back_for_the_cgroup(agent, target, memory_group, tmp_path, kind):
    (tmp_path / "other").mkdir()
    g = memory_group()
    t, other = target("disk", cwd=tmp_path), target("disk", cwd=tmp_path / "other")
    enter(g, t)
    # The blocks are there already: writing them again changes nothing else on the disk.
    for p in (t, other):
        p.tell("lay 8")
    a = agent(kind, g if kind == "--cgroup" else t.pid)
    before = a.next_page()
    for p in (t, other):
        p.tell("dirty 8")
    # Has the kernel's threads write all of it.
    subprocess.run(["sync", "-f", tmp_path], check=True)
    after = a.next_page()
    # The file system's own blocks that the target's cgroup is charged for (an inode) may come on top.
    assert 8 * MIB <= risen(before, after, WRITEBACK) <= 8 * MIB + 64 * 1024
    assert risen(before, after, SIZE + "_sum", operation="write") == risen(before, after, WRITEBACK), "counted once"
    # What the target has to write itself is its own I/O.
    before = after
    t.tell("dirty 8")
    t.tell("lay 8")
    after = a.next_page()
    assert 8 * MIB <= risen(before, after, SIZE + "_sum", operation="write") <= 8 * MIB + 64 * 1024
    assert risen(before, after, WRITEBACK) <= 64 * 1024


def test_writeback_is_absent_where_others_share_the_cgroup(agent, target, memory_group, tmp_path):
    t, other = target("disk", cwd=tmp_path), target("switches")
    g = memory_group()
    enter(g, t, other)
    page = agent("--pid", t.pid).page()
    assert page.value(WRITEBACK) is None
    reasons = {s.labels["metric"]: s.labels["reason"] for s in page.all("boxo_agent_metric_absent_info")}
    assert reasons[WRITEBACK] == "other processes are in the target's cgroup"
