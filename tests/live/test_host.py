# SPDX-License-Identifier: MIT OR Apache-2.0
"""What /proc, cgroups, sock_diag and file systems tell, held against programs whose numbers are known."""
import os
import pathlib
import re
import select
import signal
import subprocess
import time

import pytest

from conftest import CLOCK_TICK, at_rest, children, wait_until

MIB = 1 << 20
INNER = ("unshare", "--fork", "--kill-child")
# How the program is reached: its own pid; its pid inside another pid namespace; the pid of its parent.
WAYS = {"direct": (), "namespace": (*INNER, "--pid", "--mount-proc"), "child": INNER}


def proc(pid, file, key):
    """The number behind `key` in /proc/PID/FILE."""
    for line in pathlib.Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise KeyError(key)


class Watched:
    """A target program with an agent that watches it in one of the WAYS."""

    def __init__(self, way, agent, target, *args, options=(), **popen):
        self.program = target(*args, prefix=WAYS[way], **popen)
        self.pid = children(self.program.pid)[0] if WAYS[way] else self.program.pid
        # The parent is part of the target then; it only waits, so what it has counted stands still.
        self.extra = [self.program.pid] if way == "child" else []
        self.agent = agent("--no-bpf", "--pid", self.extra[0] if self.extra else self.pid, *options)

    def tell(self, line):
        return [int(x) for x in self.program.tell(line).split()]

    def of_extra(self, file, key):
        return sum(proc(pid, file, key) for pid in self.extra)

    def page(self):
        return self.agent.next_page()

    def page_at_rest(self):
        at_rest(self.pid)
        return self.page()


@pytest.fixture(params=WAYS)
def watched(request, agent, target, tmp_path):
    def start(*args, **options):
        return Watched(request.param, agent, target, *args, cwd=tmp_path, **options)

    return start


@pytest.fixture
def directly(agent, target, tmp_path):
    def start(*args, **options):
        return Watched("direct", agent, target, *args, cwd=tmp_path, **options)

    return start


# --- threads and context switches -----------------------------------------------------------------------------------

def threads(page):
    return {s.labels["state"]: int(s.value) for s in page.all("boxo_resource_threads")}


def test_context_switches(watched):
    w = watched("switches")
    for count in (300, 500):
        voluntary, _ = w.tell(f"switch {count}")
        page = w.page_at_rest()
        name = "boxo_resource_context_switches_total"
        parent = w.of_extra("status", "voluntary_ctxt_switches")
        # Waiting for the next command is a switch that the answer does not contain yet.
        assert page.value(name, type="voluntary") == voluntary + 1 + parent
        # A preemption may have come between the answer and that wait.
        involuntary = proc(w.pid, "status", "nonvoluntary_ctxt_switches") + w.of_extra("status", "nonvoluntary_ctxt_switches")
        assert page.value(name, type="involuntary") == involuntary


@pytest.mark.parametrize("bpf", [True, False])
@pytest.mark.parametrize("main,second", [(0, 3000), (3000, 300)])
def test_a_thread_that_calls_exec_goes_on_with_what_it_had(agent, target, bpf, main, second):
    t = target("switches")
    name = "boxo_resource_context_switches_total"
    a = agent("--pid", t.pid, *([] if bpf else ["--no-bpf"]))
    t.tell(f"switch {main}")
    t.tell(f"thread {second}")
    at_rest(t.pid)
    waited = run_queue_seconds(t.pid)
    before = a.next_page(2)
    assert before.sum("boxo_resource_threads") == 2
    assert t.tell("exec") == "READY"
    assert a.next_page().sum("boxo_resource_threads") == 1
    # The kernel's own count goes over the exec with all that the ended thread had.
    voluntary, involuntary = map(int, t.tell("switch 500").split())
    at_rest(t.pid)
    page, later = a.next_page(), int(t.tell("switch 0").split()[1])  # a preemption may have come after the first answer
    # Between the last look and the exec each of the two threads may have waited a few times that nobody saw.
    assert voluntary + 1 - 10 <= page.value(name, type="voluntary") <= voluntary + 1
    assert involuntary - 10 <= page.value(name, type="involuntary") <= later
    wait = "boxo_resource_cpu_wait_seconds_total"
    assert page.value(wait) - before.value(wait) < max(run_queue_seconds(t.pid)) - min(waited) + 1


