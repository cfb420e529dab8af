# SPDX-License-Identifier: MIT OR Apache-2.0
"""The event socket itself: who may send, whose it is, how much waits in it, and that systemd's loses nothing."""
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from conftest import wait_until
from events import HERE, Events, listening, received, rejected  # noqa: F401 (a fixture)

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to send as other users")


def test_killed_leaves_nothing_in_the_way(agent, short_tmp):
    a = agent(*HERE, events=short_tmp / "e")
    a.popen.kill()
    a.popen.wait()
    assert (short_tmp / "e").is_socket()
    b = agent(*HERE, events=short_tmp / "e")
    Events(b.events).send("bitswap.requests:1|c")
    received(b, 1)
    assert b.stop() == 0
    assert not (short_tmp / "e").exists()


def test_a_live_socket_is_not_stolen(agent, run_agent, short_tmp):
    a = agent(*HERE, events=short_tmp / "e")
    status, out, err = run_agent("--listen", "127.0.0.1:0", *HERE, "--events", short_tmp / "e")
    assert status == 3
    assert len(err.splitlines()) == 1 and f"--events {short_tmp / 'e'}" in err, err
    Events(a.events).send("bitswap.requests:1|c")
    received(a, 1)


QLEN = int(pathlib.Path("/proc/sys/net/unix/max_dgram_qlen").read_text())

# How many datagrams a socket queues, by the length of the queue, its own buffer, their size and the sender's buffer.
QUEUE = """
import pathlib, socket, sys
sysctl = pathlib.Path("/proc/sys/net/unix/max_dgram_qlen")
def queued(receiver, name, size=10, buffer=None):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if buffer: s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    s.connect(name)
    s.setblocking(False)
    n = 0
    try:
        while True:
            s.send(b"x" * size)
            n += 1
    except BlockingIOError:
        return n
def receiver(name, buffer=None):
    r = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if buffer: r.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    r.bind(name)
    return r
folder = sys.argv[1]
print(sysctl.read_text().strip())
print(queued(receiver(folder + "/a"), folder + "/a"))
print(queued(receiver(folder + "/b", 4 << 20), folder + "/b"))
early = receiver(folder + "/c")
sysctl.write_text("40")
print(queued(early, folder + "/c"))
print(queued(receiver(folder + "/d"), folder + "/d"))
print(queued(receiver(folder + "/f"), folder + "/f", 30000, 100000) < 11)
"""


@AS_ROOT
def test_how_long_the_queue_is(short_tmp):
    """What the manual says of net.unix.max_dgram_qlen: one more than it, of the receiver's network namespace when its socket
    is made; the receiver's buffer changes nothing, the sender's does."""
    r = subprocess.run(["unshare", "--net", sys.executable, "-c", QUEUE, short_tmp], capture_output=True, text=True)
    assert r.stdout.split() == ["10", "11", "11", "11", "41", "True"], r.stderr
    assert int(pathlib.Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) == QLEN


def test_queue_and_sequence(listening):
    a = listening()
    a.popen.send_signal(signal.SIGSTOP)
    wait_until("all of its threads stand still", lambda: all(
        x.read_text().rsplit(")", 1)[1].split()[0] == "T" for x in pathlib.Path(f"/proc/{a.pid}/task").glob("*/stat")))
    e = Events(a.events)
    e.socket.setblocking(False)
    queued = lost = 0
    for number in range(1, 1001):
        try:
            e.send(f"agent.client.sequence:{number}|g|#client:me", "bitswap.requests:1|c")
            queued += 1
        except BlockingIOError:
            lost += 1
    # As many as the manual says, whatever their size.
    assert queued == QLEN + 1
    a.popen.send_signal(signal.SIGCONT)
    received(a, 2 * queued)
    e.socket.setblocking(True)
    e.send("agent.client.sequence:1001|g|#client:me", f"agent.client.dropped:{lost}|c|#reason:queue,client:me")
    page = received(a, 2 * queued + 2)
    assert lost > 0
    assert page.value("boxo_agent_events_dropped_total", reason="sequence") == lost
    assert page.value("boxo_agent_events_dropped_total", reason="queue") == lost
    assert page.value("boxo_bitswap_requests_total") == queued
    assert page.value("boxo_agent_events_queue_bytes") == 0


# Sends one line to each path given, as somebody else.
SENDER = """
import socket, struct, sys
for path in sys.argv[1:]:
    stream = path.endswith("s")
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    s.connect(path)
    line = b"bitswap.requests:1|c"
    try:
        s.send(struct.pack("<I", len(line)) + line if stream else line)
    except BrokenPipeError:
        pass  # a connection that may not send is closed at once
"""


def send_as(prefix, *paths):
    return subprocess.run([*prefix, sys.executable, "-c", SENDER, *map(str, paths)], capture_output=True, text=True)


def as_user(uid, gid, groups=None):
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", f"--groups={groups}" if groups else "--clear-groups"]


