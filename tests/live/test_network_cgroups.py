# SPDX-License-Identifier: MIT OR Apache-2.0
"""The probe udp where the target's processes and sockets are in several cgroups: it counts above all of them, or says that
it cannot."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from conftest import SLOW, TARGETS, TOO_OLD, TargetProgram, remove_group, wait_until
from network import ask, group, in_group  # noqa: F401 (a fixture)
from processes import unique

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"),
                       reason="eBPF needs root and a kernel with BTF"),
    pytest.mark.skipif("udp" in TOO_OLD, reason="before Linux 5.11 there is no probe udp")]

SENT = dict(direction="sent")
BYTES, PACKETS, REMOTE = "boxo_network_udp_bytes_total", "boxo_network_udp_packets_total", "boxo_network_remote_bytes_total"
SOCKET_BYTES = "boxo_network_socket_bytes_total"
ABSENT = "boxo_agent_metric_absent_info"
CAPABLE = ["setpriv", "--bounding-set=-all,+bpf,+perfmon,+net_admin", "--inh-caps=-all"]
BPFTOOL = shutil.which("bpftool", path=os.environ.get("PATH", "") + ":/usr/sbin")


@pytest.fixture
def tree(group):
    """A group with the groups a, a/a, b in it, a path each."""
    made = [group / name for name in ("a", "a/a", "b")]
    for path in made:
        path.mkdir()
    yield {"": group, **{str(path.relative_to(group)): path for path in made}}
    for path in reversed(made):
        if path.exists():
            remove_group(path)
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (group.parent / "cgroup.procs").write_text(pid)


@pytest.fixture
def sink():
    """A socket that datagrams can be sent to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.2", 0))
        yield s


@pytest.fixture
def copy(tmp_path):
    """copy(path) is the same program under a name that nothing else has, for --comm."""

    def make(path):
        return shutil.copy(path, tmp_path / unique())

    return make


@pytest.fixture
def family(target, copy):
    """family(group, child_group): a shell in the one and its child in the other, which is tests/targets/network.c and obeys.
    `pid` is the shell's and `name` its name, `child` the child's pid."""

    def start(group, child_group):
        inside = f'echo $$ > {child_group}/cgroup.procs && exec "$@"'
        # The shell waits for it, as it has something to do afterwards.
        script = f'echo $$ > {group}/cgroup.procs && sh -c \'{inside}\' sh "$@"; exit 0'
        shell = copy(shutil.which("sh"))
        t = target("network", prefix=[shell, "-c", script, "sh"])
        t.name = os.path.basename(shell)
        t.child = int(pathlib.Path(f"/proc/{t.pid}/task/{t.pid}/children").read_text())
        started.append(t.child)
        return t

    started = []
    yield start
    for pid in started:  # the shell, which is killed, does not take it along
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def send(t, sink, count, size=100):
    assert ask(t, f"send 127.0.0.2 {port_of(sink)} {size} {count}") == size * count


def order(t, line):
    """Tells and does not wait for the answer."""
    t.popen.stdin.write(line + "\n")
    t.popen.stdin.flush()


def port_of(sink):
    return sink.getsockname()[1]


def move(pid, group):
    (group / "cgroup.procs").write_text(str(pid))


def sent(page):
    return page.value(PACKETS, **SENT)


def attached(a):
    reason = a.page().all("boxo_agent_probe_info", probe="udp")[0].labels["reason"]
    assert reason == "attached", a.log()


