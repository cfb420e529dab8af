# SPDX-License-Identifier: MIT OR Apache-2.0
"""The agent beside a real kubo node, held against what /proc and kubo themselves say."""
import contextlib
import os
import pathlib
import subprocess

import pytest
from conftest import CLOCK_TICK, wait_until
from kubo import ipfs, move, node, nodes, two_nodes  # noqa: F401  (fixtures)

MIB = 1 << 20
PAYLOAD = 64  # MiB
# Of the sixteen names, those that an unmodified node fills whatever it does.
ALWAYS_THERE = ["boxo_network_active_connections", "boxo_network_bandwidth_bytes_per_second", "boxo_network_packet_loss_rate",
                "boxo_resource_cpu_usage_percent", "boxo_resource_memory_usage_bytes", "boxo_resource_disk_usage_bytes"]


def cpu_seconds(pid):
    """(user, system) of the process, from fields 14 and 15 of /proc/PID/stat."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) / CLOCK_TICK, int(fields[12]) / CLOCK_TICK


def io_bytes(pid):
    lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
    io = {k: int(v) for k, v in (line.split(": ") for line in lines)}
    return io["read_bytes"], io["write_bytes"]


def bracket(agent, truth):
    """A page of a collection that ran between two readings of `truth`: (before, page, after)."""
    before = truth()
    page = agent.next_page()
    return before, page, truth()


def growth(first, second, value):
    """How far `value(page)` grew between two brackets, and the least and most that the truth grew meanwhile, field by field."""
    (low0, page0, high0), (low1, page1, high1) = first, second
    return [(value(page1)[i] - value(page0)[i], low1[i] - high0[i], high1[i] - low0[i]) for i in range(len(low0))]


def counters(page):
    """Every value of the page that must never go back, by name and labels."""
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in page.families.values() for s in f.samples
            if f.type == "counter" or (f.type == "histogram" and not s.name.endswith("_created"))}


def gone_back(before, after):
    return [f"{key}: {value} -> {after.get(key)}" for key, value in before.items() if not after.get(key, -1) >= value]


def test_64_mib_over_tcp(agent, two_nodes):
    source, sink = two_nodes("tcp")
    a = agent("--pid", sink.pid, interval="500ms")

    cpu0 = bracket(a, lambda: cpu_seconds(sink.pid))
    io0 = bracket(a, lambda: io_bytes(sink.pid))
    kubo_in0, _ = sink.bandwidth()
    received0 = a.page().sum("boxo_network_socket_bytes_total", protocol="tcp", direction="received")

    cids = move(source, sink, PAYLOAD)
    for cid in cids:  # the sending node has nothing to do with what the watched one reads of its own disk
        assert len(sink.cat(cid)) == 8 * MIB

    kubo_in1, _ = sink.bandwidth()
    assert sink.bitswap_stat()["BlocksReceived"] >= PAYLOAD * 4
    cpu1 = bracket(a, lambda: cpu_seconds(sink.pid))
    io1 = bracket(a, lambda: io_bytes(sink.pid))
    page = io1[1]

    def cpu(p):
        return [p.value("boxo_resource_cpu_seconds_total", mode=m) for m in ("user", "system")]

    for mode, (agent_says, least, most) in zip(("user", "system"), growth(cpu0, cpu1, cpu)):
        assert least * 0.95 - 0.02 <= agent_says <= most * 1.05 + 0.02, f"{mode}: {agent_says} s, /proc {least} to {most} s"
    assert sum(x[0] for x in growth(cpu0, cpu1, cpu)) > 0.2, "64 MiB cost some CPU"

    def io(p):
        return [p.value("boxo_resource_disk_read_bytes_total"), p.value("boxo_resource_disk_write_bytes_total")]

    for what, (agent_says, least, most) in zip(("read", "written"), growth(io0, io1, io)):
        assert least <= agent_says <= most, f"{what}: {agent_says} bytes, /proc/PID/io {least} to {most}"

    received = page.sum("boxo_network_socket_bytes_total", protocol="tcp", direction="received") - received0
    kubo_in = kubo_in1 - kubo_in0
    assert PAYLOAD * MIB <= received <= 1.2 * kubo_in, f"{received} bytes received, kubo counts {kubo_in}"

    missing = [name for name in ALWAYS_THERE if page.value(name) is None]
    assert not missing, f"absent beside a running node: {missing}"
    assert page.value("boxo_agent_target_up") == 1


def test_threads_are_counted_exactly(agent, two_nodes):
    source, sink = two_nodes()
    a = agent("--pid", sink.pid)
    move(source, sink, 8)

    def same():
        before, page, after = bracket(a, lambda: len(os.listdir(f"/proc/{sink.pid}/task")))
        return before == after and (before, page.sum("boxo_resource_threads"))

    truth, counted = wait_until("a collection during which no thread came or went", same, 120)
    assert counted == truth


def test_connections(agent, two_nodes):
    """The one connection to the other node, and the sizes of what is open."""
    _, sink = two_nodes()
    a = agent("--pid", sink.pid)
    peers = [p for p in sink.rpc("swarm/peers")["Peers"]]
    assert len(peers) == 1

    def established():
        # Calls of the RPC interface leave connections behind that kubo closes after a while.
        lines = subprocess.run(["ss", "-Htnp", "state", "established"], capture_output=True, text=True, check=True).stdout
        return sum(f"pid={sink.pid}," in line for line in lines.splitlines())

    def same():
        before, page, after = bracket(a, established)
        return before == after and (before, page.sum("boxo_network_sockets", protocol="tcp", state="established"))

    truth, counted = wait_until("a collection during which no connection came or went", same, 120)
    assert counted == truth >= 1


def test_quic_is_seen_as_udp(agent, two_nodes):
    source, sink = two_nodes("quic")
    a = agent("--pid", sink.pid)
    move(source, sink, 16)
    page = a.next_page()
    assert page.sum("boxo_network_sockets", protocol="udp") >= 1
    assert page.value("boxo_resource_cpu_seconds_total", mode="user") > 0


def test_quic_by_remote_as_the_node_counts_it(agent, node):
    """QUIC's headers, acknowledgements and what is sent again come on top of what the node counts."""
    source, sink = node("source", "quic"), node("sink", "quic")
    a = agent("--pid", sink.pid, "--no-probe", "tcp")
    info = a.page().all("boxo_agent_probe_info", probe="udp")[0].labels["reason"]
    if info != "attached":
        pytest.skip(info)

    def counted(page):
        return [page.sum("boxo_network_remote_bytes_total", protocol="quic", direction=way) or 0 for way in ("received", "sent")]

    sink.connect(source)
    before = counted(a.next_page())
    kubo_before = sink.bandwidth()
    move(source, sink, PAYLOAD)
    kubo = [now - then for now, then in zip(sink.bandwidth(), kubo_before)]
    page = a.next_page()
    received, sent = (now - then for now, then in zip(counted(page), before))
    print(f"kubo in, out {kubo}; QUIC received, sent {received, sent}")
    assert kubo[0] <= received <= 1.1 * kubo[0], f"received {received}, kubo counts {kubo[0]}"
    assert kubo[1] <= sent <= 0.1 * received, f"sent {sent}, kubo counts {kubo[1]}"
    # All of it with one remote, and next to nothing else in UDP.
    quic = page.value("boxo_network_remote_bytes_total", remote="127.0.0.1", protocol="quic", direction="received")
    udp = page.value("boxo_network_udp_bytes_total", direction="received")
    assert quic == page.value("boxo_network_quic_bytes_total", direction="received") >= 0.999 * udp


