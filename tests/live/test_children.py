# SPDX-License-Identifier: MIT OR Apache-2.0
"""What children used that nobody of the target waits for. They say themselves, at their end, what that was."""
import os
import pathlib
import signal
import sys

import pytest

from conftest import CLOCK_TICK, LEFT_OUT, SLOW, children, remove_group, wait_until

needs_bpf = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"), reason="eBPF needs root and a kernel with BTF")
INNER = ("unshare", "--fork", "--kill-child", "--pid", "--mount-proc")
# Orphans go to this one, which waits for them.
SUBREAPER = (sys.executable, "-c", """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
""")
IO = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes")
KEYS = ("cpu", "faults", *IO)
# What an end costs that a process cannot say of itself any more: CPU seconds (where no cgroup tells); faults.
END = 0.0008 * SLOW, 2


def counted(page):
    """The page's counters under the names of KEYS."""
    names = {"rchar": ("io_bytes", "read"), "wchar": ("io_bytes", "write"),
             "syscr": ("io_syscalls", "read"), "syscw": ("io_syscalls", "write"),
             "read_bytes": ("disk_read_bytes",), "write_bytes": ("disk_write_bytes",),
             "cancelled_write_bytes": ("disk_cancelled_write_bytes",)}
    values = {key: page.value(f"boxo_resource_{name}_total", **({"operation": label[0]} if label else {}))
              for key, (name, *label) in names.items()}
    values["cpu"] = page.sum("boxo_resource_cpu_seconds_total")
    values["faults"] = page.value("boxo_resource_page_faults_total", type="minor")
    return values


def of_process(pid):
    """The same of one process that is at rest, with what it has taken over."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    lines = dict(line.split(": ") for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines())
    return {"cpu": sum(int(f) for f in fields[11:15]) / CLOCK_TICK, "faults": int(fields[7]) + int(fields[8]),
            **{key: int(lines[key]) for key in IO}}


class Account:
    """A cgroup to start a program in: the kernel's sum of the CPU time of all that ran there, with what their ends cost."""

    def __init__(self, path):
        self.path = path

    def join(self):
        if self.path:
            (self.path / "cgroup.procs").write_text("0")

    def cpu(self):
        """Seconds; None without the hierarchy version 2, whose groups need no controller for this."""
        return self.path and int((self.path / "cpu.stat").read_text().split()[1]) / 1e6


@pytest.fixture
def account():
    top = pathlib.Path("/sys/fs/cgroup")
    root = top if (top / "cgroup.controllers").exists() else top / "unified"
    if not (root / "cgroup.controllers").exists():
        yield Account(None)
        return
    path = root / f"boxo-test-children-{os.getpid()}"
    path.mkdir()
    yield Account(path)
    remove_group(path)


class Lost:
    """A program, and what its children have said of themselves."""

    def __init__(self, program, pid, account):
        self.program, self.pid, self.account = program, pid, account
        self.truth, self.number = dict.fromkeys(KEYS, 0), 0

    def most_cpu(self, told):
        """All that has run in the group but the process that started the program."""
        used = self.account.cpu()
        if used is None:
            return told + END[0] * self.number
        if self.program.pid != self.pid:
            fields = pathlib.Path(f"/proc/{self.program.pid}/stat").read_text().rsplit(")", 1)[1].split()
            used -= (int(fields[11]) + int(fields[12])) / CLOCK_TICK
        return used

    def tell(self, line):
        answer = self.program.tell(line)
        if answer == "HELD":
            return
        values = dict(zip(KEYS, map(int, answer.split()), strict=True))
        values["cpu"] /= 1e9
        for key in KEYS:
            self.truth[key] += values[key]

    def run(self, line):
        self.number += int(line.split()[1])
        self.tell(line)

    def bounds(self):
        own = of_process(self.pid)
        least = {key: own[key] + self.truth[key] for key in KEYS}
        most = dict(least)
        for key in KEYS:
            least[key] -= self.truth[key] * LEFT_OUT
        least["cpu"] -= 4 / CLOCK_TICK
        most["cpu"] = 4 / CLOCK_TICK + self.most_cpu(most["cpu"])
        most["faults"] += END[1] * self.number
        return least, most

    def check(self, a, zombies=0):
        """All of it is on the page, once the kernel has let go of the last one; never more, not even for a moment."""
        least, _ = self.bounds()
        least["cpu"] -= 2 * zombies / CLOCK_TICK  # each of them is read by itself, and cut off

        def complete():
            values = counted(a.page())
            _, most = self.bounds()  # later: what they use as they end is in both
            over = {key: (values[key], most[key]) for key in KEYS if values[key] > most[key]}
            assert not over, over
            return values if all(values[key] >= least[key] for key in KEYS) else None

        try:
            wait_until("all is counted", complete)
        except pytest.fail.Exception:
            values = counted(a.page())
            pytest.fail(f"missing: {({key: (values[key], least[key]) for key in KEYS if values[key] < least[key]})}")
        a.next_page(0)
        assert complete()