def programs(group):
    """How many programs that look at packets are attached to this very group."""
    if not BPFTOOL:
        pytest.skip("no bpftool")
    r = subprocess.run([BPFTOOL, "-j", "cgroup", "show", group], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return sum(p["attach_type"] in ("ingress", "egress", "cgroup_inet_ingress", "cgroup_inet_egress")
               for p in json.loads(r.stdout.strip() or "[]"))


def reason_of(page, metric):
    found = page.all(ABSENT, metric=metric)
    return found[0].labels["reason"] if found else None


@pytest.mark.parametrize("main, child, counted_in", [
    ("a", "b", ""), ("a/a", "a", "a"), ("a", "a/a", "a"), ("a/a", "b", "")], ids=["beside", "above", "below", "deeper"])
def test_a_child_in_another_group_from_before_the_agent(agent, family, tree, sink, main, child, counted_in):
    t = family(tree[main], tree[child])
    ask(t, "udp 127.0.0.1 0")
    a = agent("--pid", t.pid)
    attached(a)
    send(t, sink, 10)
    ask(t, "shut")
    ask(t, "udp 127.0.0.1 0")
    send(t, sink, 7)
    page = a.next_page()
    assert (sent(page), page.value(BYTES, **SENT)) == (17, 1700)
    if counted_in != main:
        assert f"probe udp: counts in cgroup /{os.path.join(tree[''].name, counted_in).rstrip('/')}, the nearest" in a.log(), a.log()
    assert {name: programs(path) for name, path in tree.items()} == {name: 2 if name == counted_in else 0 for name in tree}


def test_a_child_that_is_moved(agent, family, tree, sink):
    """There and back: what it sends from where it was not seen yet is the least that there can be, that until the next tick."""
    t = family(tree["a"], tree["a"])
    a = agent("--comm", t.name, prefix=CAPABLE)
    attached(a)
    assert programs(tree["a"]) == 2
    ask(t, "udp 127.0.0.1 0")
    send(t, sink, 3)
    move(t.child, tree["b"])
    send(t, sink, 30)  # by the socket that belongs to the group it was made in
    assert sent(a.next_page()) == 33
    assert (programs(tree["a"]), programs(tree[""])) == (0, 2)
    ask(t, "shut")
    ask(t, "udp 127.0.0.1 0")
    send(t, sink, 300)
    assert sent(a.next_page()) == 333
    move(t.child, tree["a"])
    ask(t, "shut")
    ask(t, "udp 127.0.0.1 0")
    send(t, sink, 3000)
    assert sent(a.next_page()) == 3333


def test_the_main_process_is_moved_and_its_group_removed(agent, target, copy, tree, sink):
    program = copy(TARGETS / "network")
    t = target(program, prefix=in_group(tree["a/a"]))
    a = agent("--comm", program.name, prefix=CAPABLE)
    ask(t, "udp 127.0.0.1 0")
    send(t, sink, 3)
    move(t.pid, tree["b"])
    remove_group(tree["a/a"])
    a.next_page()
    send(t, sink, 30)  # the socket's group is no more
    ask(t, "shut")
    ask(t, "udp 127.0.0.1 0")
    send(t, sink, 300)
    assert sent(a.next_page()) == 333
    attached(a)


def test_nothing_counts_twice_or_not_at_all_while_the_programs_move(agent, family, tree, sink):
    t = family(tree["a"], tree["a"])
    ask(t, "udp 127.0.0.1 0")
    a = agent("--comm", t.name, prefix=CAPABLE)
    attached(a)
    before = sent(a.next_page())
    many = int(300000 / SLOW)
    order(t, f"send 127.0.0.2 {port_of(sink)} 10 {many}")
    wait_until("it is sending", lambda: sent(a.page()) > before)
    move(t.child, tree["b"])
    assert int(t.read()) == 10 * many
    page = a.next_page()
    assert programs(tree[""]) == 2
    # One packet may be between the two programs at the very moment.
    assert many <= sent(page) - before <= many + 1


@pytest.mark.parametrize("gone", [False, True], ids=["the group stays", "the group is removed"])
def test_a_socket_made_in_another_group(agent, target, tree, sink, gone):
    t = target("network", prefix=in_group(tree["a/a"]))
    ask(t, "udp 127.0.0.1 0")
    move(t.pid, tree["b"])
    if gone:
        remove_group(tree["a/a"])
    a = agent("--pid", t.pid)
    attached(a)
    send(t, sink, 12)
    assert sent(a.next_page()) == 12
    assert (programs(tree[""]), programs(tree["b"])) == (2, 0)


@pytest.mark.parametrize("socket_from", ["inside", "outside"])
def test_the_processes_of_a_watched_group(agent, target, tree, sink, socket_from):
    one = target("network", prefix=in_group(tree["a/a"]))
    two = target("network", prefix=in_group(tree["a" if socket_from == "inside" else "b"]))
    for t in one, two:
        ask(t, "udp 127.0.0.1 0")
    move(two.pid, tree["a"])
    a = agent("--cgroup", tree["a"])
    assert a.value("boxo_agent_target_processes") == 2
    send(one, sink, 5)
    send(two, sink, 8)
    assert sent(a.next_page()) == 13
    assert (programs(tree["a"]), programs(tree[""])) == ((2, 0) if socket_from == "inside" else (0, 2))


@pytest.mark.parametrize("outside", ["first", "second"])
def test_another_process_of_a_watched_group_becomes_the_main_one(agent, target, tree, sink, outside):
    """One of them has a socket from outside the group. Nothing is missed on the way."""
    first = target("network", prefix=in_group(tree["b" if outside == "first" else "a"]))
    second = target("network", prefix=in_group(tree["b" if outside == "second" else "a"]))
    for t in first, second:
        ask(t, "udp 127.0.0.1 0")
        move(t.pid, tree["a"])
    a = agent("--cgroup", tree["a"])
    assert a.value("boxo_agent_target_processes") == 2
    assert (programs(tree["a"]), programs(tree[""])) == (0, 2)
    before, many = sent(a.next_page()), int(300000 / SLOW)
    order(second, f"send 127.0.0.2 {port_of(sink)} 10 {many}")
    wait_until("it is sending", lambda: sent(a.page()) > before)
    first.popen.kill()
    wait_until("the first is gone", lambda: a.value("boxo_agent_target_processes") == 1)
    assert int(second.read()) == 10 * many
    assert many <= sent(a.next_page()) - before <= many + 1
    assert (programs(tree["a"]), programs(tree[""])) == ((2, 0) if outside == "first" else (0, 2))


def test_who_leaves_a_watched_group_does_not_take_the_programs_along(agent, target, tree, sink):
    one, two = (target("network", prefix=in_group(tree["a"])) for _ in range(2))
    a = agent("--cgroup", tree["a"])
    assert a.value("boxo_agent_target_processes") == 2
    move(two.pid, tree["b"])
    wait_until("it has left", lambda: a.value("boxo_agent_target_processes") == 1)
    a.next_page()
    assert (programs(tree["a"]), programs(tree[""])) == (2, 0)
    ask(one, "udp 127.0.0.1 0")
    send(one, sink, 5)
    assert sent(a.next_page()) == 5


def test_the_packets_of_others_in_the_common_group_are_not_the_targets(agent, family, target, tree, sink):
    t, other = family(tree["a"], tree["b"]), target("network", prefix=in_group(tree["b"]))
    a = agent("--pid", t.pid)
    for one, count in ((t, 4), (other, 50)):
        ask(one, "udp 127.0.0.1 0")
        send(one, sink, count)
    page = a.next_page()
    assert sent(page) == 4 and page.value(REMOTE, remote="127.0.0.2", protocol="udp", direction="sent") == 400


def test_with_a_pid_a_child_that_is_moved_later_makes_the_metrics_absent(agent, family, tree, sink):
    """The privilege to follow it has been given up."""
    t = family(tree["a"], tree["a"])
    a = agent("--pid", t.pid)
    attached(a)
    ask(t, "udp 127.0.0.1 0")
    send(t, sink, 5)
    assert sent(a.next_page()) == 5
    move(t.child, tree["b"])
    page = a.next_page()
    assert page.value("boxo_agent_probe_up", probe="udp") == 0
    assert (sent(page), page.sum(BYTES), page.sum(REMOTE), page.sum(SOCKET_BYTES, protocol="udp")) == (None,) * 4
    for metric in BYTES, PACKETS, REMOTE, SOCKET_BYTES + '{protocol="udp"}':
        reason = reason_of(page, metric)
        assert "another cgroup than the main process" in reason and reason.endswith("start the agent anew"), reason
    assert a.log().count("start the agent anew") == 1
    b = agent("--pid", t.pid)
    send(t, sink, 6)
    assert sent(b.next_page()) == 6


# Makes a child in the group, by clone3 (struct clone_args of 88 bytes), whose parent waits until it ends.
BEGINS_ELSEWHERE = """
import ctypes, os, struct, sys
where = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
args = ctypes.create_string_buffer(struct.pack("11Q", 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, where))
ctypes.CDLL(None).prctl(15, sys.argv[3].encode())  # PR_SET_NAME
print("READY", flush=True)
sys.stdin.readline()
pid = ctypes.CDLL(None, use_errno=True).syscall(435, args, 88)
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:3])
if pid < 0:
    print("REFUSED", os.strerror(ctypes.get_errno()), flush=True)
os.waitpid(pid, 0)
"""


def test_a_child_that_begins_in_another_group(agent, tree, sink):
    name = unique()
    with subprocess.Popen([*in_group(tree["a"]), sys.executable, "-c", BEGINS_ELSEWHERE, tree["b"], TARGETS / "network", name],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as p:
        t = TargetProgram(p)
        assert t.read() == "READY"
        a = agent("--comm", name, prefix=CAPABLE)
        attached(a)
        assert (programs(tree["a"]), programs(tree[""])) == (2, 0)
        assert t.tell("go") == "READY", "the child's"
        page = a.next_page()
        assert (programs(tree["a"]), programs(tree[""])) == (0, 2)
        ask(t, "udp 127.0.0.1 0")
        send(t, sink, 9)
        assert page.value("boxo_agent_target_processes") == 2 and sent(a.next_page()) == 9
        p.stdin.close()


def test_one_that_came_and_went_tells_where_the_next_may_be(agent, copy, tree, sink):
    """Children that are elsewhere and live for less than an interval: only the first may be missed."""
    script = f"""echo $$ > {tree["a"]}/cgroup.procs; echo READY; while read line; do
        sh -c 'echo $$ > {tree["b"]}/cgroup.procs; exec "$@"' sh {TARGETS}/network < "$line" | tr '\\n' ' '; echo; done"""
    shell = copy(shutil.which("sh"))
    with subprocess.Popen([shell, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        t = TargetProgram(p)
        assert t.read() == "READY"
        a = agent("--comm", shell.name, prefix=CAPABLE)
        attached(a)
        assert t.tell("/dev/null") == "READY"
        a.next_page()
        assert (programs(tree["a"]), programs(tree[""])) == (0, 2)
        with open_orders(f"udp 127.0.0.1 0\nsend 127.0.0.2 {port_of(sink)} 100 11\n") as orders:
            answer = t.tell(str(orders)).split()
        assert answer[0] == "READY" and answer[2] == "1100"
        assert sent(a.next_page()) == 11
        p.stdin.close()


@contextlib.contextmanager
def open_orders(text):
    path = pathlib.Path(f"/var/tmp/{unique()}")
    path.write_text(text)
    try:
        yield path
    finally:
        path.unlink()


def test_a_target_that_comes_back_in_one_group_is_counted_there_alone(agent, family, target, tree, sink, tmp_path):
    (tmp_path / "again").mkdir()
    t = family(tree["a"], tree["b"])
    a = agent("--comm", t.name, prefix=CAPABLE)
    ask(t, "udp 127.0.0.1 0")
    send(t, sink, 5)
    assert sent(a.next_page()) == 5
    assert programs(tree[""]) == 2
    t.popen.kill()
    os.kill(t.child, signal.SIGKILL)
    wait_until("it is gone", lambda: a.value("boxo_agent_target_up") == 0)
    program = shutil.copy(TARGETS / "network", tmp_path / "again" / t.name)
    again = target(program, prefix=in_group(tree["b"]))
    wait_until("it is back", lambda: a.value("boxo_agent_target_up") == 1)
    a.next_page()
    ask(again, "udp 127.0.0.1 0")
    send(again, sink, 6)
    assert sent(a.next_page()) == 11
    assert (programs(tree["b"]), programs(tree[""])) == (2, 0)


def test_where_the_agent_sees_no_group_above_all_of_them(agent, family, tree, sink):
    """A container's own part of the hierarchy is mounted, and a child is beside it."""
    top = "/sys/fs/cgroup"
    inner = f'mount --make-rprivate / && mount -t tmpfs none {top} && mount -t cgroup2 none {top} && exec "$@"'
    prefix = ["sh", "-c", f"echo $$ > {tree['a']}/cgroup.procs && exec unshare --cgroup --mount sh -c '{inner}' sh \"$@\"", "sh"]
    t = family(tree["a"], tree["a"])
    ask(t, "udp 127.0.0.1 0")
    a = agent("--comm", t.name, prefix=prefix)
    attached(a)
    send(t, sink, 5)
    assert sent(a.next_page()) == 5
    move(t.child, tree["b"])
    page = a.next_page()
    assert sent(page) is None and page.sum(SOCKET_BYTES, protocol="udp") is None
    reason = reason_of(page, BYTES)
    assert "none that is above all of them" in reason and "mount the host's cgroup file system" in reason
    t.popen.kill()
    os.kill(t.child, signal.SIGKILL)
    wait_until("it is gone", lambda: a.value("boxo_agent_target_up") == 0)
    assert sent(a.next_page()) is None, "while it is not known better"
    a.stop()


# Takes a socket over the one that is its standard input and sends as many datagrams as each message on it asks for.
TAKES = """
import os, socket, sys
give = socket.socket(fileno=0)
(fd,) = socket.recv_fds(give, 1, 1)[1]
taken = socket.socket(fileno=fd)
while line := give.recv(100):
    for _ in range(int(line)):
        taken.sendto(bytes(100), ("127.0.0.2", int(sys.argv[1])))
    give.send(b"done")
"""


@pytest.mark.skipif("readers" in TOO_OLD, reason="before Linux 6.1 no iterator looks at one process")
def test_a_socket_that_was_handed_over(agent, tree, sink):
    """Nobody tells of that: it is found when all are looked at again."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine, subprocess.Popen([*in_group(tree["a"]), sys.executable, "-c", TAKES, str(port_of(sink))], stdin=theirs) as p:
        theirs.close()

        def ask_for(count):
            mine.send(str(count).encode())
            assert mine.recv(100) == b"done"

        a = agent("--cgroup", tree["a"], prefix=CAPABLE)
        attached(a)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
            socket.send_fds(mine, [b"x"], [given.fileno()])
        ask_for(0)

        def seen():
            ask_for(1)
            return sent(a.page()) > 0

        wait_until("it is found", seen, 60)
        before = sent(a.next_page())
        ask_for(70)
        assert sent(a.next_page()) == before + 70
        assert (programs(tree["a"]), programs(tree[""])) == (0, 0), "the socket is the test's, which is in the root group"
        attached(a)
        mine.close()