def test_disk_usage_is_of_the_repository(agent, two_nodes):
    """Found by the node's own IPFS_PATH, without being told."""
    _, sink = two_nodes()
    a = agent("--pid", sink.pid)

    def close():
        fs = os.statvfs(sink.repo)
        page = a.next_page()
        used, total = page.value("boxo_resource_disk_usage_bytes"), page.value("boxo_resource_disk_total_bytes")
        assert total == fs.f_blocks * fs.f_frsize
        return abs(used - (fs.f_blocks - fs.f_bfree) * fs.f_frsize) < 64 * MIB

    wait_until("disk use as statvfs has it", close, 60)


# ---- a daemon that is found, ends and comes back ----

@contextlib.contextmanager
def call_of_the_command_line(ipfs, repo, prefix):
    """`ipfs add` that waits for its input: an ipfs process that is no daemon."""
    n = nodes.Node(ipfs, repo)
    n.init()
    p = subprocess.Popen([*prefix, str(ipfs), "--offline", "add", "-Q"], env=n.env, stdin=subprocess.PIPE,
                         stdout=subprocess.DEVNULL)
    try:
        yield p
    finally:
        p.stdin.close()
        p.wait(20)


def inside(popen):
    """What nsenter started: its pid as seen from here."""
    children = pathlib.Path(f"/proc/{popen.pid}/task/{popen.pid}/children")
    return int(wait_until("the program behind nsenter", lambda: children.read_text().strip()))


@pytest.mark.parametrize("how", [(), ("--comm", "ipfs")], ids=["found by itself", "by name"])
def test_a_restart_is_noticed(agent, ipfs, node, tmp_path, world, how):
    """By the first collection that begins after it, which is within two intervals."""
    if not how:
        with call_of_the_command_line(ipfs, tmp_path / "cli", world) as call:
            inside(call)
            a = agent(*how, prefix=world, interval="1s")
            assert a.next_page(2).value("boxo_agent_target_up") == 0, f"a call of the command line is no node: {a.log()}"
            first = node("first", prefix=world)
            assert a.next_page().value("boxo_agent_target_up") == 1, "the daemon is found"
            assert call.poll() is None
            pid = inside(first.popen)
            wait_until("its threads, for it is the daemon that is watched", lambda: abs(
                (a.next_page().sum("boxo_resource_threads") or 0) - len(os.listdir(f"/proc/{pid}/task"))) <= 3)
    else:
        first = node("first", prefix=world)
        a = agent(*how, prefix=world, interval="1s")
        assert a.next_page().value("boxo_agent_target_up") == 1
    first.add(os.urandom(8 * MIB))
    seen = counters(a.next_page(2))
    assert ("boxo_resource_cpu_seconds_total", (("mode", "user"),)) in seen

    assert first.stop(60)
    page = a.next_page()
    assert page.value("boxo_agent_target_up") == 0, "its end is noticed"
    while_away = counters(page)
    restarts = a.value("boxo_agent_target_restarts_total")

    second = nodes.Node(ipfs, first.repo)
    second.launch(world)
    try:
        command = pathlib.Path(f"/proc/{inside(second.popen)}/cmdline")
        wait_until("the new daemon runs", lambda: b"ipfs\0daemon\0" in command.read_bytes() and b"python" not in command.read_bytes())
        page = a.next_page()
        assert page.value("boxo_agent_target_up") == 1, "it is noticed"
        assert page.value("boxo_agent_target_restarts_total") == restarts + 1
        second.wait_ready()
        second.add(os.urandom(8 * MIB))
        after = counters(a.next_page(2))
    finally:
        second.stop()
    own = {k: v for k, v in seen.items() if k[0].startswith("boxo_")}
    assert not gone_back({k: v for k, v in own.items() if k in while_away}, while_away)
    assert not gone_back(own, after)
    cpu = ("boxo_resource_cpu_seconds_total", (("mode", "user"),))
    assert after[cpu] > seen[cpu]
