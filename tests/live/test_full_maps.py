# SPDX-License-Identifier: MIT OR Apache-2.0
"""Maps of the kernel that are full: what found no room is counted, and with what was counted it makes up the whole. The agent
is stopped where it would make room in between."""
import contextlib
import os
import pathlib
import signal
import socket
import sys

import pytest
from conftest import KERNEL, TOO_OLD, wait_until
from network import ask, datagram, multipath

FULL = "boxo_agent_map_full_total"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"), reason="eBPF needs root and a kernel with BTF")


@contextlib.contextmanager
def stopped(agent):
    agent.popen.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        agent.popen.send_signal(signal.SIGCONT)


def risen(before, page, name, **labels):
    return (page.value(name, **labels) or 0) - (before.value(name, **labels) or 0)


@pytest.mark.skipif("udp" in TOO_OLD, reason="before Linux 5.11 there is no probe udp")
def test_remotes(agent, target):
    """8,192 have room; a datagram of any other is counted as one that found none, and in the sums."""
    t = target("network")
    port = ask(t, "udp 0.0.0.0 0")
    a = agent("--pid", t.pid)
    if "version 2" in (reason := a.page().all("boxo_agent_probe_info", probe="udp")[0].labels["reason"]):
        pytest.skip(reason)
    assert a.value(FULL, probe="udp") == 0
    many, room = 9000, 8192
    # The socket takes what it has room for; what it drops has arrived as well.
    with stopped(a), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for i in range(many):
            raw.sendto(datagram(socket.inet_aton(f"127.1.{i >> 8}.{i & 255}"), port, b"spoof"), ("127.0.0.1", 0))
    page = a.next_page(2)
    assert page.value(FULL, probe="udp") == many - room
    assert page.value("boxo_network_udp_packets_total", direction="received") == many
    assert page.sum("boxo_network_remote_packets_total", direction="received") == many


def test_connections_that_ended(agent, target):
    """Both ends of each are the target's, and each has sent 1,000 bytes."""
    t = target("sockets")
    a = agent("--pid", t.pid, "--no-probe", "readers")
    before = a.next_page()
    ends, room = 2 * 5000, 9000
    with stopped(a):
        assert t.tell(f"hurry {ends // 2}") == "0"
    page = a.next_page(2)
    full = page.value(FULL, probe="tcp") - before.value(FULL, probe="tcp")
    assert 0 < full <= ends - room
    sent = [p.value("boxo_network_socket_bytes_total", protocol="tcp", direction="sent") or 0 for p in (before, page)]
    assert sent[1] - sent[0] == 1000 * (ends - full)


LISTENING = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
kept = []
for _ in range(int(sys.argv[1])):
    kept.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
    kept[-1].bind(("127.0.0.1", 0))
    kept[-1].listen(1)
print("READY", flush=True)
input()
"""


@pytest.mark.skipif(not multipath(), reason="this kernel has no multipath TCP")
@pytest.mark.parametrize("many, full", [(1024, 0), (1100, 76)])
def test_multipath_sockets_that_listen(agent, started, many, full):
    """Those that were there before the agent are known by address and port, 1,024 of them."""
    t = started([sys.executable, "-c", LISTENING, many])
    page = agent("--pid", t.pid).next_page()
    for probe in {"tcp", "udp"} - TOO_OLD:
        # They are looked at again when the target changes.
        assert full <= page.value(FULL, probe=probe) <= 1000 * full, probe


SYNCING = """
import os, threading
threading.stack_size(64 * 1024)
fd = os.open("file", os.O_CREAT | os.O_WRONLY, 0o600)
os.write(fd, b"x")
os.fsync(fd)
print("READY", flush=True)
count = int(input())
os.write(fd, b"x" * 65536)
threads = [threading.Thread(target=os.fsync, args=(fd,)) for _ in range(count)]
for t in threads:
    t.start()
print("started", flush=True)
for t in threads:
    t.join()
