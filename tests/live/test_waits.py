# SPDX-License-Identifier: MIT OR Apache-2.0
"""What threads wait for at this moment and since when, of threads whose wait does not end."""
import os
import signal
import time

import pytest

from conftest import CLOCK_TICK, TOO_OLD, wait_until

WAITING, LONGEST = "boxo_resource_waiting_threads", "boxo_resource_longest_wait_seconds"
# The scheduler's clock of the CPU that the agent is on is as of its last tick.
TICK = 1 / CLOCK_TICK

needs_readers = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux") or "readers" in TOO_OLD,
    reason="iterators over one process need root, BTF and Linux 6.1")


def by_reason(page, name):
    return {s.labels["reason"]: s.value for s in page.all(name) if s.value}


def seen_waiting(a, expected):
    """Waits until exactly these wait, and returns when that was so at the latest."""
    wait_until(f"{expected} wait", lambda: by_reason(a.page(), WAITING) == expected)
    return time.monotonic()


@needs_readers
@pytest.mark.parametrize("options", [(), ("--no-probe", "sched")], ids=["sched", "without"])
@pytest.mark.parametrize("first", ["agent", "waits"])
def test_waits_that_go_on(agent, target, options, first):
    """Whether or not the probe sched saw them begin."""
    expected = {"futex": 1, "poll": 2, "pipe": 3 + 1, "socket": 4, "sleep": 5, "kernel": 6, "other": 6}
    started = time.monotonic()
    if first == "agent":
        a = agent("--comm", "waits", *options)
        started = time.monotonic()
        t = target("waits")
    else:
        t = target("waits")
        a = agent("--pid", t.pid, *options)
    seen = seen_waiting(a, expected)
    time.sleep(1)
    least = time.monotonic() - seen - TICK
    page = a.next_page()
    most = time.monotonic() - started + TICK
    assert by_reason(page, WAITING) == expected
    longest = by_reason(page, LONGEST)
    assert longest.keys() == expected.keys()
    # Without the probe the time that its CPU spent on interrupts, or its host on others, is missing.
    if options or first == "waits":
        least /= 2
    assert all(least <= value <= most for value in longest.values()), (least, longest, most)
    # None of these waits has ended: the histogram knows nothing of them.
    ended = page.value("boxo_resource_offcpu_seconds_sum", reason="kernel")
    assert ended is None if options else ended < least


@needs_readers
def test_stopped(agent, target):
    t = target("threads", 7)
    a = agent("--pid", t.pid)
    running = {"futex": 7, "pipe": 1}
    seen_waiting(a, running)
    stopped = time.monotonic()
    os.kill(t.pid, signal.SIGSTOP)
    seen = seen_waiting(a, {"stopped": 8})
    time.sleep(1)
    least = time.monotonic() - seen - TICK
    longest = by_reason(a.next_page(), LONGEST)
    assert longest.keys() == {"stopped"}
    assert least <= longest["stopped"] <= time.monotonic() - stopped + TICK
    before = time.monotonic()
    os.kill(t.pid, signal.SIGCONT)
    seen_waiting(a, running)
    longest = by_reason(a.next_page(), LONGEST)
    # They wait anew.
    assert longest.keys() == running.keys()
    assert max(longest.values()) <= time.monotonic() - before + TICK


@needs_readers
def test_stopped_in_a_sleep(agent, started):
    """The kernel goes on with it by another system call: what it was is known if the probe sched saw it begin."""
    t = started(["sh", "-c", "echo READY; read _; echo asleep; exec sleep 1000"])
    a = agent("--pid", t.pid)
    assert t.tell("go on") == "asleep"
    seen_waiting(a, {"sleep": 1})
    for _ in range(2):
        os.kill(t.pid, signal.SIGSTOP)
        seen_waiting(a, {"stopped": 1})
        os.kill(t.pid, signal.SIGCONT)
        seen_waiting(a, {"sleep": 1})
    slept = a.next_page().value("boxo_resource_offcpu_seconds_count", reason="sleep")
    assert slept == 2


@pytest.mark.parametrize("options,reason", [(("--no-bpf",), "readers"), (("--no-probe", "readers"), "readers")])
def test_without_the_probe_it_is_absent(agent, target, options, reason):
    a = agent("--pid", target("threads", 1).pid, *options)
    page = a.next_page()
    for name in (WAITING, LONGEST):
        assert not page.all(name)
        assert any(reason in s.labels["reason"] for s in page.all("boxo_agent_metric_absent_info", metric=name))
