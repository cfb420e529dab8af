# SPDX-License-Identifier: MIT OR Apache-2.0
"""What threads and children counted that live between two collections, and what others did after they were seen last."""
import os

import pytest

from conftest import KERNEL, LEFT_OUT, SLOW, TOO_OLD, wait_until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux") or "readers" in TOO_OLD,
    reason="iterators over one process need root, BTF and Linux 6.1")
SWITCHES = "boxo_resource_context_switches_total"
WAIT = "boxo_resource_cpu_wait_seconds_total"
# What an end costs that nobody can say of himself any more: it waits for locks, and leaves the CPU for good.
END = 4
# Of that, what is not counted: before Linux 6.2 a program in an interrupt may be refused what is remembered of a thread
# (bpf_task_storage_get, 4279adb094a1).
LOST = LEFT_OUT or (0.01 if KERNEL < (6, 2) else 0)


def switches(page):
    return [page.value(SWITCHES, type=kind) for kind in ("voluntary", "involuntary")]


def followed(agent, pid, interval="200ms"):
    a = agent("--pid", pid, interval=interval)
    # Only the iterator tells that; what ends counts from the collection on that follows.
    wait_until("the iterator reads", lambda: a.page().all("boxo_resource_waiting_threads"))
    a.next_page()
    return a


def complete(a, least, most, read=switches):
    """All of it is on the page, once the kernel has let go of the last one; never more, not even for a moment."""
    def counted():
        values = read(a.page())
        assert all(value <= top for value, top in zip(values, most, strict=True)), (values, most)
        return all(value >= bottom for value, bottom in zip(values, least, strict=True))
    try:
        wait_until("all is counted", counted, 10)
    except pytest.fail.Exception:
        pytest.fail(f"missing: {read(a.page())} of {least}")
    a.next_page()
    assert counted()


@pytest.mark.parametrize("way", ["threads", "children", "ignored"])
@pytest.mark.parametrize("interval, ended, waits", [
    pytest.param("1s", 200, 10, id="between two collections"), pytest.param("100ms", 3, 1000, id="seen before")])
def test_switches(agent, target, interval, ended, waits, way):
    t = target("switches")
    a = followed(agent, t.pid, interval)
    for again in (1, 2):
        voluntary, involuntary = map(int, t.tell(f"{way} {ended} {waits}").split())
        assert voluntary >= again * ended * waits / 2, "some are so late that they need not wait"
        # Waiting for the next command is a switch that the answer does not contain yet.
        end = END * ended * again
        complete(a, [voluntary + 1 - LOST * end, involuntary - LOST * end], [voluntary + 1 + end, involuntary + 3 + end])


def test_the_wait_for_a_cpu(agent, target):
    """20 threads on one CPU: each waits for nearly as long as the others use."""
    t = target("switches", preexec_fn=lambda: os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]))
    a = followed(agent, t.pid)
    truth = 0
    for _ in range(2):
        before = a.value(WAIT)
        waited = int(t.tell("busy 20 20")) / 1e9
        assert waited > 20 * 0.02 * 5, "they did wait"
        truth += waited
        # Of the end itself nobody can say how long that was.
        complete(a, [before + waited], [before + waited * 1.5 + 20 * 0.004 * SLOW],
                 lambda page: [page.value(WAIT)])


def test_they_stay_when_the_target_has_ended(agent, target):
    t = target("switches")
    a = followed(agent, t.pid, "1s")
    voluntary, involuntary = map(int, t.tell("threads 100 10").split())
    t.popen.kill()
    t.popen.wait()
    end = END * 101
    complete(a, [voluntary + 1 - LOST * end, involuntary - LOST * end], [voluntary + 1 + end, involuntary + 3 + end])