def run_queue_seconds(pid):
    """How long each thread of the process has waited for a CPU."""
    return [int((task / "schedstat").read_text().split()[1]) / 1e9 for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]


def test_threads_by_state(watched):
    w = watched("threads", 7, 1, 2, 3, 4)
    page = w.page()
    # 7 and the main one; 2 children of vfork; the parent if it is watched.
    assert threads(page) == {"running": 1, "sleeping": 8 + 2 + len(w.extra), "disk_sleep": 2, "stopped": 3, "zombie": 4,
                             "idle": 0}


def test_many_threads_and_their_switches_when_they_end(watched):
    def so_many(number):
        wait_until(f"{number} threads", lambda: len(os.listdir(f"/proc/{w.pid}/task")) == number)
        page = w.page_at_rest()
        assert threads(page)["sleeping"] == number + len(w.extra)
        return page

    w = watched("threads", 500)
    so_many(501)
    before = w.page().value("boxo_resource_context_switches_total", type="voluntary")
    w.tell("end 200")
    so_many(301)
    total, _ = w.tell("start 300")
    now = so_many(601).value("boxo_resource_context_switches_total", type="voluntary")
    # A thread that ends between two collections takes its last switches with it: none more than one each here.
    parent = w.of_extra("status", "voluntary_ctxt_switches")
    assert now >= before
    assert total + parent - 200 <= now <= total + parent + 601


# --- CPU and children -----------------------------------------------------------------------------------------------

def cpu(page):
    return page.sum("boxo_resource_cpu_seconds_total")


# Each of the four times of a process is cut off at a clock tick.
CPU_SLACK = 4 / CLOCK_TICK + 0.01


def used(answer):
    return sum(answer[:4]) / 1e6


def parent_cpu(w):
    """What a watched parent used itself."""
    fields = [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in w.extra]
    return sum(int(f[11]) + int(f[12]) for f in fields) / CLOCK_TICK


def test_cpu_of_the_process_and_of_its_children(watched):
    w = watched("children")
    for command in ("burn 300", "reap 200", "reap 30 10"):
        answer = w.tell(command)
        page = w.page()
        assert cpu(page) == pytest.approx(used(answer) + parent_cpu(w), abs=CPU_SLACK), command
        # Faults are counted one by one: exact, children and all,
        parent = sum(int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[7]) for pid in w.extra)
        faults = page.value("boxo_resource_page_faults_total", type="minor")
        # but for what answering itself may touch.
        assert answer[4] + answer[5] + parent <= faults <= answer[4] + answer[5] + parent + 20


def test_a_child_that_nobody_waits_for_is_not_lost(watched):
    w = watched("children")
    w.tell("burn 1")
    before = cpu(w.page())
    w.tell("forget 300")
    child, = children(w.pid)
    at_rest(child)
    assert used_ticks(child) >= 0.3 * CLOCK_TICK - 2
    w.page()  # it is seen
    os.kill(child, signal.SIGTERM)
    wait_until("it ended", lambda: not children(w.pid))
    assert cpu(w.page()) - before == pytest.approx(0.3, abs=CPU_SLACK + 0.05)


def test_a_thousand_short_children(watched):
    w = watched("children")
    answer = w.tell("reap 0 1000")
    page = w.page()
    faults = page.value("boxo_resource_page_faults_total", type="minor")
    assert answer[4] + answer[5] <= faults <= answer[4] + answer[5] + 400
    assert cpu(page) == pytest.approx(used(answer) + parent_cpu(w), abs=CPU_SLACK + 0.02)


def test_cpu_usage_percent(directly):
    w = directly("threads", 0, 1)  # one that spins
    w.agent.next_page(2)

    def agree():
        """Whether the page's share is that of the same time, which others on this machine may leave hardly anything of."""
        least, since = used_ticks(w.pid), time.monotonic()
        page = w.agent.next_page(2)
        truth = (used_ticks(w.pid) - least) / CLOCK_TICK / (time.monotonic() - since) * 100
        return abs(page.value("boxo_resource_cpu_usage_percent") - truth) <= 10

    for _ in range(5):
        wait_until("they agree", agree)


