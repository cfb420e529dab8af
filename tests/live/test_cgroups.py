# SPDX-License-Identifier: MIT OR Apache-2.0
"""What cgroups of version 1 and 2 tell of a target: limits, throttling, memory, CPU time, pressure."""
import os
import pathlib
import subprocess
import sys

import pytest

from conftest import remove_group, wait_until

MIB = 1 << 20
CGROUPS = pathlib.Path("/sys/fs/cgroup")
V2 = (CGROUPS / "cgroup.controllers").exists()


@pytest.fixture
def group():
    """group(controller) makes a cgroup with this controller in a hierarchy of either version ("unified": of version 2),
    and removes it; returns its directory. With version 2 one cgroup serves all controllers."""
    made = []

    def make(controller):
        root = CGROUPS if V2 else CGROUPS / controller
        if not root.is_dir() or not os.access(root, os.W_OK):
            pytest.skip(f"no {controller} hierarchy that can be written to")
        if V2 and controller != "unified" and controller not in (CGROUPS / "cgroup.subtree_control").read_text().split():
            pytest.skip(f"no {controller} controller for groups made here")
        if V2 and made:
            return made[0]
        path = root / f"boxo-test-{os.getpid()}-{len(made)}"
        path.mkdir()
        made.append(path)
        return path

    yield make
    for path in made:
        below = [entry for entry in path.iterdir() if entry.is_dir()]
        if V2 and below:
            (path / "cgroup.subtree_control").write_text("-memory")  # or no process may move there
        for one in below:
            remove_group(one)
        remove_group(path)


def fields(file):
    """The numbers behind the names in a file of a cgroup."""
    return {key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())}


def test_cgroup_memory_and_cpu_limits(agent, target, group):
    memory_group, cpu_group = group("memory"), group("cpu")
    if V2:
        (memory_group / "memory.max").write_text(str(256 * MIB))
        (cpu_group / "cpu.max").write_text("20000 100000")
    else:
        if not (memory_group / "memory.limit_in_bytes").exists():
            pytest.skip("no version 1 hierarchy with the memory controller here")
        (memory_group / "memory.limit_in_bytes").write_text(str(256 * MIB))
        (cpu_group / "cpu.cfs_quota_us").write_text("20000")
    t = target("threads", 0, 1)
    for g in {memory_group, cpu_group}:
        (g / "cgroup.procs").write_text(str(t.pid))
    a = agent("--no-bpf", "--pid", t.pid)
    wait_until("it is throttled", lambda: a.value("boxo_resource_cpu_throttled_seconds_total"))
    page = a.next_page(5)
    assert page.value("boxo_resource_memory_limit_bytes") == 256 * MIB
    assert page.value("boxo_resource_cpu_limit_cores") == pytest.approx(0.2)
    assert page.value("boxo_resource_oom_kills_total") == 0
    stat = fields(cpu_group / "cpu.stat")
    assert 0 < page.value("boxo_resource_cpu_throttled_periods_total") <= stat["nr_throttled"]
    throttled = page.value("boxo_resource_cpu_throttled_seconds_total")  # nanoseconds, to the precision of a double
    assert 0 < round(throttled * 1e9) <= (stat["throttled_usec"] * 1000 if V2 else stat["throttled_time"])
    # It wants a whole CPU and gets a fifth: every period is throttled.
    wait_until("the limit presses", lambda: a.value("boxo_resource_cpu_pressure") > 0.5)
    wait_until("no more than the limit", lambda: a.value("boxo_resource_cpu_usage_percent") < 40)


