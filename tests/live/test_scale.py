# SPDX-License-Identifier: MIT OR Apache-2.0
"""What must hold however scarce or many things are: descriptors, threads, sockets, children."""
import os
import pathlib
import resource
import subprocess
import sys
import time

import pytest

from conftest import CLOCK_TICK, at_rest, wait_until

# Each of the times of a process is cut off at a clock tick.
CPU_SLACK = 4 / CLOCK_TICK + 0.01


def stat(pid):
    """The fields of /proc/PID/stat from the third on."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


@pytest.mark.parametrize("bpf", [("--no-bpf",), ()], ids=["proc", "bpf"])
def test_nothing_is_counted_twice_when_descriptors_run_out(agent, target, bpf):
    if not bpf and os.geteuid():
        pytest.skip("BPF needs root")
    t = target("switches")
    a = agent(*bpf, "--pid", t.pid)
    t.tell("switch 2000")
    a.next_page()
    name = "boxo_resource_context_switches_total"
    whole = resource.prlimit(a.pid, resource.RLIMIT_NOFILE)
    for count in (100, 200):
        resource.prlimit(a.pid, resource.RLIMIT_NOFILE, (3, whole[1]))
        try:
            time.sleep(0.7)  # three ticks at which nothing can be opened
        finally:
            resource.prlimit(a.pid, resource.RLIMIT_NOFILE, whole)
        voluntary = int(t.tell(f"switch {count}").split()[0])
        at_rest(t.pid)
        page = a.next_page(2)
        # Waiting for the next command is a switch that the answer does not contain yet.
        assert page.value(name, type="voluntary") == voluntary + 1
        fields = stat(t.pid)
        assert page.value("boxo_resource_page_faults_total", type="minor") == int(fields[7])
        assert page.sum("boxo_resource_cpu_seconds_total") == pytest.approx(
            (int(fields[11]) + int(fields[12])) / CLOCK_TICK, abs=CPU_SLACK)


# --- the iterators tell what /proc and sock_diag tell ---------------------------------------------------------------

MIXED = r"""
import os, socket, sys, threading, time
keep = []
def pair(family, host, protocol=0):
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    listener.bind((host, 0)); listener.listen(7); keep.append(listener)
    for i in range(4):
        client = socket.socket(family, socket.SOCK_STREAM, protocol)
        client.connect(listener.getsockname()); keep.append(client)
        if i == 3: break                                  # not accepted
        server = listener.accept()[0]; keep.append(server)
        client.sendall(b"x" * 70000 * (i + 1)); got = 0
        while got < 70000 * (i + 1) - 100: got += len(server.recv(min(65536, 70000 * (i + 1) - 100 - got)))
        if i == 2: client.shutdown(socket.SHUT_WR)        # close_wait over there, fin_wait2 here
pair(socket.AF_INET, "127.0.0.1")
pair(socket.AF_INET6, "::1")
try: pair(socket.AF_INET, "127.0.0.1", 262)               # MPTCP
except OSError: pass
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
udp.bind(("127.0.0.1", 0)); sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sender.connect(udp.getsockname())
for _ in range(40): sender.send(b"y" * 1000)
keep += [udp, sender, socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_STREAM)]
keep += socket.socketpair(); keep += socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
path = sys.argv[1]; server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen(3); keep.append(server)
keep.append(socket.socket(socket.AF_UNIX))
stop = threading.Event()
for _ in range(200): threading.Thread(target=stop.wait, daemon=True).start()
if os.fork() == 0:                                         # shares all of them
    keep.append(socket.socketpair())
    sys.stdin.read(); os._exit(0)
