# SPDX-License-Identifier: MIT OR Apache-2.0
"""A locked down kernel. Run by inside.py after it has raised the level, which only a reboot lowers again."""
import os
import pathlib

import pytest



def need(level):
    file = pathlib.Path("/sys/kernel/security/lockdown")
    if os.environ.get("BOXO_VM") != "1" or f"[{level}]" not in file.read_text():
        pytest.skip(f"not at lockdown={level}")


def test_integrity_takes_nothing(check):
    need("integrity")
    rows = check("--pid", os.getpid()).below("kernel")
    assert rows["sched"][0], rows


def test_confidentiality_takes_the_probes_and_nothing_else(check, run_agent):
    need("confidentiality")
    told = check("--pid", os.getpid())
    works, detail = told.below("kernel")["sched"]
    assert not works and "locked down" in detail, detail
    status, out, _ = run_agent("--once", "--pid", os.getpid())
    assert status == 0 and "boxo_resource_cpu_seconds_total{" in out
