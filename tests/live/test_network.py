# SPDX-License-Identifier: MIT OR Apache-2.0
"""The network probes against sockets whose numbers are known."""
import ctypes
import os
import pathlib
import socket
import struct
import subprocess
import time

import pytest
from conftest import wait_until

CONNECTS = "boxo_network_tcp_connects_total"
LATENCY = "boxo_network_tcp_connect_latency_seconds"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"), reason="eBPF needs root and a kernel with BTF")


def ask(target, line):
    """The number that tests/targets/network.c answers."""
    answer = target.tell(line)
    assert answer.lstrip("-").isdigit(), f"{line}: {answer!r}"
    return int(answer)


def listening(address, port, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind((address, port))
    s.listen(256)
    return s


def accepted(a):
    return a.next_page().value(CONNECTS, direction="in", result="ok")


# ---- TCP ----

@pytest.mark.parametrize("own, other, family", [("127.0.0.1", "127.0.0.2", socket.AF_INET), ("::1", "127.0.0.1", socket.AF_INET)])
def test_somebody_else_listens_on_the_same_port_of_another_address(agent, target, own, other, family):
    t = target("network")
    port = ask(t, f"listen {own} 0")
    a = agent("--pid", t.pid)
    a.next_page()
    with listening(other, port, family):
        clients = [socket.create_connection((other, port)) for _ in range(7)]
        clients += [socket.create_connection((own, port)) for _ in range(3)]
        assert ask(t, "accept") == 3
        assert accepted(a) == 3
        for c in clients:
            c.close()


@pytest.mark.parametrize("first", ["target", "other"])
def test_two_share_a_port(agent, target, first):
    """SO_REUSEPORT: the kernel gives each connection to one of the two."""
    t = target("network")
    other = None
    if first == "other":
        other = listening("127.0.0.1", 0)
    port = ask(t, f"listen 127.0.0.1 {other.getsockname()[1] if other else 0}")
    other = other or listening("127.0.0.1", port)
    a = agent("--pid", t.pid)
    a.next_page()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    own = ask(t, "accept")
    assert 0 < own < 60, "both are given some"
    assert accepted(a) == own
    for s in [other, *clients]:
        s.close()


def multipath():
    try:
        return open("/proc/sys/net/mptcp/enabled").read().strip() == "1"
    except OSError:
        return False


@pytest.mark.parametrize("verb", ["listen", "multipath"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_listener_that_begins_before_or_after_the_agent(agent, target, verb, when):
    if verb == "multipath" and not multipath():
        pytest.skip("this kernel has no multipath TCP")
    t = target("network")
    port = ask(t, f"{verb} ::1 0") if when == "before" else 0
    a = agent("--pid", t.pid)
    a.next_page()
    port = port or ask(t, f"{verb} ::1 0")
    clients = [socket.create_connection(("::1", port)) for _ in range(4)]
    assert ask(t, "accept") == 4
    assert accepted(a) == 4
    for c in clients:
        c.close()


@pytest.fixture
def group():
    """A new group of cgroup v2."""
    top = next((p for p in (pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/sys/fs/cgroup/unified"))
                if (p / "cgroup.procs").exists()), None)
    if top is None:
        pytest.skip("no cgroup v2 here")
    made = top / f"boxo-network-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as e:
        pytest.skip(f"cannot make a cgroup: {e}")
    yield made
    wait_until("the group is empty", lambda: not (made / "cgroup.procs").read_text())
    made.rmdir()


def in_group(group):
    """A command that runs what follows in the group."""
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]


def test_a_look_at_all_open_sockets_forgets_no_connect_under_way(agent, group, target):
    """While it waits for an answer to its SYN a process joins the target, whose open files are looked at then."""
    t = target("network", prefix=in_group(group))
    a = agent("--cgroup", f"/{group.name}")
    a.next_page()
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # there is room for one: the next SYN is not answered
            ask(t, f"connect 127.0.0.1 {port}")
            joins = subprocess.Popen([*in_group(group), "sleep", "1000"])
            try:
                wait_until("the newcomer is seen", lambda: a.value("boxo_agent_target_processes") == 2)
                a.next_page()
                while full.accept()[0].getpeername()[1] != t_port(t.pid, port):
                    pass
                assert ask(t, "connected") == 0
                page = a.next_page()
            finally:
                joins.kill()
                joins.wait()
    assert page.value(CONNECTS, direction="out", result="ok") == 1
    assert page.value(LATENCY + "_count") == 1
    assert page.value(LATENCY + "_sum") >= 0.5, "the kernel sends a SYN again after a second"


def t_port(pid, port):
    """The local port of the connection of `pid` to that port."""
    lines = subprocess.run(["ss", "-Htnp", "dport", "=", f":{port}"], capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[3].rsplit(":", 1)[1]) for line in lines.splitlines() if f"pid={pid}," in line)


def test_resets_by_both_sides(agent, target):
    t = target("network")
    port = ask(t, "listen 127.0.0.1 0")
    a = agent("--pid", t.pid)
    a.next_page()

    def connections(n):
        made = [socket.create_connection(("127.0.0.1", port)) for _ in range(n)]
        wait_until("all are accepted", lambda: ask(t, "accept") >= n)
        return made

    received = connections(5)
    for s in received:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    assert a.next_page().value("boxo_network_tcp_resets_total") == 5
    ask(t, "reset")
    sent = connections(3)
    assert ask(t, "reset") == 3
    page = a.next_page()
    for s in sent:
        s.close()
    assert page.value("boxo_network_tcp_resets_total") == 8
    # A port on which it does not listen any more: a reset, but of no connection of the target.
    with socket.socket() as none:
        none.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(none.getsockname())
    assert a.next_page().value("boxo_network_tcp_resets_total") == 8


def test_retransmitted_segments_as_the_sockets_count_them(agent, target):
    """The socket filter of the other end throws all away for a while; TCP_INFO has the number."""
    t = target("network")
    port = ask(t, "listen 127.0.0.1 0")
    a = agent("--pid", t.pid)
    with socket.create_connection(("127.0.0.1", port)) as s:
        wait_until("it is accepted", lambda: ask(t, "accept") == 1)
        first = a.next_page().value("boxo_network_tcp_retransmits_total")
        nothing = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET 0
        program = bytearray(nothing)
        buffer = (ctypes.c_char * len(program)).from_buffer(program)
        s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxP", 1, ctypes.addressof(buffer)))  # SO_ATTACH_FILTER
        ask(t, "write 300000")
        time.sleep(2)
        s.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER
        got = 0
        while got < 300000:
            got += len(s.recv(65536))

        def told():
            line = subprocess.run(["ss", "-Htinp", "sport", "=", f":{port}"], capture_output=True, text=True, check=True).stdout
            return sum(int(part.split("/")[-1]) for part in line.split() if part.startswith("retrans:"))

        before = told()
        page = a.next_page()
        assert before == told() >= 3
        assert page.value("boxo_network_tcp_retransmits_total") - first == before