def used_ticks(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_start_time(directly):
    before = time.time()
    w = directly("switches")
    started = w.page().value("boxo_resource_start_time_seconds")
    assert before - 0.1 <= started <= time.time()
    assert w.page().value("boxo_resource_start_time_seconds") == started


# --- memory ---------------------------------------------------------------------------------------------------------

def memory(page):
    return {s.labels["type"]: s.value for s in page.all("boxo_resource_memory_bytes")}


def test_memory_by_kind(watched):
    w = watched("memory")
    start = memory(w.page())
    faults = w.tell("faults")
    w.tell("anon 24")
    w.tell("shmem 8")
    w.tell("file 16")
    w.tell("map 100")
    page = w.page()
    now = memory(page)
    assert now["anon"] - start["anon"] == pytest.approx(24 * MIB, abs=MIB)
    assert now["shmem"] - start["shmem"] == 8 * MIB
    assert now["file"] - start["file"] == pytest.approx(16 * MIB, abs=MIB)
    assert now["virtual"] - start["virtual"] >= 148 * MIB
    assert now["rss"] == now["anon"] + now["file"] + now["shmem"]
    assert page.value("boxo_resource_memory_usage_bytes") == now["rss"]
    assert now["swap"] == 0
    # At least one a page, but of a file the kernel maps several at once. Linux 5.9 to 5.19 call it a major fault when a page
    # that is shared becomes dirty.
    assert sum(w.tell("faults")) - sum(faults) >= 32 * MIB // 4096
    parent = sum(int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[7]) for pid in w.extra)
    counted = w.page().value("boxo_resource_page_faults_total", type="minor")
    assert counted == pytest.approx(w.tell("faults")[0] + parent, abs=20)
    w.tell("drop")
    gone = memory(w.page())
    assert gone["anon"] - start["anon"] < MIB and gone["shmem"] == start["shmem"]


def test_pss(agent, target, tmp_path):
    # What is shared counts by how many share it, and of a library those come and go: so it is mostly memory of its own.
    t = target("memory", cwd=tmp_path)
    t.tell("anon 24")
    t.tell("shmem 8")
    page = agent("--no-bpf", "--pid", t.pid).next_page()
    truth = proc(t.pid, "smaps_rollup", "Pss:") * 1024
    assert memory(page)["pss"] == pytest.approx(truth, abs=MIB / 2)


def test_pss_counts_once_what_the_processes_of_the_target_share(agent, target, tmp_path):
    t = target("memory", cwd=tmp_path)
    t.tell("shmem 24")
    assert t.tell("fork") == "READY"
    child, = children(t.pid)
    a = agent("--no-bpf", "--pid", t.pid)
    page = wait_until("both are seen", lambda: (p := a.next_page()).sum("boxo_resource_threads") == 2 and p)
    now = memory(page)
    truth = sum(proc(pid, "smaps_rollup", "Pss:") for pid in (t.pid, child)) * 1024
    assert now["pss"] == pytest.approx(truth, abs=MIB / 2)
    assert 24 * MIB <= now["pss"] < 25 * MIB
    assert now["shmem"] == 48 * MIB


# --- a process without its main thread --------------------------------------------------------------------------------

HEADLESS_MIB, HEADLESS_FDS = 32, 5


def same_as_thread(page, pid, tid, extra):
    """The page says what /proc shows of a thread that lives; of the main one it shows a zombie with nothing."""
    of_thread = f"{pid}/task/{tid}"
    assert proc(pid, "status", "FDSize:") == 0, "the main thread has ended"
    now = memory(page)
    for kind, key in (("rss", "VmRSS:"), ("anon", "RssAnon:"), ("virtual", "VmSize:")):
        truth = proc(of_thread, "status", key) + sum(proc(one, "status", key) for one in extra)
        assert now[kind] == pytest.approx(truth * 1024, rel=0.02), kind
    assert now["anon"] >= HEADLESS_MIB * MIB and now["pss"] >= HEADLESS_MIB * MIB
    assert page.value("boxo_resource_memory_usage_bytes") == now["rss"]
    assert page.value("boxo_resource_open_fds") == 3 + HEADLESS_FDS + 3 * len(extra)
    assert sockets(page) == {("udp", "unconnected"): 1}
    assert threads(page) == {"running": 0, "sleeping": 1 + len(extra), "zombie": 1, "disk_sleep": 0, "stopped": 0, "idle": 0}
    assert page.value("boxo_agent_target_up") == 1 and page.value("boxo_agent_target_restarts_total") == 0
    absent = {s.labels["metric"] for s in page.all("boxo_agent_metric_absent_info")}
    # Of the machine's own network namespace, or there.
    assert [s for s in page.all("boxo_agent_metric_absent_info", metric="boxo_network_interface_bytes_total")
            if "host's network namespace" not in s.labels["reason"]] == []
    assert not absent & {"boxo_resource_memory_bytes", "boxo_network_sockets", "boxo_resource_disk_usage_bytes", "boxo_resource_open_fds"}


