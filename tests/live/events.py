# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the tests of the event sockets share: senders, and what the page says of what they sent."""
import os
import socket
import struct

import pytest

from conftest import SLOW, wait_until

HERE = ("--pid", os.getpid(), "--no-bpf")


class Events:
    """A blocking sender of datagrams."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.connect(str(path))

    def send(self, *lines):
        data = b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines)
        self.socket.send(data)
        return len(lines)


class Stream:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))

    def send(self, *lines):
        data = "\n".join(lines).encode()
        self.socket.sendall(struct.pack("<I", len(data)) + data)


def received(a, n, timeout=30):
    """The page on which n lines have arrived."""
    name = "boxo_agent_events_received_total"
    return wait_until(f"{n} lines arrive", lambda: (p := a.page()).value(name) >= n and p, timeout * SLOW, 0.1)


def rejected(page):
    return {s.labels["reason"]: s.value for s in page.all("boxo_agent_events_rejected_total") if s.value}


@pytest.fixture
def listening(agent, short_tmp):
    def start(*args, **more):
        return agent(*HERE, *args, events=short_tmp / "e", **more)
    return start
