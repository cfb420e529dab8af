# SPDX-License-Identifier: MIT OR Apache-2.0
"""What must hold however scarce or many things are: descriptors, threads, sockets, children."""
import os
import pathlib
import resource
import time

import pytest

from conftest import CLOCK_TICK

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
        page = a.next_page(2)
        # Waiting for the next command is a switch that the answer does not contain yet.
        assert page.value(name, type="voluntary") == voluntary + 1
        fields = stat(t.pid)
        assert page.value("boxo_resource_page_faults_total", type="minor") == int(fields[7])
        assert page.sum("boxo_resource_cpu_seconds_total") == pytest.approx(
            (int(fields[11]) + int(fields[12])) / CLOCK_TICK, abs=CPU_SLACK)