@pytest.mark.parametrize("how", ("pid", "comm", "child"))
@pytest.mark.parametrize("bpf", (True, False))
def test_a_process_whose_main_thread_has_ended(agent, target, tmp_path, how, bpf):
    t = target("headless", HEADLESS_MIB, HEADLESS_FDS, int(how == "child"), cwd=tmp_path, env={**os.environ, "IPFS_PATH": "/dev/shm"})
    pid = children(t.pid)[0] if how == "child" else t.pid
    extra = [t.pid] if how == "child" else []
    options = ("--comm", "headless") if how == "comm" else ("--pid", t.pid)
    a = agent(*options, *(() if bpf else ("--no-bpf",)), interval="200ms")
    tid = int(t.ready.split()[1])
    same_as_thread(a.next_page(3), pid, tid, extra)
    shm = os.statvfs("/dev/shm")
    assert a.value("boxo_resource_disk_total_bytes") == shm.f_blocks * shm.f_frsize
    # The thread that was looked at ends, another one goes on.
    tid = int(t.tell("end"))
    wait_until("only one goes on", lambda: sorted(os.listdir(f"/proc/{pid}/task")) == sorted([str(pid), str(tid)]))
    same_as_thread(a.next_page(3), pid, tid, extra)
    t.popen.stdin.close()
    wait_until("it is gone", lambda: a.value("boxo_agent_target_up") == 0 or how == "child" and a.value("boxo_agent_target_processes") == 0)


# --- descriptors ----------------------------------------------------------------------------------------------------

def test_descriptors(watched):
    w = watched("files")
    base = len(os.listdir(f"/proc/{w.pid}/fd")) + sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in w.extra)
    for command, opened in (("open 1000", 1000), ("close 400", 600), ("open 1", 601)):
        assert w.tell(command) == [opened]
        assert w.page().value("boxo_resource_open_fds") == base + opened
    w.tell("limit 2000")
    page = w.page()
    rest = [int(line.split()[3]) for pid in w.extra for line in open(f"/proc/{pid}/limits") if line.startswith("Max open")]
    assert page.value("boxo_resource_max_fds") == 2000 + sum(rest)
    own = len(os.listdir(f"/proc/{w.pid}/fd"))
    assert page.value("boxo_resource_fd_usage_ratio") == pytest.approx(own / 2000)


# --- disk -----------------------------------------------------------------------------------------------------------

def test_disk_bytes(watched):
    w = watched("disk")
    before = w.page_at_rest()

    def risen(name, **labels):
        return page.value(name, **labels) - before.value(name, **labels)

    w.program.tell("write 16")
    w.program.tell("read 8")
    w.program.tell("sync 4")
    w.program.tell("cancel 6")
    page = w.page_at_rest()
    # The file system's own blocks (a directory, an allocation bitmap) come on top, if they were not in memory.
    assert 8 * MIB <= risen("boxo_resource_disk_read_bytes_total") <= 8 * MIB + 256 * 1024
    assert 26 * MIB <= risen("boxo_resource_disk_write_bytes_total") <= 26 * MIB + 256 * 1024
    assert risen("boxo_resource_disk_cancelled_write_bytes_total") == pytest.approx(6 * MIB, abs=MIB)
    # What went through the calls: the blocks, the commands and the answers.
    commands, answers = len("write 16\nread 8\nsync 4\ncancel 6\n"), 4 * len("done\n")
    assert risen("boxo_resource_io_bytes_total", operation="read") == 8 * MIB + commands
    assert risen("boxo_resource_io_bytes_total", operation="write") == 26 * MIB + answers
    assert risen("boxo_resource_io_syscalls_total", operation="write") == 26 + 4
    assert risen("boxo_resource_io_syscalls_total", operation="read") == 8 + 4