@AS_ROOT
def test_who_may_send(agent, short_tmp):
    short_tmp.chmod(0o755)
    e, s = short_tmp / "e", short_tmp / "s"
    node = subprocess.Popen([*as_user(4321, 4321), "sleep", "1000"])
    try:
        wait_until("the node has its user", lambda: "Uid:\t4321" in pathlib.Path(f"/proc/{node.pid}/status").read_text())
        a = agent("--pid", node.pid, "--no-bpf", "--events-stream", s, events=e)
        for prefix, good in (([], 2), (as_user(4321, 4321), 4), (as_user(1234, 1234), 4), (as_user(1234, 4321), 4)):
            before = a.value("boxo_agent_events_received_total")
            assert send_as(prefix, e, s).returncode == 0
            page = received(a, before + 2)
            assert page.value("boxo_bitswap_requests_total") == good
        assert rejected(page) == {"credentials": 4}
    finally:
        node.kill()
        node.wait()


@AS_ROOT
def test_who_may_send_by_group(agent, short_tmp):
    short_tmp.chmod(0o755)
    e, s = short_tmp / "e", short_tmp / "s"
    a = agent(*HERE, "--events-group", 12345, "--events-stream", s, events=e)
    assert (e.stat().st_mode & 0o7777, e.stat().st_gid) == (0o660, 12345)
    assert send_as(as_user(1234, 12345), e, s).returncode == 0
    assert send_as(as_user(1234, 1234, 12345), e, s).returncode == 0
    refused = send_as(as_user(1234, 1234), e, s)
    assert "PermissionError" in refused.stderr
    page = received(a, 4)
    assert page.value("boxo_bitswap_requests_total") == 4
    assert rejected(page) == {}


@AS_ROOT
@pytest.mark.parametrize("namespaces", [["--mount"], ["--mount", "--pid", "--fork", "--mount-proc", "--net", "--ipc", "--uts"]])
def test_a_sender_in_another_container(agent, short_tmp, namespaces):
    """Two mount namespaces, a volume in both at different paths, as in a pod; the node's container sees no more of the
    agent than the socket."""
    volume, there = short_tmp / "volume", short_tmp / "there"
    volume.mkdir()
    there.mkdir()
    short_tmp.chmod(0o755)
    a = agent(*HERE, events=volume / "e", prefix=["unshare", "--mount", "--propagation", "private"])
    script = f"mount --bind {volume} {there} && mount -t tmpfs none {volume} && exec {sys.executable} -c '{SENDER}' {there}/e"
    sent = subprocess.run(["unshare", *namespaces, "--propagation", "private", "sh", "-c", script], capture_output=True, text=True)
    assert sent.returncode == 0, sent.stderr
    assert received(a, 1).value("boxo_bitswap_requests_total") == 1


@AS_ROOT
def test_a_sender_in_another_user_namespace(agent, short_tmp):
    """Its root is nobody outside: it sends by the group that the volume's socket has."""
    short_tmp.chmod(0o755)
    a = agent(*HERE, "--events-group", 12345, events=short_tmp / "e")
    inside = [*as_user(4321, 12345), "unshare", "--user", "--map-root-user"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces for ordinary users here")
    sent = send_as(inside, short_tmp / "e")
    assert sent.returncode == 0, sent.stderr
    assert received(a, 1).value("boxo_bitswap_requests_total") == 1


# Opens the socket as systemd does, once, and starts the agent with it, again and again.
ACTIVATE = """
import os, sys
fd = int(sys.argv[1])
if fd != 3: os.dup2(fd, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_socket_activation_loses_nothing(agent, short_tmp):
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # PassCredentials=yes
    ours.bind(str(short_tmp / "e"))
    e = Events(short_tmp / "e")
    total = 0
    for generation in range(2):
        for _ in range(5):  # while there is no agent
            e.send(*["bitswap.requests:1|c"] * 100)
        a = agent(*HERE, events=short_tmp / "unused", prefix=[sys.executable, "-c", ACTIVATE, ours.fileno()], pass_fds=[ours.fileno(), 3])
        e.send("bitswap.requests:1|c")
        total = received(a, 501).value("boxo_bitswap_requests_total")
        assert total == 501
        assert not (short_tmp / "unused").exists()
        assert a.stop() == 0
        assert (short_tmp / "e").is_socket(), "systemd's socket stays"


def test_without_pass_credentials_nobody_knows_who_sent_what_was_queued(agent, short_tmp):
    """Why boxo-agent.socket has PassCredentials=yes: the kernel notes the sender only if the socket asks when it sends."""
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.bind(str(short_tmp / "e"))
    e = Events(short_tmp / "e")
    e.send("bitswap.requests:1|c")
    a = agent(*HERE, events=short_tmp / "unused", prefix=[sys.executable, "-c", ACTIVATE, ours.fileno()], pass_fds=[ours.fileno(), 3])
    e.send("bitswap.requests:1|c")
    page = received(a, 2)
    assert page.value("boxo_bitswap_requests_total") == 1
    assert rejected(page) == {"credentials": 1}
