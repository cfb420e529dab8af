# SPDX-License-Identifier: MIT OR Apache-2.0
"""Processes whose fate a test decides, and cgroups for them."""
import os
import pathlib
import shutil
import signal
import subprocess
import uuid

import pytest
from conftest import remove_empty_group, wait_until

SLEEP = shutil.which("sleep")


class Obedient:
    def __init__(self, popen):
        self.popen, self.pid = popen, popen.pid
        assert popen.stdout.readline() == "READY\n"

    def order(self, line):
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def tell(self, line):
        self.order(line)
        return self.popen.stdout.readline().strip()


@pytest.fixture
def start():
    """start(*argv) starts a program, which is ended with everything that it left behind."""
    started = []

    def run(*argv, **popen):
        p = subprocess.Popen([str(a) for a in argv], start_new_session=True, **popen)
        started.append(p)
        return p

    yield run
    for p in started:
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        p.wait()


@pytest.fixture
def program(tmp_path):
    """program(name) is the path of a program that sleeps under this name."""

    def make(name):
        path = tmp_path / name
        shutil.copy(SLEEP, path)
        return path

    return make


def unique(length=12):
    return ("t" + uuid.uuid4().hex)[:length]


def processes(a, expected):
    wait_until(f"{expected} processes are watched",
               lambda: a.value("boxo_agent_target_processes") == expected)
    assert a.value("boxo_agent_target_up") == (1 if expected else 0)


def restarts(a):
    return a.value("boxo_agent_target_restarts_total")


def hierarchies():
    root = pathlib.Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return {"v2": root}
    found = {"v1 " + d.name: d for d in root.iterdir() if (d / "release_agent").exists() and not d.is_symlink()}
    if (root / "unified/cgroup.procs").exists():
        found["v2"] = root / "unified"
    # One of each version, and one whose name stands for several controllers or is taken for limits.
    return {k: v for k, v in found.items() if k in ("v2", "v1 memory", "v1 freezer", "v1 cpu,cpuacct")}


@pytest.fixture(params=["v2", "v1 memory", "v1 freezer", "v1 cpu,cpuacct"])
def group(request):
    """A new cgroup; removed again with those below it."""
    if request.param not in hierarchies():
        pytest.skip(f"no cgroup hierarchy {request.param} here")
    path = hierarchies()[request.param] / unique()
    try:
        path.mkdir()
    except OSError as e:
        pytest.skip(f"cannot make a cgroup: {e}")
    yield path
    for sub in sorted(path.glob("**/"), reverse=True):
        remove_empty_group(sub)


def into(group, start, program):
    """A process that starts in the group."""
    return start("sh", "-c", f'echo $$ > "{group}/cgroup.procs" && exec "{program(unique())}" 1000')


def kill(*popens):
    for p in popens:
        p.kill()
        p.wait()
