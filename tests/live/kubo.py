# SPDX-License-Identifier: MIT OR Apache-2.0
"""Real kubo daemons for the live tests.

    from kubo import ipfs, two_nodes, move          # pytest finds fixtures by their names in the test's module

    def test_something(agent, two_nodes):
        source, sink = two_nodes()                  # two_nodes(transport="quic", binaries=(path1, path2), env={...})
        a = agent("--pid", sink.pid)
        move(source, sink, mib=64)
        sink.bitswap_stat()["BlocksReceived"], sink.bandwidth(), sink.metrics()
"""
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import nodes  # noqa: E402


@pytest.fixture(scope="session")
def ipfs():
    """The kubo program of clients/go/kubo/go.mod; built if that was not done yet (scripts/test does it before)."""
    return _built()


@pytest.fixture(scope="session")
def ipfs_events():
    """The kubo program with this project's events built in; it sends them to the socket BOXO_EVENTS_SOCKET."""
    return _built("--events")


def _built(*options):
    done = subprocess.run([ROOT / "scripts" / "kubo", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("no kubo: " + (done.stderr.strip().splitlines() or ["scripts/kubo said nothing"])[-1])
    return pathlib.Path(done.stdout.strip())


@pytest.fixture
def node(ipfs, tmp_path):
    """node(name="node", transport="tcp", binary=…, env={}, prefix=()) starts one daemon."""
    started = []

    def start(name="node", transport="tcp", binary=None, env=None, prefix=()):
        n = nodes.Node(binary or ipfs, tmp_path / name, transport, env)
        started.append(n)
        return n.start(prefix)

    yield start
    for n in started:
        n.signal(15)
    ended = [n.stop(60) for n in started]
    assert all(ended), "a kubo daemon did not end within 60 s of SIGTERM"


@pytest.fixture
def two_nodes(node):
    """two_nodes(transport="tcp", binaries=(None, None), env=({}, {})) starts two daemons and connects the second to the first."""

    def start(transport="tcp", binaries=(None, None), env=(None, None)):
        pair = [node(f"node{i}", transport, binary, e) for i, (binary, e) in enumerate(zip(binaries, env), 1)]
        pair[1].connect(pair[0])
        return pair

    return start


def move(source, sink, mib, size=8):
    """Moves `mib` MiB of new blocks from source to sink in files of `size` MiB; returns the files' CIDs."""
    cids = [source.add(os.urandom(size << 20)) for _ in range(mib // size)]
    for cid in cids:
        sink.fetch(cid)
    return cids