def test_space(agent, target, tmp_path):
    shm, here = os.statvfs("/dev/shm"), os.statvfs(tmp_path)
    assert shm.f_blocks * shm.f_frsize != here.f_blocks * here.f_frsize
    for options, env, truth in ((("--data-dir", "/dev/shm"), {}, "/dev/shm"), ((), {}, tmp_path), ((), {"IPFS_PATH": "/dev/shm"}, "/dev/shm")):
        a = agent("--no-bpf", "--pid", target("switches", cwd=tmp_path, env={**os.environ, **env}).pid, *options)

        def agree():
            """Whether the page says what the file system does, which others may be writing to."""
            page, room = a.next_page(), os.statvfs(truth)
            total = room.f_blocks * room.f_frsize
            assert page.value("boxo_resource_disk_total_bytes") == total
            assert page.value("boxo_resource_disk_inodes") == room.f_files
            return (page.value("boxo_resource_disk_usage_bytes") == pytest.approx(total - room.f_bfree * room.f_frsize, abs=256 * MIB) and
                    page.value("boxo_resource_disk_available_bytes") == pytest.approx(room.f_bavail * room.f_frsize, abs=256 * MIB))

        wait_until("they agree", agree)


def test_space_in_the_targets_mount_namespace(agent, target, tmp_path):
    """The target's own file system at the path, not what the agent has there."""
    (tmp_path / "data").mkdir()
    mount = f"mount -t tmpfs -o size=64m,nr_inodes=1000 none {tmp_path}/data && exec \"$@\""
    t = target("switches", prefix=("unshare", "--mount", "sh", "-c", mount, "sh"))
    a = agent("--no-bpf", "--pid", t.pid, "--data-dir", tmp_path / "data")
    page = a.next_page()
    assert page.value("boxo_resource_disk_total_bytes") == 64 * MIB
    assert page.value("boxo_resource_disk_inodes") == 1000
    assert page.value("boxo_resource_disk_inodes_used") == 1
    # 48 of 64 MiB: the disk's pressure is at least that.
    with open(f"/proc/{t.pid}/root{tmp_path}/data/x", "wb") as f:
        f.write(b"x" * (48 * MIB))
    page = wait_until("the tmpfs fills", lambda: (p := a.page()).value("boxo_resource_disk_usage_bytes") == 48 * MIB and p)
    assert 0.75 <= page.value("boxo_resource_disk_pressure") <= 1


# --- sockets --------------------------------------------------------------------------------------------------------

def sockets(page):
    return {(s.labels["protocol"], s.labels["state"]): int(s.value) for s in page.all("boxo_network_sockets") if s.value}


def traffic(page):
    return {d: page.value("boxo_network_socket_bytes_total", protocol="tcp", direction=d) for d in ("sent", "received")}


def test_sockets_and_bytes(watched):
    w = watched("sockets", 20, 3, 2)
    expected = {("tcp", "listening"): 1, ("tcp", "established"): 40, ("udp", "unconnected"): 3, ("unix", "connected"): 4}
    page = w.page()
    assert sockets(page) == expected
    assert page.value("boxo_network_active_connections") == 40
    assert traffic(page) == {"sent": 0, "received": 0}
    w.tell("move 100000")
    w.tell("back 1234")
    page = w.page()
    moved = 20 * (100000 + 1234)
    assert traffic(page) == {"sent": moved, "received": moved}
    assert page.value("boxo_network_tcp_retransmits_total") == 0
    w.tell("connect 5")
    # Both ends are here, but nobody has the accepting end yet. Looking whose a new socket is takes a twentieth of the time at
    # the utmost: on a slow machine that is not at every collection.
    page = wait_until("all are found", lambda: sockets(p := w.page())["tcp", "established"] == 45 and p)
    assert page.value("boxo_network_tcp_accept_queue") == 5
    w.tell("close")
    page = w.page()
    assert sockets(page) == {**expected, ("tcp", "established"): 5}
    assert traffic(page) == {"sent": moved, "received": moved}


