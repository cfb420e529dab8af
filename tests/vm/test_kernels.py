# SPDX-License-Identifier: MIT OR Apache-2.0
"""What must hold on every kernel: each probe works there or has its reason, and without privileges the agent still tells all
that /proc allows."""
import os
import subprocess

from conftest import AGENT, TOO_OLD, Page
from inside import ON_REQUEST

PROC = ["boxo_resource_cpu_seconds_total", "boxo_resource_memory_bytes", "boxo_resource_threads"]

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]


def run(prefix, *args):
    return subprocess.run([*prefix, AGENT, *map(str, args)], capture_output=True, text=True, timeout=300)


def once(prefix, *args):
    # A place where everybody may write.
    r = run(prefix, "--once", "--interval", "200ms", "--events", f"/dev/shm/boxo-test-{os.getpid()}.sock", *args)
    assert r.returncode == 0, r.stderr
    return Page(r.stdout)


def requested(detail):
    """A probe that is off unless asked for."""
    return detail.startswith("only with --probe ")


def test_every_probe_works_or_says_why(check):
    rows = check("--pid", os.getpid(), *ON_REQUEST).below("kernel")
    assert rows
    wrong = {name: detail for name, (works, detail) in rows.items() if works == (name in TOO_OLD)}
    assert not wrong, wrong
    assert not {name: detail for name, (_, detail) in rows.items() if "slower" in detail}


def test_without_privileges():
    """As a stranger to a target that is root's."""
    page = once(NOBODY, "--pid", os.getpid())
    for name in PROC:
        assert page.all(name), name
    probes = page.all("boxo_agent_probe_up")
    assert probes and all(p.value == 0 for p in probes)
    reasons = {s.labels["reason"] for s in page.all("boxo_agent_probe_info") if not requested(s.labels["reason"])}
    assert reasons and all("CAP_BPF" in r for r in reasons), reasons
