# SPDX-License-Identifier: MIT OR Apache-2.0
"""Processes that come to a target with a life of their own behind them: what they had counted before is not the target's."""
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from conftest import CLOCK_TICK, wait_until
from processes import Obedient, group, into, kill, processes, program, restarts, start, unique

# A process that has counted: "write N" bytes, "burn N" milliseconds of CPU time, "sleep N" times, "send N" bytes over a
# connection that it keeps; "fork N" leaves a child that has written N bytes.
COUNTING = """
import os, signal, socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
peer, _ = server.accept()
null = os.open("/dev/null", os.O_WRONLY)
def write(count):
    while count > 0:
        count -= os.write(null, bytes(min(count, 1 << 20)))
print("READY", flush=True)
for line in sys.stdin:
    word, count = line.split()
    if word == "write":
        write(int(count))
    elif word == "burn":
        end = time.process_time() + int(count) / 1000
        while time.process_time() < end:
            pass
    elif word == "sleep":
        for _ in range(int(count)):
            time.sleep(0.0002)
    elif word == "send":
        for _ in range(int(count) // 1000):
            client.sendall(bytes(1000))
            peer.recv(1000, socket.MSG_WAITALL)
    elif word == "fork" and os.fork() == 0:
        write(int(count))
        print("done", flush=True)
        signal.pause()
    if word != "fork":
        print("done", flush=True)
"""
MIB = 1 << 20


@pytest.fixture
def counting(start, tmp_path):
    """counting(name) runs it under this name."""
    def run(name, prefix=()):
        python = tmp_path / name
        if not python.exists():
            python.symlink_to(os.path.realpath(sys.executable))
        return Obedient(start(*prefix, str(python), "-c", COUNTING, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    return run


class Counts:
    """What is summed up over the target's processes, on a page."""

    def __init__(self, page):
        self.cpu = page.sum("boxo_resource_cpu_seconds_total")
        self.written = page.value("boxo_resource_io_bytes_total", operation="write")
        self.voluntary = page.value("boxo_resource_context_switches_total", type="voluntary")
        self.sent = page.value("boxo_network_socket_bytes_total", protocol="tcp", direction="sent")
        self.faults = page.value("boxo_resource_page_faults_total", type="minor")


def busy(t):
    """It has counted of everything before it becomes the target."""
    for order in (f"write {64 * MIB}", "burn 600", "sleep 3000", "send 500000"):
        assert t.tell(order) == "done"


def own_cpu(t):
    return sum(map(int, pathlib.Path(f"/proc/{t.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])) / CLOCK_TICK


def check_counts_from_now_on(a, before, t):
    """What it counted before it came is not there, and what it counts now is."""
    used = own_cpu(t)
    now = Counts(a.next_page())
    assert now.cpu - before.cpu < 0.3
    assert now.written - before.written < MIB
    assert now.voluntary - before.voluntary < 1000
    assert now.sent - before.sent == 0
    assert now.faults - before.faults < 1000
    assert t.tell(f"write {3 * MIB}") == t.tell("sleep 1000") == t.tell("send 7000") == t.tell("burn 300") == "done"
    later = Counts(a.next_page())
    assert 3 * MIB <= later.written - now.written < 4 * MIB
    assert 1000 <= later.voluntary - now.voluntary < 2000
    assert later.sent - now.sent == 7000
    assert 0.25 <= later.cpu - now.cpu <= own_cpu(t) - used + 4 / CLOCK_TICK  # each time is cut off at a clock tick
    return later


@pytest.mark.parametrize("how", [[], ["--no-bpf"]], ids=["bpf", "no-bpf"])
def test_one_that_ran_beside_the_target_takes_its_place(agent, counting, how):
    name = unique()
    first = counting(name)
    second = counting(name)
    busy(second)
    a = agent("--comm", name, *how)
    processes(a, 1)
    assert f"2 processes are named {name}: watching the oldest, pid {first.pid};" in a.log()
    before = Counts(a.next_page())
    first.popen.kill()
    first.popen.wait()
    wait_until("the other one is taken", lambda: f"watching pid {second.pid} " in a.log())
    check_counts_from_now_on(a, before, second)
    assert restarts(a) == 0
    assert f"pid {second.pid} ({name}) ran before it became the target: no restart" in a.log()
    # One that is started again counts from its beginning, and so does what it forks.
    second.popen.kill()
    second.popen.wait()
    processes(a, 0)
    before = Counts(a.page())
    third = counting(name)
    assert third.tell(f"write {5 * MIB}") == "done"
    wait_until("the new one is taken", lambda: restarts(a) == 1)
    page = Counts(a.next_page())
    assert 5 * MIB <= page.written - before.written < 6 * MIB
    assert third.tell(f"fork {2 * MIB}") == "done"
    processes(a, 2)
    assert 2 * MIB <= Counts(a.next_page()).written - page.written < 3 * MIB


@pytest.mark.parametrize("how", [[], ["--no-bpf"]], ids=["bpf", "no-bpf"])
def test_one_that_is_moved_into_the_cgroup(agent, start, program, counting, group, how):
    inside = into(group, start, program)
    outside = counting(unique())
    busy(outside)
    wait_until("it is there", lambda: str(inside.pid) in (group / "cgroup.procs").read_text().split())
    a = agent("--cgroup", group, *how)
    processes(a, 1)
    before = Counts(a.next_page())
    (group / "cgroup.procs").write_text(str(outside.pid))
    processes(a, 2)
    now = check_counts_from_now_on(a, before, outside)
    # What it forks there is the target's from its beginning.
    assert outside.tell(f"fork {2 * MIB}") == "done"
    processes(a, 3)
    later = Counts(a.next_page())
    assert 2 * MIB <= later.written - now.written < 3 * MIB
    # It ends, and takes nothing back.
    kill(outside.popen)
    processes(a, 2)
    after = Counts(a.next_page())
    assert later.written <= after.written < later.written + MIB
    assert later.cpu <= after.cpu < later.cpu + 0.3
    os.killpg(outside.pid, signal.SIGKILL)
    kill(inside)