time.sleep(0.3)
print("READY", flush=True)
sys.stdin.read()
"""

SAME = ("boxo_network_sockets", "boxo_network_socket_queue_bytes", "boxo_network_tcp_accept_queue",
        "boxo_network_tcp_accept_queue_ratio", "boxo_network_udp_drops_total", "boxo_network_socket_bytes_total",
        "boxo_network_tcp_segments_total", "boxo_network_active_connections", "boxo_resource_threads",
        "boxo_resource_context_switches_total", "boxo_resource_cpu_wait_seconds_total")


def told(page, names):
    return {(s.name, *sorted(s.labels.items())): s.value for s in page.samples if s.name in names}


@pytest.mark.parametrize("prefix", [(), ("unshare", "--net", "sh", "-c", "ip link set lo up 2>/dev/null; exec \"$@\"", "-"),
                                    ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")],
                         ids=["direct", "network_namespace", "pid_namespace"])
def test_iterators_tell_what_proc_and_sock_diag_tell(agent, tmp_path, prefix):
    if os.geteuid():
        pytest.skip("BPF needs root")
    node = subprocess.Popen([*prefix, sys.executable, "-c", MIXED, tmp_path / "s"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    try:
        if node.stdout.readline() != "READY\n":
            pytest.skip("not possible here")
        by_files = agent("--no-bpf", "--pid", node.pid)
        by_kernel = agent("--pid", node.pid, "--no-probe", "udp")
        why = [s.labels["reason"] for s in by_kernel.page().all("boxo_agent_probe_info", probe="readers")]
        if why != ["attached"]:
            pytest.skip(f"no iterators here: {why}")
        page = by_kernel.next_page(2)
        for name in ("boxo_network_active_connections", "boxo_network_sockets", "boxo_network_socket_bytes_total",
                     "boxo_resource_threads", "boxo_network_tcp_retransmits_total"):
            assert page.value("boxo_agent_metric_source_info", metric=name, source="kernel") == 1, name
        for page_of, source in ((page, "proc"), (by_files.page(), "proc")):
            assert page_of.value("boxo_agent_metric_source_info", metric="boxo_network_udp_drops_total", source=source) == 1
        expected = told(by_files.next_page(), SAME)
        got = told(page, SAME)
        assert expected["boxo_network_udp_drops_total", ("reason", "socket")] > 0
        assert expected["boxo_resource_threads", ("state", "sleeping")] >= 202
        # A background thread of the interpreter may run once between the two looks.
        wait = ("boxo_resource_cpu_wait_seconds_total",)
        assert got.pop(wait) == pytest.approx(expected.pop(wait), abs=0.05)
        assert got == expected
        # The round-trip times are those of the same connections, at every collection.
        for name in ("boxo_network_tcp_rtt_seconds",):
            a, b = by_files.page(), by_kernel.page()
            assert a.value(f"{name}_sum") / a.value(f"{name}_count") == pytest.approx(
                b.value(f"{name}_sum") / b.value(f"{name}_count"), rel=1e-6)
    finally:
        node.stdin.close()
        node.kill()
        node.wait()


# --- what is dear has a budget ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("bpf", [("--no-bpf",), ()], ids=["proc", "bpf"])
def test_many_sockets_are_read_for_a_fiftieth_of_the_time(agent, target, bpf):
    if not bpf and os.geteuid():
        pytest.skip("BPF needs root")
    pairs = 5000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2 * pairs + 100:
        pytest.skip("too few descriptors")
    t = target("sockets", pairs, prefix=("sh", "-c", 'ulimit -n $(ulimit -Hn); exec "$@"', "-"))
    a = agent(*bpf, "--pid", t.pid, interval="100ms")
    without = agent(*bpf, "--pid", t.pid, "--no-collector", "sockets", interval="100ms")

    def age(page):
        return page.value("boxo_agent_collector_age_seconds", collector="sockets")

    def readings(page):
        count = page.value("boxo_network_tcp_rtt_seconds_count") / (2 * pairs)
        assert count == int(count), "a reading that is shown again is no observation"
        return count

    assert wait_until("an earlier reading is shown again", lambda: age(a.page()) > 0)
    a.next_page(20)  # what is read and opened once is over
    name = "boxo_agent_cpu_seconds_total"

    def within_budget():
        """The pages of five seconds and at least one reading, if they cost 2 % and what it takes to show them again."""
        begin, first, other = time.monotonic(), a.page(), without.page()
        pages = [first]
        while time.monotonic() < begin + 5 or readings(pages[-1]) == readings(first) and time.monotonic() < begin + 60:
            time.sleep(0.1)
            pages.append(a.page())  # as often as the other's: a page costs as well
            without.page()
        spent = time.monotonic() - begin
        assert 1 <= readings(pages[-1]) - readings(first) < 0.8 * spent / 0.1
        rest = without.value(name) - other.value(name)
        shares.append((pages[-1].value(name) - first.value(name) - rest) / spent)
        return shares[-1] < 0.04 and pages

    # Others on this machine may make every instruction dearer for a while.
    shares = []
    try:
        pages = wait_until("five seconds within the budget", within_budget, 180)
    except pytest.fail.Exception:
        pytest.fail(f"never five seconds within the budget: {shares}")
    for page in pages:
        assert page.sum("boxo_network_sockets", protocol="tcp") == 2 * pairs + 1
        assert page.value("boxo_network_packet_loss_rate") is not None
        assert age(page) < 30
    # Bytes and rates are those of the time between two readings.
    name = "boxo_network_socket_bytes_total"

    def seen():
        t.tell("move 100")
        page = a.next_page()
        at = page.value("boxo_agent_last_collection_timestamp_seconds") - age(page)
        return readings(page), at, page.sum(name, protocol="tcp"), page.value("boxo_network_bandwidth_bytes_per_second")

    def one_after_the_other():
        nonlocal last
        before, last = last, seen()
        tried.append((before, last))
        # Between a reading and the time that the page tells for it others may have the CPU.
        return last[0] == before[0] + 1 and last[2] > before[2] and last[3] == pytest.approx(
            (last[2] - before[2]) / (last[1] - before[1]), rel=0.2)

    last, tried = seen(), []
    try:
        wait_until("two readings in a row, and bytes between them", one_after_the_other, 120)
    except pytest.fail.Exception:
        pytest.fail(f"the bandwidth is not that between two readings: {tried}")


# --- children -------------------------------------------------------------------------------------------------------

def test_a_hundred_children_between_two_collections(agent, target):
    t = target("children")
    a = agent("--pid", t.pid)
    a.next_page()
    # Own and children's user and system time in microseconds, then the faults of both, by getrusage().
    answer = [int(x) for x in t.tell("reap 10 100").split()]
    page = a.next_page(2)
    assert page.sum("boxo_resource_cpu_seconds_total") == pytest.approx(sum(answer[:4]) / 1e6, abs=CPU_SLACK)
    assert sum(answer[2:4]) / 1e6 > 0.9
    faults = page.value("boxo_resource_page_faults_total", type="minor")
    assert answer[4] + answer[5] <= faults <= answer[4] + answer[5] + 20


@pytest.mark.parametrize("bpf", [("--no-bpf",), ()], ids=["proc", "bpf"])
def test_new_processes_are_found_and_ended_ones_let_go(agent, bpf):
    """Also where the kernel is asked whether the target has forked, and /proc is listed only then."""
    script = ("import os, sys\n"
              "children = []\n"
              "for line in sys.stdin:\n"
              "    if line == 'fork\\n':\n"
              "        pid = os.fork()\n"
              "        if pid == 0:\n"
              "            if os.fork() == 0: pass\n"
              "            import signal; signal.pause()\n"
              "        children.append(pid)\n"
              "    else:\n"
              "        os.killpg(0, 0); pid = children.pop(); os.kill(pid, 9); os.waitpid(pid, 0)\n"
              "    print('done', flush=True)\n")
    node = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            start_new_session=True)

    def tell(line):
        node.stdin.write(line + "\n")
        node.stdin.flush()
        assert node.stdout.readline() == "done\n"

    try:
        a = agent(*bpf, "--pid", node.pid)
        for _ in range(5):
            a.next_page()
        expected = 1
        for _ in range(3):
            tell("fork")
            expected += 2
            assert wait_until("all are found", lambda: (v := a.value("boxo_agent_target_processes")) == expected and v)
            a.next_page(2)
        tell("end")  # its child lives on, and is still the target's
        assert wait_until("it is let go", lambda: a.value("boxo_agent_target_processes") == expected - 1)
        a.next_page(2)
        assert a.value("boxo_agent_target_processes") == expected - 1
    finally:
        os.killpg(node.pid, 9)
        node.wait()
