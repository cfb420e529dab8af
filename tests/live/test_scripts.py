# SPDX-License-Identifier: MIT OR Apache-2.0
"""The commands of the README."""
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.request

import pytest
from conftest import ROOT, SLOW, wait_until
from kubo import ipfs  # noqa: F401  (a fixture)

RUN = ROOT / "scripts" / "run"
SIXTEEN = """bitswap_requests_total bitswap_response_time_seconds_count bitswap_active_connections bitswap_queued_requests
blockstore_cache_hit_rate blockstore_read_latency_seconds_count blockstore_write_latency_seconds_count blockstore_total_blocks
network_active_connections network_bandwidth_bytes_per_second network_latency_seconds_count network_packet_loss_rate
resource_cpu_usage_percent resource_memory_usage_bytes resource_disk_usage_bytes resource_goroutines_total""".split()


def run(*argv, **options):
    return subprocess.run([*map(str, argv)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, **options)


@pytest.fixture(autouse=True)
def built():
    """These tests are of the scripts, which use the build directory `build`."""
    if not (ROOT / "build" / "agent" / "boxo-agent").exists():
        pytest.skip("scripts/build was not run: nothing is in build/")


def test_build_is_quick_when_nothing_is_to_do():
    run(ROOT / "scripts" / "build")
    took = []
    while not took or min(took) >= 5 * SLOW and len(took) < 5:  # others may have the CPU for a while
        begin = time.monotonic()
        done = run(ROOT / "scripts" / "build", cwd="/")
        took.append(time.monotonic() - begin)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{ROOT}/build/agent/boxo-agent\n"
        assert "install" not in done.stderr and "configuring" not in done.stderr
    assert min(took) < 5 * SLOW, took


def test_run_passes_arguments_and_output_on():
    version = run(RUN, "--version")
    assert version.returncode == 0 and re.search(r"\d+\.\d+\.\d+", version.stdout), version
    assert "--listen" in run(RUN, "--help").stdout
    wrong = run(RUN, "--no-such-option")
    assert wrong.returncode == 2 and "--no-such-option" in wrong.stderr


def test_path_with_spaces(tmp_path):
    """From another directory and through a path with spaces and quotes."""
    link = tmp_path / "a b's"
    link.symlink_to(ROOT)
    done = run(link / "scripts" / "run", "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_test_lists_its_suites():
    done = run("/usr/bin/python3", ROOT / "scripts" / "suites.py", "--list")
    assert done.returncode == 0 and {"unit", "live"} <= {line.split()[0] for line in done.stdout.splitlines()}
    wrong = run("/usr/bin/python3", ROOT / "scripts" / "suites.py", "no-such-suite")
    assert wrong.returncode == 2 and "no-such-suite" in wrong.stdout


def test_a_missing_package_is_named(tmp_path):
    """Without root, one line that says what to do."""
    lib = ROOT / "scripts" / "lib.sh"
    script = f'set -euo pipefail; . "{lib}"; is_root() {{ false; }}; need_packages bash no-such-package-here'
    done = run("bash", "-c", script)
    assert done.returncode == 1
    assert done.stderr == ("boxo: packages are missing; as root run: "
                           "apt-get install --no-install-recommends no-such-package-here\n")


# ---- the demo ----

def processes_with(text):
    """Pids of processes whose command line holds `text`."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if text in (directory / "cmdline").read_bytes().decode(errors="replace"):
                found.append(int(directory.name))
        except OSError:
            pass
    return [p for p in found if p != os.getpid()]


class Demo:
    """scripts/run --demo with a temporary directory of its own."""

    def __init__(self, tmp, *arguments):
        self.tmp = tmp
        self.log = tmp.parent / f"{tmp.name}.log"
        tmp.mkdir()
        with open(self.log, "w") as out:
            self.popen = subprocess.Popen([RUN, "--demo", *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          env={**os.environ, "TMPDIR": str(tmp)}, start_new_session=True)

    def text(self):
        return self.log.read_text(errors="replace")

    def up(self):
        def ready():
            assert self.popen.poll() is None, self.text()
            return "Ctrl-C ends it" in self.text()
        wait_until("the demo runs", ready, 180)
        return dict(re.findall(r"^demo: (agent|node 1|node 2)  (http://[^/]+)/", self.text(), re.MULTILINE))

    def node_pids(self):
        """Of the two daemons, whose IPFS_PATH lies in the demo's temporary directory."""
        found = []
        for pid in processes_with("\0daemon"):
            try:
                environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if f"IPFS_PATH={self.tmp}/" in environment:
                found.append(pid)
        return found

    def nothing_left(self):
        return not processes_with(str(self.tmp)) and not self.node_pids()


@pytest.fixture
def demo(short_tmp, ipfs):
    started = []

    def start(*arguments):
        started.append(Demo(short_tmp / f"d{len(started)}", *arguments))
        return started[-1]

    yield start
    for d in started:
        if d.popen.poll() is None:
            d.popen.kill()
            d.popen.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_demo(demo, number):
    d = demo("--interval", "500ms", "--listen", "127.0.0.1:0")
    urls = d.up()
    assert set(urls) == {"agent", "node 1", "node 2"}
    assert len(d.node_pids()) == 2

    def page(url, path="/metrics"):
        with urllib.request.urlopen(url + path, timeout=30) as r:
            return r.read().decode()

    kubo_page = "/debug/metrics/prometheus"
    wait_until("blocks arrive", lambda: re.search(r"^ipfs_bitswap_blocks_received [1-9]", page(urls["node 2"], kubo_page), re.M), 120)
    wait_until("the agent sees the node", lambda: "boxo_agent_target_up 1" in page(urls["agent"]), 60)

    def missing():
        text = page(urls["agent"])
        return [name for name in SIXTEEN if not re.search(rf"^boxo_{name} \S", text, re.M)]

    wait_until("all sixteen names that dashboards know", lambda: not missing(), 120)
    begin = time.monotonic()
    d.popen.send_signal(number)
    assert d.popen.wait(60) == 0, d.text()
    # Two seconds on a machine with nothing else to do; what does not end within four is killed.
    assert time.monotonic() - begin < 30 * SLOW
    assert d.nothing_left()
    assert list(d.tmp.iterdir()) == [], "the temporary directory is clean"


def test_demo_ends_when_a_node_dies(demo):
    d = demo("--listen", "127.0.0.1:0")
    d.up()
    os.kill(d.node_pids()[0], signal.SIGKILL)
    assert d.popen.wait(60) == 1, d.text()
    assert re.search(r"demo: node \d ended with -9", d.text())
    wait_until("everything has ended", d.nothing_left, 30)
    assert list(d.tmp.iterdir()) == []


def test_demo_killed(demo):
    """What it started ends with it even so; its directory is removed by the next demo."""
    d = demo("--listen", "127.0.0.1:0")
    d.up()
    d.popen.kill()
    d.popen.wait()
    wait_until("everything has ended", d.nothing_left, 30)
    left = list(d.tmp.iterdir())
    sweep = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import demo; demo.Workspace().remove()"
    done = run("/usr/bin/python3", "-c", sweep, env={**os.environ, "TMPDIR": str(d.tmp)})
    assert done.returncode == 0, done.stderr
    assert left and list(d.tmp.iterdir()) == []
