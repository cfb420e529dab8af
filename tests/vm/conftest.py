# SPDX-License-Identifier: MIT OR Apache-2.0
"""The fixtures of the live tests, for what is tested on many kernels."""
import importlib.util
import pathlib

import pytest

_spec = importlib.util.spec_from_file_location("live_conftest", pathlib.Path(__file__).parents[1] / "live" / "conftest.py")
_live = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_live)
globals().update({k: v for k, v in vars(_live).items() if not k.startswith("__")})


class Check:
    """What `--check` says: rows[name] = (works, detail); the rows below a collector are named "COLLECTOR: ROW"."""

    def __init__(self, text):
        import table
        report = table.Report(text)
        self.text, self.rows, self.missing = text, report.rows, report.missing

    def below(self, collector):
        return {k.split(": ", 1)[1]: v for k, v in self.rows.items() if k.startswith(collector + ": ")}


@pytest.fixture
def check(run_agent):
    """check(*args, prefix=()) runs `--check` and returns a Check."""

    def run(*args, **popen):
        status, out, err = run_agent("--check", *args, **popen)
        assert status == 0, err
        return Check(out)

    return run
