# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the tests of the network probes share: tests/targets/network.c and where it runs."""
import os
import pathlib
import socket
import struct
import subprocess

import pytest
from conftest import remove_empty_group, wait_until


def ask(target, line):
    """The number that tests/targets/network.c answers."""
    answer = target.tell(line)
    assert answer.lstrip("-").isdigit(), f"{line}: {answer!r}"
    return int(answer)


def datagram(source, port, payload, checksum=0):
    """An IPv4 packet, for a raw socket, from that address (4 bytes) to this port of 127.0.0.1; the checksum 0 says that there is
    none."""
    body = struct.pack("!HHHH", 9, port, 8 + len(payload), checksum) + payload
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0, source, socket.inet_aton("127.0.0.1")) + body


def multipath():
    try:
        return open("/proc/sys/net/mptcp/enabled").read().strip() == "1"
    except OSError:
        return False


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
    remove_empty_group(made)


def in_group(group):
    """A command that runs what follows in the group."""
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]


@pytest.fixture
def elsewhere():
    """The name of a network namespace with 10.99.0.2, whose 10.99.0.1 is in a second one, name + "b"."""
    name = f"boxo{os.getpid()}"

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True)

    try:
        for n in (name, name + "b"):
            if ip("netns", "add", n).returncode:
                pytest.skip("no network namespaces here")
        made = ip("-n", name, "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", name + "b")
        if made.returncode:
            pytest.skip(f"no veth here: {made.stderr.strip()}")
        for n, address in ((name, "10.99.0.2/24"), (name + "b", "10.99.0.1/24")):
            assert ip("-n", n, "address", "add", address, "dev", "up0").returncode == 0
            assert ip("-n", n, "link", "set", "up0", "up").returncode == 0
        yield name
    finally:
        for n in (name, name + "b"):
            ip("netns", "delete", n)
