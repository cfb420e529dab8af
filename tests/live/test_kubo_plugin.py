# SPDX-License-Identifier: MIT OR Apache-2.0
"""kubo with the events built in (clients/go/kubo): what the agent exports is what the node counts itself, exactly."""
import json
import os
import re
import subprocess
import time

import pytest
from conftest import wait_until
from kubo import ipfs, ipfs_events, move, node, nodes  # noqa: F401  (fixtures)

MIB = 1 << 20


@pytest.fixture
def watched(ipfs_events, agent, tmp_path, short_tmp):
    """watched(transport) -> (node, agent): a daemon that tells the agent everything, started after it."""
    started = []

    def start(transport):
        events = short_tmp / "events.sock"
        n = nodes.Node(ipfs_events, tmp_path / "watched", transport, {"BOXO_EVENTS_SOCKET": str(events)})
        n.init()
        configure(n)
        a = agent("--no-bpf", "--comm", "ipfs-none", events=events, ready=True)
        started.append(n)
        return n.start(), a

    yield start
    assert all(n.stop(60) for n in started), "the daemon did not end within 60 s of SIGTERM"


def configure(n):
    """Has the datastore of the blocks, and only that, count what it does, under the prefix blocks_measured."""
    path = n.repo / "config"
    config = json.loads(path.read_text())
    config["Plugins"] = {"Plugins": {"boxo-events": {"Config": {"Interval": "200ms", "CountBlocks": "1s"}}}}
    mount = next(m for m in config["Datastore"]["Spec"]["mounts"] if m["mountpoint"] == "/blocks")
    child = {k: v for k, v in mount.items() if k != "mountpoint"}
    mount.clear()
    mount.update(mountpoint="/blocks", type="measure", prefix="blocks_measured", child=child)
    path.write_text(json.dumps(config, indent=2))


def measured(n, name):
    """One value of the node's own /debug/metrics/prometheus; 0 if it was never touched."""
    found = re.search(rf"^{name} (\S+)$", n.metrics(), re.M)
    return float(found.group(1)) if found else 0


def settled(read):
    """The value of read() once it stays the same for a second."""
    last = read()
    while True:
        time.sleep(1)
        now = read()
        if now == last:
            return now
        last = now


@pytest.mark.parametrize("transport", ["tcp", "quic"])
def test_truth(transport, node, watched):
    source, second = node("source", transport), node("second", transport)
    n, a = watched(transport)
    second.connect(source)
    n.connect(source)

    def blocks():
        return n.rpc("repo/stat")["NumObjects"]

    def at_first():
        """What the node has counted of its blocks, and what the agent has heard of that."""
        counted = {"blocks": blocks(), "put": measured(n, "blocks_measured_put_total"),
                   "commit": measured(n, "blocks_measured_batchcommit_total"),
                   "get": measured(n, "blocks_measured_get_size_bytes_count")}
        page = a.next_page(6)
        return (counted, page.value("boxo_blockstore_write_latency_seconds_count") or 0,
                page.value("boxo_blockstore_read_latency_seconds_count") or 0)

    before, written, read = settled(at_first)

    # 32 MiB from one node, 32 MiB of which two nodes have every block, and 16 MiB back.
    move(source, n, mib=32)
    shared = [source.add(os.urandom(8 * MIB)) for _ in range(4)]
    for cid in shared:
        second.fetch(cid)
    n.connect(second)
    for cid in shared:
        n.fetch(cid)
    fetched = blocks() - before["blocks"]
    mine = n.add(os.urandom(16 * MIB))
    source.connect(n)
    source.fetch(mine)

    stat = settled(lambda: {k: v for k, v in n.bitswap_stat().items() if k != "Wantlist"})
    print(f"fetched {fetched}: {({k: v for k, v in stat.items() if k != 'Peers'})}")
    assert stat["BlocksReceived"] >= fetched >= 64 * 4 and stat["BlocksSent"] >= 16 * 4, stat

    def same(page):
        def peers(name):
            return page.sum(f"boxo_exchange_peer_{name}_total")

        assert page.value("boxo_bitswap_blocks_received_total") == stat["BlocksReceived"]
        assert page.value("boxo_bitswap_blocks_duplicated_total") == stat["DupBlksReceived"]
        assert page.value("boxo_bitswap_blocks_sent_total") == stat["BlocksSent"]
        assert page.sum("boxo_exchange_received_bytes_total") == stat["DataReceived"]
        assert (page.value("boxo_exchange_received_bytes_total", duplicate="true") or 0) == stat["DupDataReceived"]
        assert page.value("boxo_exchange_sent_bytes_total") == stat["DataSent"]
        assert (peers("received_blocks"), peers("received_bytes")) == (stat["BlocksReceived"], stat["DataReceived"])
        assert (peers("sent_blocks"), peers("sent_bytes")) == (stat["BlocksSent"], stat["DataSent"])
        assert page.value("boxo_exchange_partners") == len(stat["Peers"])
        connected = {p["Peer"] for p in n.rpc("swarm/peers")["Peers"]}
        assert connected == {source.id, second.id}
        assert page.value("boxo_bitswap_active_connections") == len(connected)
        assert page.value("boxo_network_active_connections") == len(n.rpc("swarm/peers")["Peers"])

        # Each block that was fetched was asked for once and answered once.
        assert page.value("boxo_bitswap_requests_total") == fetched
        assert page.value("boxo_bitswap_response_time_seconds_count") == fetched
        assert (page.value("boxo_bitswap_errors_total") or 0) == 0
        assert page.value("boxo_bitswap_queued_requests") == 0

        # What the blockstore did is what its datastore counted.
        puts = measured(n, "blocks_measured_put_total") + measured(n, "blocks_measured_batchcommit_total")
        assert page.value("boxo_blockstore_write_latency_seconds_count") - written == puts - before["put"] - before["commit"]
        gets = measured(n, "blocks_measured_get_size_bytes_count")
        assert page.value("boxo_blockstore_read_latency_seconds_count") - read == gets - before["get"]

        commits = measured(n, "blocks_measured_batchcommit_total") - before["commit"]
        assert page.value("boxo_blockstore_batch_operations_total") == commits
        assert page.value("boxo_blocks_batch_time_seconds_count") == commits > 0
        assert page.value("boxo_blocks_batch_size_sum") == measured(n, "blocks_measured_batchput_total")
        # Every block that was asked of the network was looked for here first.
        assert page.value("boxo_blockstore_cache_misses_total") >= fetched

    # The node tells it some times a second.
    end = time.monotonic() + 60
    while True:
        try:
            same(a.page())
            break
        except (AssertionError, TypeError):  # what was never told is None
            if time.monotonic() > end:
                raise
        time.sleep(0.2)
    page = a.next_page(8)
    same(page)
    # The node counts them for at most 1 % of the time, which on a busy machine is seldom.
    wait_until("as many blocks and bytes as there are",
               lambda: stored(a) == (n.rpc("repo/stat")["NumObjects"], n.rpc("repo/stat")["RepoSize"]), 120, 0.5)

    # libp2p's bytes, which count TCP and QUIC alike, and all peers together.
    wait_until("as many bytes as libp2p counts", lambda: byte_counts(n, a), 120)
    for other in (source, second):
        wait_until("each peer's bytes are what libp2p counts of it", lambda: peer_bytes(n, a, other), 120)
    assert a.value("boxo_network_peer_bytes_received_total", peer=source.id) > 8 * MIB

    # Nothing was lost on the way, nothing was refused.
    assert page.sum("boxo_agent_events_rejected_total") in (None, 0), a.log()
    assert page.sum("boxo_agent_events_dropped_total") in (None, 0)
    # The runtime's numbers.
    assert page.value("boxo_resource_goroutines_total") > 20
    assert page.value("boxo_resource_gc_cycles_total") == page.value("boxo_resource_gc_pause_seconds_count") > 0
    assert page.value("boxo_resource_heap_bytes") > MIB