print("done", flush=True)
input()
"""


def test_fsyncs_at_a_time(file_system, frozen, agent, started):
    """On a file system whose disk is a file of another one, which is frozen: no fsync returns, and the time of only 1,024 can
    be kept."""
    below = file_system("ext4")
    where = file_system("ext4", mebibytes=64, image=below / "image")
    many, room = 1100, 1024
    t = started([sys.executable, "-c", SYNCING], cwd=where)
    a = agent("--pid", t.pid)
    before = a.next_page()
    name = "boxo_resource_fsyncs_total"

    with frozen(below):
        assert t.tell(str(many)) == "started"
        wait_until("all have begun", lambda: risen(before, a.page(), name, filesystem="ext4") == many)
        page = a.next_page()
        assert risen(before, page, FULL, probe="fsync") == many - room
        assert risen(before, page, "boxo_resource_fsync_seconds_count") == 0
    assert t.read() == "done"
    page = a.next_page()
    assert risen(before, page, "boxo_resource_fsync_seconds_count") == room
    assert risen(before, page, name, filesystem="ext4") == many
    assert risen(before, page, FULL, probe="fsync") == many - room


WRITING = """
import os, sys, threading
count, devices = int(sys.argv[1]), [os.open(path, os.O_WRONLY) for path in sys.argv[2:]]
print("READY", flush=True)
input()
for fd in devices:
    os.write(fd, b"x" * count * 4096)
threads = [threading.Thread(target=os.fsync, args=(fd,)) for fd in devices]
for t in threads:
    t.start()
print("started", flush=True)
for t in threads:
    t.join()
print("done", flush=True)
input()
"""


# A scheduler has room for more requests than a loop device; none is merged, held back, or larger than a page.
QUEUE = {"scheduler": "mq-deadline", "nr_requests": "2048", "nomerges": "2", "max_sectors_kb": "4", "wbt_lat_usec": "0"}


@pytest.fixture
def deep_queue(undoing):
    """Gives a disk such a queue. What it was like it is again afterwards: the next one gets the same device."""
    def change(device):
        queue = pathlib.Path("/sys/block") / pathlib.Path(device).name / "queue"
        before = {name: (queue / name).read_text().strip() for name in QUEUE if (queue / name).exists()}
        # The one that is used is in brackets; with it comes its number of requests.
        before["scheduler"] = before["scheduler"].partition("[")[2].partition("]")[0]
        for name in before.keys() - {"nr_requests"}:
            undoing.callback((queue / name).write_text, before[name])
        for name in before:
            try:
                (queue / name).write_text(QUEUE[name])
            except OSError as e:
                pytest.skip(f"{queue / name} cannot be {QUEUE[name]}: {e}")
        return device
    return change


@pytest.mark.skipif(KERNEL < (6, 18), reason="on Linux 6.1 and 6.12 the scheduler lets a writer have only 256 requests for a disk at a time")
def test_block_requests_at_a_time(file_system, block_device, deep_queue, frozen, agent, started):
    """On disks that are files of a frozen file system no request ends, and only 4,096 can be remembered."""
    below = file_system("ext4")
    each, room = 1500, 4096
    disks = [deep_queue(block_device(16, below / f"disk{n}")) for n in range(3)]
    t = started([sys.executable, "-c", WRITING, each, *disks])
    a = agent("--pid", t.pid)
    before = a.next_page()
    size = "boxo_resource_block_io_size_bytes"

    with frozen(below):
        assert t.tell("go") == "started"
        wait_until("all have been made", lambda: risen(before, a.page(), FULL, probe="blockio") >= 3 * each - room)
        assert risen(before, a.next_page(), FULL, probe="blockio") == 3 * each - room
        assert risen(before, a.page(), size + "_count", operation="write") == 0
    assert t.read() == "done"
    page = a.next_page()
    # A kernel in a virtual machine was seen not to run the probe at the end of a few of 1,000 requests.
    assert room * 0.98 <= risen(before, page, size + "_count", operation="write") <= room
    assert risen(before, page, size + "_sum", operation="write") == 4096 * risen(before, page, size + "_count", operation="write")