@pytest.fixture
def direct(account, target, tmp_path):
    t = target("children", prefix=SUBREAPER, cwd=tmp_path, preexec_fn=account.join)
    return Lost(t, children(t.pid)[0], account)


@pytest.fixture
def inside(account, target, tmp_path):
    """In a pid namespace, where the program itself is the one to whom orphans go."""
    t = target("children", prefix=INNER, cwd=tmp_path, preexec_fn=account.join)
    return Lost(t, wait_until("the namespace's first process", lambda: children(t.pid))[0], account)


def followed(agent, pid, *options, interval="200ms", **popen):
    a = agent("--pid", pid, *options, interval=interval, **popen)
    a.next_page(0)
    assert a.value("boxo_agent_probe_up", probe="endings") == 1, a.log()
    return a


WAYS = ("ignored", "orphans", "abandoned")


@needs_bpf
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("interval, threads, runs", [
    pytest.param("5s" if SLOW == 1 else "60s", 0, ["1000 2"], id="a thousand between two ticks"),
    pytest.param("200ms", 3, 3 * ["20 4"], id="with threads and more than once"),
])
def test_counted_whole(agent, direct, interval, threads, runs, way):
    a = followed(agent, direct.pid, interval=interval)
    direct.program.tell(f"threads {threads}")
    for run in runs:
        direct.run(f"{way} {run}")
    direct.check(a)


@needs_bpf
@pytest.mark.parametrize("way", WAYS)
def test_those_that_were_seen(agent, direct, way):
    a = followed(agent, direct.pid)
    direct.program.tell("hold 1")
    direct.run(f"{way} 200 6")
    wait_until("they are seen", lambda: a.value("boxo_agent_target_processes") >= 201)
    a.next_page(2)
    direct.tell("go")
    direct.check(a)


@needs_bpf
def test_waited_for_and_not_in_turn(agent, direct):
    a = followed(agent, direct.pid, interval="100ms")
    for _ in range(2):
        for way in WAYS:
            direct.run(f"{way} 20 2")
            direct.program.tell("reap 2 20")
    direct.check(a)


@needs_bpf
@pytest.mark.parametrize("way", WAYS)
def test_in_a_pid_namespace(agent, inside, way):
    """There orphans come to the program itself, which does not wait for them: they stay zombies."""
    a = followed(agent, inside.pid)
    inside.run(f"{way} 100 2")
    inside.check(a, 0 if way == "ignored" else 100)


@needs_bpf
def test_an_agent_in_the_same_pid_namespace(account, agent, target, tmp_path):
    holder = target("threads", prefix=INNER)
    first = wait_until("the namespace's first process", lambda: children(holder.pid))[0]
    within = ("nsenter", "--target", first, "--pid", "--mount")
    t = target("children", prefix=within, cwd=tmp_path, preexec_fn=account.join)
    pid = wait_until("the program behind nsenter", lambda: children(t.pid))[0]
    inner = pathlib.Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].splitlines()[0].split()[-1]
    lost = Lost(t, pid, account)
    a = followed(agent, inner, prefix=within)
    lost.run("ignored 100 2")
    lost.program.tell("hold 1")
    lost.run("ignored 50 4")
    wait_until("they are seen", lambda: a.value("boxo_agent_target_processes") >= 51)
    lost.tell("go")
    lost.check(a)


@needs_bpf
def test_a_whole_namespace_is_killed(agent, inside):
    """Its first process takes over all that end with it, and is itself waited for by nobody of the target."""
    a = followed(agent, inside.pid)
    inside.program.tell("hold 1")
    inside.run("orphans 100 4")
    wait_until("they are seen", lambda: a.value("boxo_agent_target_processes") >= 101)
    for child in children(inside.pid):
        os.kill(child, signal.SIGSTOP)  # or they go on when it closes their pipe
    before = counted(a.next_page(2))
    os.kill(inside.pid, signal.SIGKILL)
    wait_until("it has ended", lambda: a.value("boxo_agent_target_processes") == 0)
    after = counted(a.next_page(3))
    for key in KEYS:
        # Living ones are cut off at a clock tick each, and a read that does not return yet is not counted.
        more = {"cpu": 2 / CLOCK_TICK + END[0], "faults": END[1], "syscr": 1}.get(key, 0)
        most = before[key] + 101 * more
        assert before[key] <= after[key] <= most, key


@pytest.mark.parametrize("way", WAYS)
def test_without_probes_never_more_than_the_truth(agent, direct, way):
    a = agent("--no-bpf", "--pid", direct.pid, interval="100ms")
    direct.program.tell("hold 1")
    for _ in range(3):
        direct.run(f"{way} 30 4")
        a.next_page(2)
        direct.tell("go")
        direct.program.tell("reap 1 10")
        a.next_page(2)
        _, most = direct.bounds()
        values = counted(a.page())
        assert not {key: (values[key], most[key]) for key in KEYS if values[key] > most[key]}