def stored(a):
    page = a.page()
    return page.value("boxo_blockstore_total_blocks"), page.value("boxo_blockstore_storage_bytes")


def byte_counts(n, a):
    """Whether the agent's bytes are libp2p's, while nobody sends: ([sent, received])."""
    received, sent = n.bandwidth()
    page = a.next_page(8)
    return (page.value("boxo_network_bytes_sent_total"), page.value("boxo_network_bytes_received_total")) == (sent, received)


def peer_bytes(n, a, other):
    """The same for one peer."""
    counted = n.rpc("stats/bw", peer=other.id)
    page = a.next_page(8)
    return [page.value(f"boxo_network_peer_bytes_{way}_total", peer=other.id) for way in ("received", "sent")] == [
        counted["TotalIn"], counted["TotalOut"]]


def test_agent_comes_late_and_again(node, ipfs_events, agent, short_tmp):
    """Counts are the node's since its start, whenever the agent comes; a second agent is told what is new."""
    events = short_tmp / "events.sock"
    source = node("source")
    n = node("late", binary=ipfs_events, env={"BOXO_EVENTS_SOCKET": str(events)})
    n.connect(source)
    move(source, n, mib=8)
    stat = settled(lambda: n.bitswap_stat()["BlocksReceived"])
    first = agent("--no-bpf", "--comm", "ipfs-none", events=events)
    wait_until("everything from before", lambda: first.value("boxo_bitswap_blocks_received_total") == stat, 60)
    first.stop()
    move(source, n, mib=8)
    more = settled(lambda: n.bitswap_stat()["BlocksReceived"]) - stat
    again = agent("--no-bpf", "--comm", "ipfs-none", events=events)
    wait_until("what is new", lambda: again.value("boxo_bitswap_blocks_received_total") == more, 60)
    assert again.page().sum("boxo_agent_events_dropped_total") in (None, 0)


def test_commands_open_no_socket(ipfs_events, tmp_path, short_tmp):
    """Only the daemon speaks: a command that makes a node for itself does not."""
    import socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(short_tmp / "events.sock"))
        s.settimeout(0.5)
        n = nodes.Node(ipfs_events, tmp_path / "offline", env={"BOXO_EVENTS_SOCKET": str(short_tmp / "events.sock")})
        n.init()
        added = subprocess.run([ipfs_events, "add", "-Q"], input=b"x" * MIB, env=n.env, capture_output=True, check=True)
        got = subprocess.run([ipfs_events, "cat", added.stdout.decode().strip()], env=n.env, capture_output=True, check=True)
        assert got.stdout == b"x" * MIB
        with pytest.raises(TimeoutError):
            s.recv(1)


def test_configuration_mistakes_are_named(ipfs_events, tmp_path):
    n = nodes.Node(ipfs_events, tmp_path / "wrong")
    n.init()
    path = n.repo / "config"
    config = json.loads(path.read_text())
    config["Plugins"] = {"Plugins": {"boxo-events": {"Config": {"Intervall": "1s"}}}}
    path.write_text(json.dumps(config))
    done = subprocess.run([ipfs_events, "id"], env=n.env, capture_output=True, text=True)
    assert done.returncode != 0 and "boxo-events" in done.stderr and "Intervall" in done.stderr, done.stderr