def test_what_a_cgroup_is_charged_for(agent, target, group, tmp_path):
    """Kinds of memory as memory.stat has them; a page cache larger than the limit hits it, and is needed again."""
    g = group("memory")
    t = target("memory", cwd=tmp_path)
    (g / "cgroup.procs").write_text(str(t.pid))
    a = agent("--no-bpf", "--cgroup", g)
    t.tell("anon 20")
    t.tell("shmem 10")
    page = a.next_page(2)
    stat = fields(g / "memory.stat")
    expected = {"anon": stat["anon" if V2 else "total_rss"], "shmem": stat["shmem" if V2 else "total_shmem"],
                "file": stat["file" if V2 else "total_cache"], "mapped": stat["file_mapped" if V2 else "total_mapped_file"]}
    if not V2:
        expected["swap"] = stat["total_swap"]
    # The kernel brings these up to date some pages at a time.
    assert expected["anon"] >= 20 * MIB - MIB / 4 and expected["shmem"] >= 10 * MIB - MIB / 4
    name = "boxo_resource_cgroup_memory_bytes"
    assert {kind: page.value(name, type=kind) for kind in expected} == pytest.approx(expected, abs=MIB / 4)

    (g / ("memory.max" if V2 else "memory.limit_in_bytes")).write_text(str(48 * MIB))
    reader = subprocess.Popen([sys.executable, "-c", READS_TWICE, tmp_path / "data"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    (g / "cgroup.procs").write_text(str(reader.pid))
    reader.communicate(b"go\n")
    page = a.next_page(2)
    stat = fields(g / "memory.stat")
    hits = fields(g / "memory.events.local")["max"] if V2 else int((g / "memory.failcnt").read_text())
    assert page.value("boxo_resource_memory_limit_hits_total", limit="max") == hits > 0
    if not V2 and "total_workingset_refault_file" not in stat:
        return  # Linux 5.10
    refaults = max(1, stat["workingset_refault_file" if V2 else "total_workingset_refault_file"])
    # The kernel brings memory.stat up to date every two seconds.
    wait_until("the kernel has counted them", lambda: a.value("boxo_resource_memory_refaults_total", type="file") >= refaults)
    assert refaults <= a.value("boxo_resource_memory_refaults_total", type="file") <= fields(g / "memory.stat")[
        "workingset_refault_file" if V2 else "total_workingset_refault_file"]


def test_hits_of_the_limit_of_a_group_above(agent, target, group, tmp_path):
    """The target's own group has a wider one, or that of a group beside it is hit: neither is counted."""
    pod = group("memory")
    limit = "memory.max" if V2 else "memory.limit_in_bytes"
    if V2:
        (pod / "cgroup.subtree_control").write_text("+memory")
    elif (pod / "memory.use_hierarchy").exists():
        (pod / "memory.use_hierarchy").write_text("1")  # without it no limit above holds before Linux 5.11
    own, beside = pod / "own", pod / "beside"
    own.mkdir()
    beside.mkdir()
    (pod / limit).write_text(str(48 * MIB))
    (own / limit).write_text(str(1024 * MIB))
    (beside / limit).write_text(str(16 * MIB))

    def fill(where):
        reader = subprocess.Popen([sys.executable, "-c", READS_TWICE, tmp_path / "data"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        (where / "cgroup.procs").write_text(str(reader.pid))
        reader.communicate(b"go\n")

    def hits(where):
        return fields(where / "memory.events.local")["max"] if V2 else int((where / "memory.failcnt").read_text())

    t = target("memory", cwd=tmp_path)
    (own / "cgroup.procs").write_text(str(t.pid))
    a = agent("--no-bpf", "--cgroup", own)
    fill(beside)
    page = a.next_page(2)
    assert page.value("boxo_resource_memory_limit_bytes") == 48 * MIB
    assert page.value("boxo_resource_memory_limit_hits_total", limit="max") == hits(pod) < hits(beside)
    fill(own)
    page = a.next_page(2)
    assert hits(own) == 0
    assert page.value("boxo_resource_memory_limit_hits_total", limit="max") == hits(pod) > 0


READS_TWICE = """
import os, sys
sys.stdin.readline()
path = sys.argv[1]
with open(path, "wb") as f:
    for _ in range(64): f.write(b"x" * (1 << 20))
    os.fsync(f.fileno())
for _ in range(3):
    with open(path, "rb") as f:
        while f.read(1 << 20): pass
"""


def test_io_of_a_cgroup_by_device(agent, target, group, tmp_path):
    """Read past the page cache: so much goes to the device, no more and no less."""
    g = group("io" if V2 else "blkio")
    file = g / ("io.stat" if V2 else "blkio.throttle.io_service_bytes_recursive")
    if not file.exists():
        pytest.skip("this kernel does not count I/O by cgroup")
    data = pathlib.Path("/var/tmp") / f"boxo-io-{os.getpid()}"
    try:
        data.write_bytes(os.urandom(4 * MIB))
        with open(data, "rb") as f:
            os.fsync(f.fileno())
        t = target("memory")
        (g / "cgroup.procs").write_text(str(t.pid))
        device = pathlib.Path(f"/sys/dev/block/{os.major(data.stat().st_dev)}:{os.minor(data.stat().st_dev)}")
        if not V2 and device.exists():
            # Version 1 counts only where there is a limit: one that nobody meets.
            (g / "blkio.throttle.read_bps_device").write_text(f"{device.name} {1 << 40}")
        a = agent("--no-bpf", "--pid", t.pid)
        a.next_page()
        command = f"echo $$ > {g}/cgroup.procs; exec dd if={data} of=/dev/null bs=64k iflag=direct status=none"
        if subprocess.run(["sh", "-c", command]).returncode:
            pytest.skip("the file system here has no direct I/O")
        page = a.next_page(2)
        name = "boxo_resource_cgroup_io_bytes_total"
        rows = {s.labels["device"]: s.value for s in page.all(name, operation="read") if s.value}
        if not rows:
            pytest.skip(f"this kernel counted nothing: {file.read_text()!r}")
        assert 4 * MIB <= max(rows.values()) <= 4 * MIB + MIB / 2  # the shell and dd themselves may be read
        if device.exists():
            assert device.resolve().name in rows
        assert page.sum("boxo_resource_cgroup_io_requests_total", operation="read") >= 4
    finally:
        data.unlink(missing_ok=True)


def test_out_of_memory_kills(agent, target, group):
    g = group("memory")
    if not V2 and (not (g / "memory.oom_control").exists() or "oom_kill " not in (g / "memory.oom_control").read_text()):
        pytest.skip("this kernel does not count kills by version 1 cgroup")
    t = target("memory")
    (g / "cgroup.procs").write_text(str(t.pid))
    a = agent("--no-bpf", "--cgroup", g)
    assert a.next_page().value("boxo_resource_oom_kills_total") == 0
    (g / ("memory.max" if V2 else "memory.limit_in_bytes")).write_text(str(16 * MIB))
    assert t.tell("anon 64") == ""
    wait_until("the kill is counted", lambda: a.value("boxo_resource_oom_kills_total") == 1)


def test_a_cgroup_sums_its_processes(agent, target, group):
    g = group("memory")
    watched = [target("memory"), target("memory")]
    outside = target("memory")
    for t in watched:
        (g / "cgroup.procs").write_text(str(t.pid))
    a = agent("--no-bpf", "--cgroup", g)
    before = a.next_page().value("boxo_resource_memory_bytes", type="anon")
    for t in (*watched, outside):
        t.tell("anon 20")
    page = a.next_page()
    assert page.value("boxo_resource_memory_bytes", type="anon") - before == pytest.approx(40 * MIB, abs=MIB)
    assert page.value("boxo_resource_threads", state="sleeping") == 2
    usage = int((g / ("memory.current" if V2 else "memory.usage_in_bytes")).read_text())
    assert page.value("boxo_resource_memory_usage_bytes") == pytest.approx(usage, rel=0.1)
    assert page.value("boxo_resource_memory_usage_bytes") >= 40 * MIB
    # Both end: what they counted stays.
    faults = page.value("boxo_resource_page_faults_total", type="minor")
    for t in watched:
        t.popen.kill()
        t.popen.wait()
    page = wait_until("they are gone", lambda: (p := a.page()).value("boxo_agent_target_up") == 0 and p)
    assert page.value("boxo_resource_page_faults_total", type="minor") >= faults
    assert page.value("boxo_resource_open_fds") is None


def test_cpu_time_of_a_cgroup(agent, target, group):
    g = group("cpu" if V2 else "cpuacct")
    if not V2 and not (g / "cpuacct.usage_user").exists():
        pytest.skip("no version 1 hierarchy with cpuacct here")
    t = target("children")
    (g / "cgroup.procs").write_text(str(t.pid))
    a = agent("--no-bpf", "--cgroup", g)
    t.tell("burn 200")
    t.tell("reap 2 100")
    page = a.next_page()  # nothing in the group runs any more
    if V2:
        usage = sum(fields(g / "cpu.stat")[f"{mode}_usec"] for mode in ("user", "system")) / 1e6
    else:
        usage = int((g / "cpuacct.usage").read_text()) / 1e9
    assert page.sum("boxo_resource_cpu_seconds_total") == pytest.approx(usage, abs=0.02)
    assert usage >= 0.4


def some(file):
    """The microseconds that something waited, of a file of pressures."""
    return int(file.read_text().split("total=")[1].split()[0])


def test_pressure_of_a_cgroup_and_of_the_host(agent, target, group):
    if not pathlib.Path("/proc/pressure/cpu").exists():
        pytest.skip("no pressure stall information here: boot with psi=1")
    t = target("threads", 0, 4)
    a = agent("--no-bpf", "--pid", t.pid)
    before = some(pathlib.Path("/proc/pressure/cpu"))
    page = a.next_page(2)
    assert page.value("boxo_resource_pressure_info", scope="host") == 1
    told = page.value("boxo_resource_pressure_seconds_total", resource="cpu", kind="some")
    assert before <= round(told * 1e6) <= some(pathlib.Path("/proc/pressure/cpu"))
    wait_until("four that spin press on fewer CPUs", lambda: a.value("boxo_resource_cpu_pressure") > 0.5)
    a.stop()
    # One that has nothing to do waits for no CPU, though the host has none to spare.
    idle = agent("--no-bpf", "--pid", target("threads", 8).pid)
    idle.next_page(2)
    before = some(pathlib.Path("/proc/pressure/cpu"))
    page = idle.next_page(2)
    assert some(pathlib.Path("/proc/pressure/cpu")) > before
    assert page.value("boxo_resource_cpu_pressure") == 0
    idle.stop()

    g = group("unified")
    if not (g / "cpu.pressure").exists():
        pytest.skip("no version 2 hierarchy here")
    (g / "cgroup.procs").write_text(str(t.pid))
    a = agent("--no-bpf", "--pid", t.pid)
    page = a.next_page(3)
    assert page.value("boxo_resource_pressure_info", scope="cgroup") == 1
    assert page.value("boxo_resource_pressure_info", scope="host") is None
    told = page.value("boxo_resource_pressure_seconds_total", resource="cpu", kind="some")
    assert 0 < round(told * 1e6) <= some(g / "cpu.pressure")
    for name in ("cpu", "memory", "disk"):
        assert 0 <= page.value(f"boxo_resource_{name}_pressure") <= 1
