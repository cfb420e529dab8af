# SPDX-License-Identifier: MIT OR Apache-2.0
"""How long block requests and system calls took, held against the target's own clock and the kernel's tracer."""
import collections
import os
import re
import sys
import time

import pytest
from conftest import KERNEL, LEFT_OUT, SLOW, growth

SIZE = "boxo_resource_block_io_size_bytes"
BLOCK = "boxo_resource_block_io_latency_seconds"
CALL = "boxo_resource_syscall_latency_seconds"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"), reason="eBPF needs root and a kernel with BTF")


OPERATIONS = ["read", "write", "discard", *(["flush"] if KERNEL >= (6, 5) else [])]  # that the probe tells of


# Asks a block device, past the page cache: "OPERATION N" begins so many at a time, each in a thread; "end" waits for all and
# answers with the seconds that each operation's calls took together.
ASKING = """
import collections, fcntl, mmap, os, struct, sys, threading, time
fd, page = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT), mmap.mmap(-1, 4096)
spent, threads = collections.Counter(), []
BLKDISCARD = 0x1277
calls = {"read": lambda at: os.preadv(fd, [page], at), "write": lambda at: os.pwritev(fd, [page], at),
         "flush": lambda at: os.fsync(fd), "discard": lambda at: fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", at, 4096))}
def ask(operation, at):
    began = time.monotonic()
    calls[operation](at)
    spent[operation] += time.monotonic() - began
print("READY", flush=True)
for line in sys.stdin:
    operation, _, count = line.strip().partition(" ")
    if count:
        new = [threading.Thread(target=ask, args=(operation, 8192 * (len(threads) + i))) for i in range(int(count))]
        for t in new: t.start()
        threads += new
        print("begun", flush=True)
    else:
        for t in threads: t.join()
        print(*(f"{spent[name]:.6f}" for name in calls), flush=True)
        spent.clear()
        threads.clear()
"""


def test_block_requests_that_wait(file_system, block_device, frozen, agent, started):
    """The device is a file of a frozen file system: the writes wait there, and behind them all else that it is asked for."""
    below = file_system()
    t = started([sys.executable, "-c", ASKING, block_device(16, below / "disk")])
    a = agent("--pid", t.pid)
    asked = {"read": 4, "write": 4, "flush": 1, "discard": 1}  # the kernel has one discard after the other
    for _ in range(4 if LEFT_OUT else 1):  # there an end is left out once in a while
        before = a.next_page()
        with frozen(below):
            for operation in ("write", "read", "discard", "flush"):
                assert t.tell(f"{operation} {asked[operation]}") == "begun"
                time.sleep(0.1)
            time.sleep(0.5)
        spent = dict(zip(asked, map(float, t.tell("end").split()), strict=True))
        after = a.next_page()
        counted = {operation: growth(before, after, BLOCK, operation=operation) for operation in OPERATIONS}
        sizes = {operation: growth(before, after, SIZE, operation=operation)[1] for operation in OPERATIONS}
        assert min(spent[operation] / asked[operation] for operation in asked) >= 0.5, "they did wait"
        if all(counted[operation][0] == asked[operation] for operation in OPERATIONS):
            break
    for operation, (count, seconds) in counted.items():
        assert count == asked[operation]
        assert 0.97 * spent[operation] - 0.01 * SLOW <= seconds <= spent[operation], (operation, counted, spent)
        assert sizes[operation] == (0 if operation == "flush" else count * 4096)


def requests_of(device):
    """What the kernel counts of a block device (Documentation/block/stat.rst); there an fsync is an empty write, and a flush
    besides."""
    fields = [int(x) for x in open(f"/sys/block/{os.path.basename(device)}/stat").read().split()]
    return {"read": fields[0], "write": fields[4] - fields[15], "discard": fields[11], "flush": fields[15]}


def test_block_requests_one_by_one(block_device, agent, started):
    device = block_device(16)
    t = started([sys.executable, "-c", ASKING, device])
    a = agent("--pid", t.pid)
    for _ in range(4 if LEFT_OUT else 1):
        before, had = a.next_page(), requests_of(device)
        for operation, count in {"read": 20, "write": 15, "flush": 10, "discard": 5}.items():
            for _ in range(count):
                assert t.tell(f"{operation} 1") == "begun"
                t.tell("end")
        truth = {operation: count - had[operation] for operation, count in requests_of(device).items()}
        after = a.next_page()
        counted = {operation: growth(before, after, BLOCK, operation=operation)[0] for operation in OPERATIONS}
        if all(counted[operation] == truth[operation] for operation in OPERATIONS):
            break
    assert truth == {"read": 20, "write": 15, "flush": 10, "discard": 5}
    assert counted == {operation: truth[operation] for operation in OPERATIONS}
    assert (after.value(BLOCK + "_count", operation="flush") is None) == ("flush" not in OPERATIONS)


def spans(traced):
    """{number of the system call: (how many, seconds in them)} of one thread, as the tracer saw it come and go."""
    found = collections.defaultdict(lambda: (0, 0.0))
    began = None
    for when, event, what in traced:
        number = int(re.match(r"NR (-?\d+)", what)[1])
        if event == "sys_enter":
            began = when
        elif began is not None:
            count, seconds = found[number]
            found[number], began = (count + 1, seconds + when - began), None
    return found


NUMBERS = {"pread64": 17, "pwrite64": 18, "openat": 257, "close": 3, "fsync": 74, "futex": 202}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are those of x86-64")
def test_system_calls(agent, target, traced):
    t = target("kernel_work", f"/var/tmp/boxo-latency-{os.getpid()}")
    t.tell("read 64")  # writes the file
    a = agent("--pid", t.pid, "--probe", "syscalls")
    before = a.next_page()
    calls = traced(f"common_pid == {t.pid}", "raw_syscalls/sys_enter", "raw_syscalls/sys_exit")
    for command in ("fsync 20", "read 64", "futex 20 20"):
        assert t.tell(command).startswith("DONE")
    truth = spans(calls())
    after = a.next_page()
    assert [truth[NUMBERS[call]][0] for call in ("fsync", "pread64", "futex")] == [20, 64, 20] and truth[NUMBERS["futex"]][1] >= 0.4
    for call, number in NUMBERS.items():
        count, seconds = growth(before, after, CALL, syscall=call)
        assert count == truth[number][0] > 0, call
        # Between the tracer and the probe lies some time of its own, each of them twice.
        assert abs(seconds - truth[number][1]) <= 0.02 * truth[number][1] + count * 20e-6 * SLOW, (call, seconds, truth[number])
