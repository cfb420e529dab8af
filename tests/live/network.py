# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the tests of the network probes share: tests/targets/network.c and where it runs."""
import os
import pathlib

import pytest
from conftest import remove_empty_group, wait_until


def ask(target, line):
    """The number that tests/targets/network.c answers."""
    answer = target.tell(line)
    assert answer.lstrip("-").isdigit(), f"{line}: {answer!r}"
    return int(answer)


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