def test_round_trip_times(watched):
    w = watched("sockets", 10)
    port = w.program.ready.split()[1]
    w.tell("move 5000")
    w.page()
    count, before = "boxo_network_tcp_rtt_seconds_count", w.page()  # where the host has many sockets not each reads them
    after = wait_until("three more readings", lambda: (p := w.page()).value(count) >= before.value(count) + 60 and p)
    told = subprocess.run(["ss", "-Htin", f"sport = :{port} or dport = :{port}"], capture_output=True, text=True, check=True).stdout
    truth = [float(rtt) / 1000 for rtt in re.findall(r" rtt:([0-9.]+)/", told)]
    assert len(truth) == 20
    for name in ("boxo_network_tcp_rtt_seconds", "boxo_network_latency_seconds"):
        count = after.value(name + "_count") - before.value(name + "_count")
        assert count >= 3 * 20 and count % 20 == 0, "20 ends, each once a collection"
        total = after.value(name + "_sum") - before.value(name + "_sum")
        assert total / count == pytest.approx(sum(truth) / 20, rel=0.01, abs=1e-6)
        within = after.value(name + "_bucket", le="0.05") - before.value(name + "_bucket", le="0.05")
        assert within / count == sum(rtt <= 0.05 for rtt in truth) / 20


def test_bandwidth_and_loss(directly):
    w = directly("sockets", 1)
    w.agent.next_page(2)
    w.tell("move 4000000")
    # One of the next pages has the whole burst in its interval, or two have a part each.
    seen = []

    def both():
        page = w.agent.page()
        at = page.value("boxo_agent_last_collection_timestamp_seconds")
        if not seen or seen[-1][0] != at:
            seen.append((at, page.value("boxo_network_bandwidth_bytes_per_second")))
        return len(seen) >= 4 and seen[-1][1] == 0

    wait_until("the bandwidth falls back to 0", both)
    page = w.agent.page()
    assert page.value("boxo_network_packet_loss_rate") == 0


def test_retransmits_and_loss(watched):
    w = watched("sockets", 2)
    w.tell("move 1000")
    assert w.page().value("boxo_network_tcp_retransmits_total") == 0
    rates, times = [0], 0
    # While it loses, hardly anything else than retransmitted segments is sent. Who is held up at that moment sees nothing of it.
    while max(rates) < 0.5 and times < 5:
        w.program.popen.stdin.write("lose 1500\n")
        w.program.popen.stdin.flush()
        while not select.select([w.program.popen.stdout], [], [], 0.02)[0]:
            rates.append(w.agent.value("boxo_network_packet_loss_rate") or 0)
        again, times = int(w.program.read()), times + 1
        assert again >= 2 * times
        page = wait_until("it is counted", lambda: (p := w.page()).value("boxo_network_tcp_retransmits_total") >= again and p)
        assert page.value("boxo_network_tcp_retransmits_total") == again
        assert traffic(page) == {"sent": 2000 + times, "received": 2000 + times}, "what was sent again counts once"
    assert 0.5 <= max(rates) <= 1


def test_udp_drops(watched):
    w = watched("sockets")
    dropped = w.tell("drop 500")[0]
    assert dropped > 400
    page = w.page()
    assert page.value("boxo_network_udp_drops_total", reason="socket") == dropped
    assert sockets(page)["udp", "unconnected"] == 2
    assert w.tell("drop 100")[0] > 50


def test_sockets_in_another_network_namespace(agent, target):
    up = "ip link set lo up && exec \"$@\""
    t = target("sockets", 5, 1, 1, prefix=("unshare", "--net", "sh", "-c", up, "sh"))
    t.tell("move 1000")
    a = agent("--no-bpf", "--pid", t.pid)
    page = a.next_page()
    assert sockets(page) == {("tcp", "listening"): 1, ("tcp", "established"): 10, ("udp", "unconnected"): 1, ("unix", "connected"): 2}
    assert traffic(page) == {"sent": 5000, "received": 5000}


