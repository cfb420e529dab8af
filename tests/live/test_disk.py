# SPDX-License-Identifier: MIT OR Apache-2.0
"""Disk and memory through the kernel's eyes: what the probes count, held against the kernel's own accounts and against
programs whose numbers are known. Cgroups of version 1 and 2."""
import os
import pathlib
import re
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


@pytest.fixture
def traced():
    """traced(event, condition) follows an event of the kernel's tracer from now on: the other truth. What it returns gives,
    when called, what the tracer says of each that fits the condition."""
    tracing = pathlib.Path("/sys/kernel/tracing")
    made = []

    def start(event, condition):
        if not (tracing / "events" / event).is_dir():
            pytest.skip(f"this kernel has no event {event}, or there is no tracefs")
        instance = tracing / f"instances/boxo-{os.getpid()}-{len(made)}"
        instance.mkdir()
        made.append(instance)
        (instance / "buffer_size_kb").write_text("4096")
        (instance / "events" / event / "filter").write_text(condition)
        (instance / "events" / event / "enable").write_text("1")

        def read():
            text = (instance / "trace").read_text()
            told = re.search(r"entries-in-buffer/entries-written: (\d+)/(\d+)", text)
            assert told[1] == told[2], "the tracer's buffer is too small"
            return re.findall(rf" {event.split('/')[1]}: (.*)", text)
        return read

    yield start
    for instance in made:
        instance.rmdir()


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


# --- read and write amplification -----------------------------------------------------------------------------------

def proc_io(pid, key):
    return int(re.search(rf"^{key}: (\d+)$", pathlib.Path(f"/proc/{pid}/io").read_text(), re.M)[1])


def device_written(path):
    """Bytes written to the device of this file system, by everybody."""
    dev = os.stat(path).st_dev
    return int(pathlib.Path(f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}/stat").read_text().split()[6]) * 512


def test_write_amplification_of_small_appends(agent, target, memory_group, traced, tmp_path):
    """512 bytes and an fsync, 500 times: each writes a whole page."""
    t = target("disk", cwd=tmp_path)
    enter(memory_group(), t)
    t.tell("append 8")
    a = agent("--pid", t.pid, "--probe", "filecalls")
    before, device = a.next_page(), device_written(tmp_path)
    requests = traced("block/block_io_start", f'common_pid == {t.pid} && rwbs ~ "*W*"')
    t.tell("append 500")
    device = device_written(tmp_path) - device
    after = a.next_page()
    asked = 500 * 512
    assert risen(before, after, "boxo_resource_file_bytes_total", operation="write") == asked
    assert risen(before, after, "boxo_resource_file_calls_total", operation="write") == 500
    assert risen(before, after, "boxo_resource_file_bytes_total", operation="read") == 0
    written = risen(before, after, SIZE + "_sum", operation="write")
    # A page of the file each time and, where there is no journal that does it, the block with its inode.
    # As in "254,0 WS 4096 () 1234 + 8 none,0,0 [disk]".
    submitted = sum(int(request.split()[2]) for request in requests())
    # Where the kernel does not run the probe at a request's end, that is noticed when the request is used again.
    assert submitted - 16 * 4096 <= written <= submitted
    assert written % 4096 == 0 and 490 * 4096 <= written <= device
    assert risen(before, after, WRITEBACK) == 0
    if on_ext4(tmp_path):
        assert risen(before, after, "boxo_resource_file_written_bytes_total", filesystem="ext4") == asked
        assert risen(before, after, "boxo_resource_fsyncs_total", filesystem="ext4") == 500
        assert risen(before, after, "boxo_resource_fsync_seconds_count") == 500


def test_reads_through_an_empty_and_a_full_page_cache(agent, target, tmp_path):
    t, other = target("disk", cwd=tmp_path), target("switches")
    t.tell("lay 8")
    a = agent("--pid", t.pid, "--probe", "filecalls")
    b = agent("--pid", other.pid, "--probe", "filecalls")
    before, others, io = a.next_page(), b.next_page(), proc_io(t.pid, "read_bytes")
    t.tell("cached 8")
    t.tell("again 8")  # all is in memory
    after = a.next_page()
    assert proc_io(t.pid, "read_bytes") - io >= 8 * MIB
    assert risen(before, after, SIZE + "_sum", operation="read") == proc_io(t.pid, "read_bytes") - io
    assert risen(before, after, "boxo_resource_page_cache_filled_bytes_total") == proc_io(t.pid, "read_bytes") - io
    assert risen(before, after, "boxo_resource_file_bytes_total", operation="read") == 16 * MIB
    assert risen(before, after, "boxo_resource_file_calls_total", operation="read") == 16
    for name in ("boxo_resource_file_bytes_total", "boxo_resource_page_cache_filled_bytes_total",
                 "boxo_resource_file_written_bytes_total"):
        assert risen(others, b.next_page(), name) == 0, "somebody else's"
