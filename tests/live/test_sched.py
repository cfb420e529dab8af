# SPDX-License-Identifier: MIT OR Apache-2.0
"""The values of the probe sched: how long threads waited for a CPU and for what else, beside the kernel's own accounts."""
import os
import pathlib
import re
import subprocess
import time

import pytest
from conftest import LEFT_OUT, SLOW, at_rest, growth, remove_group

RUNQUEUE = "boxo_resource_runqueue_latency_seconds"
OFFCPU = "boxo_resource_offcpu_seconds"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"), reason="eBPF needs root and a kernel with BTF")


def done(answer):
    """(how often the target gave up its CPU to wait, for how many seconds it neither ran nor waited for a CPU)"""
    m = re.match(r"DONE blocked=(\d+) preempted=\d+ result=0 away=(-?\d+)", answer)
    assert m, answer
    return int(m[1]), int(m[2]) / 1e9


def nearly(counted, least, most):
    """A few of 100,000 switches are not seen on some kernels (docs/probes.md)."""
    return least - 5 <= counted <= most + 2


def attempts():
    """Once in a while such a kernel leaves out many more for a while."""
    return range(4 if LEFT_OUT else 1)


def schedstat(pid):
    """Seconds for which the main thread ran and waited for a CPU, and how often it was given one; it sleeps meanwhile."""
    at_rest(pid)
    ran, waited, turns = pathlib.Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9, int(turns)


@pytest.fixture
def one_cpu():
    """Puts a process onto a CPU that somebody else keeps busy: what subprocess.Popen does first in the child."""
    cpu = min(os.sched_getaffinity(0))

    def pinned():
        os.sched_setaffinity(0, [cpu])
    hog = subprocess.Popen(["sh", "-c", "while :; do :; done"], preexec_fn=pinned)
    yield pinned
    hog.kill()
    hog.wait()


def test_the_wait_for_a_cpu_is_what_the_kernel_accounts(agent, target, one_cpu):
    """Of a target that is preempted as well as woken beside another process."""
    t = target("kernel_work", f"/var/tmp/boxo-sched-{os.getpid()}", preexec_fn=one_cpu)
    a = agent("--pid", t.pid)
    for _ in attempts():
        outer = schedstat(t.pid)
        first = a.next_page()
        inner = schedstat(t.pid)
        done(t.tell("compute 60 10"))
        inner_end = schedstat(t.pid)
        last = a.next_page()
        outer_end = schedstat(t.pid)
        turns, most_turns = inner_end[2] - inner[2], outer_end[2] - outer[2]
        waited, most_waited = inner_end[1] - inner[1], outer_end[1] - outer[1]
        count, seconds = growth(first, last, RUNQUEUE)
        assert waited > 0.1 and turns > 60, "it did wait"
        assert turns <= most_turns <= turns + 2, "nothing happens in between"
        right = nearly(count, turns, most_turns) and 0.98 * waited <= seconds <= 1.02 * most_waited
        if right:
            break
    assert right, (count, turns, most_turns, seconds, waited, most_waited)


def check(a, t, command, reason, number=None, share=0.9):
    """That many waits for that reason (None: all that there were), which last as long as the target was away."""
    for _ in attempts():
        first = a.next_page()
        began = time.monotonic()
        blocked, away = done(t.tell(command))
        took = time.monotonic() - began
        last = a.next_page()
        count, seconds = growth(first, last, OFFCPU, reason=reason)
        assert count <= blocked + 2 and seconds <= took
        right = nearly(count, number or blocked, number or blocked) and share * away - 0.001 <= seconds <= away + 0.001 * SLOW
        if right:
            break
    assert right, (command, count, blocked, seconds, away)
    return count, seconds


@pytest.fixture
def work(target):
    """What does on command what is measured here."""
    return target("kernel_work", f"/var/tmp/boxo-sched-{os.getpid()}")


@pytest.mark.parametrize("command, reason", [
    ("futex", "futex"), ("poll", "poll"), ("socket", "socket"), ("wait", "child"), ("uring", "io_uring")])
def test_waits_of_known_length(agent, work, command, reason):
    count, seconds = check(agent("--pid", work.pid), work, f"{command} 40 20", reason, 40)
    assert seconds >= 0.8 * 0.02 * count


def test_waits_for_a_pipe(agent, work):
    """The target's own, for the next command."""
    a = agent("--pid", work.pid)
    for _ in attempts():
        ran, waited, _ = schedstat(work.pid)
        began = time.monotonic()
        done(work.tell("yield 0"))  # ends one, and begins the first that counts
        first = a.next_page()
        for _ in range(40):
            time.sleep(0.02)
            done(work.tell("yield 0"))
        took = time.monotonic() - began
        ended = schedstat(work.pid)
        last = a.next_page()
        away = took - (ended[0] - ran) - (ended[1] - waited)
        count, seconds = growth(first, last, OFFCPU, reason="pipe")
        right = nearly(count, 40, 40) and 0.9 * away <= seconds <= took
        if right:
            break
    assert right, (count, seconds, away, took)


def disk_of(path):
    """The number of the disk (not the partition) that a file is on, as MAJOR:MINOR; None if it is on none."""
    device = os.stat(path).st_dev
    there = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if (there / "partition").exists():
        there = there.resolve().parent
    return (there / "dev").read_text().strip() if there.exists() else None


@pytest.fixture
def slow_reads(work):
    """The target is in a cgroup that lets it read from the disk of /var/tmp 20 times a second."""
    top = pathlib.Path("/sys/fs/cgroup")
    file, limit = "io.max", "{} riops=20"
    if not (top / "cgroup.procs").exists():
        top, file, limit = top / "blkio", "blkio.throttle.read_iops_device", "{} 20"
    group = top / f"boxo-sched-{os.getpid()}"
    disk = disk_of("/var/tmp")
    if not disk or not top.is_dir():
        pytest.skip("/var/tmp is on no disk, or no cgroup limits it")
    group.mkdir()
    try:
        if not (group / file).exists():
            pytest.skip(f"no {file} in this kernel")
        (group / file).write_text(limit.format(disk))
        (group / "cgroup.procs").write_text(str(work.pid))
        yield
    finally:
        remove_group(group)


def test_reads_from_a_slow_disk(agent, work, slow_reads):
    a = agent("--pid", work.pid)
    done(work.tell("read 40"))  # writes the file
    count, seconds = check(a, work, "read 40", "block_io")
    # They take two seconds in all; the limit lets some pass at once, on a disk that need not be waited for otherwise.
    assert 10 <= count <= 42 and seconds >= 1


def test_waits_in_fsync(agent, work):
    if not disk_of("/var/tmp"):
        pytest.skip("/var/tmp is on no disk")
    count, _ = check(agent("--pid", work.pid), work, "fsync 40", "fsync", share=0.7)
    assert count, "it waited, if not in each: a fast disk is done before the thread sleeps"