def test_interfaces_and_protocols_of_a_network_namespace(agent, target):
    """As that namespace's /proc/net tells; the host's own are everybody's and are not told."""
    up = "ip link set lo up && exec \"$@\""
    t = target("sockets", 5, 1, 1, prefix=("unshare", "--net", "sh", "-c", up, "sh"))
    t.tell("move 1000")
    dropped = int(t.tell("drop 500").split()[0])
    a = agent("--no-bpf", "--pid", t.pid)
    page = a.next_page(2)
    columns = [line.split(":")[1].split() for line in pathlib.Path(f"/proc/{t.pid}/net/dev").read_text().splitlines() if "lo:" in line][0]
    for i, what in enumerate(("bytes", "packets", "errors", "drops")):
        name = f"boxo_network_interface_{what}_total"
        assert page.value(name, interface="lo", direction="received") == int(columns[i])
        assert page.value(name, interface="lo", direction="sent") == int(columns[8 + i])
    assert int(columns[0]) > 10000
    assert page.value("boxo_network_namespace_events_total", event="udp_receive_buffer_full") == dropped > 0
    assert page.value("boxo_network_namespace_events_total", event="listen_overflow") == 0
    here = agent("--no-bpf", "--pid", os.getpid()).next_page()
    hosts = pathlib.Path("/proc/sys/net/core/netdev_max_backlog").exists()
    assert bool(here.all("boxo_network_interface_bytes_total")) != hosts
    assert bool(here.all("boxo_agent_metric_absent_info", metric="boxo_network_interface_bytes_total")) == hosts


def test_another_network_namespace_without_the_privilege_to_enter_it(agent, target):
    """States from /proc/PID/net; the rest is absent with the reason."""
    up = "ip link set lo up && exec \"$@\""
    t = target("sockets", 5, 1, 1, prefix=("unshare", "--net", "sh", "-c", up, "sh"))
    t.tell("move 1000")
    drop = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    a = agent("--no-bpf", "--pid", t.pid, prefix=drop)
    page = a.next_page()
    assert sockets(page) == {("tcp", "listening"): 1, ("tcp", "established"): 10, ("udp", "unconnected"): 1, ("unix", "connected"): 2}
    assert page.value("boxo_network_active_connections") == 10
    assert traffic(page) == {"sent": None, "received": None}
    reasons = {s.labels["metric"]: s.labels["reason"] for s in page.all("boxo_agent_metric_absent_info")}
    assert "CAP_SYS_ADMIN" in reasons["boxo_network_socket_bytes_total"]


# --- restarts and rights --------------------------------------------------------------------------------------------

def test_counters_go_on_when_the_target_restarts(agent, target, tmp_path):
    name = "boxo-restart"
    os.symlink(pathlib.Path(os.environ.get("BOXO_BUILD", pathlib.Path(__file__).parents[2] / "build")) / "tests/targets/sockets", tmp_path / name)
    a = agent("--no-bpf", "--comm", name)
    sent = 0
    for round in range(2):
        t = target(tmp_path / name, 3)
        t.tell("move 1000")
        wait_until("it is seen", lambda: a.value("boxo_agent_target_up") == 1)
        page = a.next_page()
        assert traffic(page)["sent"] == 3000 * (round + 1)
        faults = page.value("boxo_resource_page_faults_total", type="minor")
        assert faults > sent
        t.popen.kill()
        t.popen.wait()
        page = wait_until("it is gone", lambda: (p := a.page()).value("boxo_agent_target_up") == 0 and p)
        assert traffic(page)["sent"] == 3000 * (round + 1)
        sent = page.value("boxo_resource_page_faults_total", type="minor")
        assert sent >= faults


def test_what_another_user_may_not_read_is_absent_with_the_mend(agent, target, tmp_path):
    t = target("sockets", 1)
    tmp_path.chmod(0o755)
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", "-all", "--bounding-set", "-all")
    a = agent("--no-bpf", "--pid", t.pid, events=f"/tmp/boxo-test-{os.getpid()}.sock", prefix=nobody)
    page = a.next_page(2)
    assert page.value("boxo_resource_threads", state="sleeping") == 1, "what everybody may read is there"
    assert cpu(page) is not None
    assert page.value("boxo_resource_max_fds") is not None
    reasons = {s.labels["metric"]: s.labels["reason"] for s in page.all("boxo_agent_metric_absent_info")}
    for name in ("boxo_resource_disk_read_bytes_total", "boxo_network_sockets", "boxo_resource_disk_usage_bytes",
                 "boxo_network_socket_bytes_total"):
        assert not page.all(name)
        assert "Permission denied" in reasons[name] and "CAP_SYS_PTRACE" in reasons[name], name
