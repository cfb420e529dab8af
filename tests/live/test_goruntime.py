# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the collector goruntime reads from the memory of a Go program, held against what the program's runtime says of itself."""
import json
import os
import shutil
import subprocess

import pytest

from conftest import AGENT, ROOT, wait_until
from kubo import ipfs, node  # noqa: F401  (fixtures)

MIB = 1 << 20
TOTAL, CENSUS = "boxo_resource_goroutines_total", "boxo_resource_goroutines"
CYCLES, PAUSES = "boxo_resource_gc_cycles_total", "boxo_resource_gc_pause_seconds"
HEAP, ABSENT = "boxo_resource_heap_bytes", "boxo_agent_metric_absent_info"
# What it may take of the heap to answer a command and to wait for the next, in parts that the heap accounts for.
SLACK = 256 << 10
# One for each layout that differs from the others in the table.
TOOLCHAINS = os.environ.get("BOXO_TOOLCHAINS", "go1.22.12 go1.24.13 go1.25.8 go1.27.4").split()
EDGES = [.00001, .00005, .0001, .0005, .001, .005, .01, .05, .1]


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """build(name, *flags, toolchain="") returns the path of the Go program tests/targets/goruntime."""
    if os.environ.get("BOXO_NO_GO"):
        pytest.skip("BOXO_NO_GO is set")
    if not shutil.which("go"):
        pytest.skip("no Go compiler")
    out = tmp_path_factory.mktemp("goruntime")

    def start(name, *flags, toolchain="", cgo="0"):
        if not (out / name).exists():
            env = {**os.environ, "CGO_ENABLED": cgo, "GOFLAGS": ""}
            if toolchain:
                env["GOTOOLCHAIN"] = toolchain
                there = subprocess.run(["go", "version"], capture_output=True, text=True, env=env)
                if toolchain not in there.stdout:
                    pytest.skip(f"{toolchain} cannot be had: {there.stderr.strip()[-200:]}")
            r = subprocess.run(["go", "build", *flags, "-o", out / name, "."], cwd=ROOT / "tests/targets/goruntime",
                               capture_output=True, text=True, env=env)
            assert r.returncode == 0, r.stderr
        return out / name

    return start


@pytest.fixture
def go_program(started):
    """go_program(path, env={}) starts it; it collects garbage only when told to."""

    def start(path, env=None, prefix=(), **popen):
        t = started([*prefix, path], env={**os.environ, "GOGC": "off", **(env or {})}, **popen)
        assert t.ready == "READY"
        return t

    return start


def state(program):
    return json.loads(program.tell("state"))


def census(page):
    return {(s.labels["status"], s.labels["wait_reason"]): int(s.value) for s in page.all(CENSUS)}


def why(page, metric=TOTAL):
    return [s.labels["reason"] for s in page.all(ABSENT, metric=metric)]


def settled(program, **expected):
    """What the program says once so many of its goroutines wait for that."""
    def there():
        now = state(program)
        return all(now["Census"].get(reason.replace("_", " "), 0) == n for reason, n in expected.items()) and now
    return wait_until(f"goroutines wait: {expected}", there, 60)


def holds(page, said, extra=0):
    """The page is what the program said; the main goroutine was running then and waits in a system call now. `extra`: what
    stands ready for C to call Go, which Go counts for its own."""
    seen = census(page)
    assert page.value(TOTAL) == said["Goroutines"]
    for reason, number in said["Census"].items():
        if reason == "running":
            continue
        # The runtime's scavenger sleeps as well, now and then.
        spare = 1 if reason == "sleep" else 0
        assert number <= seen.get(("waiting", reason), 0) <= number + spare, f"{reason}: {seen}"
    assert seen[("syscall", "")] == 1
    own = sum(seen.values()) - said["Goroutines"]
    assert 3 <= own <= 12, f"the runtime's own: {seen}"
    if said["All"] != said["Goroutines"]:  # Go 1.26 counts them too
        assert sum(seen.values()) == said["All"] - extra
    assert page.value(CYCLES) == page.value(PAUSES + "_count") == said["Cycles"]
    assert page.value(PAUSES + "_sum") == pytest.approx(said["PauseTotal"] / 1e9, rel=1e-9, abs=1e-12)
    assert abs(page.value(HEAP) - said["Heap"]) <= SLACK, f"{page.value(HEAP)}, the program says {said['Heap']}"
    assert page.value("boxo_resource_heap_live_bytes") == said["Live"]
    assert page.value("boxo_resource_gomaxprocs") == said["MaxProcs"]


def try_everything(a, program, extra=0):
    said = state(program)
    holds(a.next_page(), said, extra)
    for command in ("receive 7", "select 11", "sleep 5", "lock 3", "read 4"):
        assert program.tell(command) == "OK"
    waiting = {"chan_receive": 7, "select": 11, "sleep": 5, "IO_wait": 4}
    said = settled(program, **waiting)
    assert 3 in said["Census"].values()
    holds(a.next_page(), said, extra)
    assert program.tell("gc 5") == "OK"
    assert program.tell(f"keep {64 * MIB}") == "OK"
    said = state(program)
    assert said["Cycles"] == 5 and said["Heap"] > 64 * MIB
    holds(a.next_page(), said, extra)
    assert program.tell("gc 3") == "OK"
    said = state(program)
    assert said["Live"] > 64 * MIB
    page = a.next_page()
    holds(page, said, extra)
    for edge in EDGES:
        expected = sum(ns / 1e9 <= edge for ns in said["Pauses"])
        assert page.sum(PAUSES + "_bucket", le=f"{edge:g}") == expected
    assert program.tell("end") == "OK"
    said = settled(program, chan_receive=0, select=0)
    page = a.next_page()
    holds(page, said, extra)
    # A series stays.
    assert census(page)[("waiting", "select")] == 0


SHAPES = {"plain": ([], "0"), "pie": (["-buildmode=pie"], "0"), "pie without names for debuggers": (["-buildmode=pie", "-ldflags=-w"], "0"),
          "cgo": (["-tags=withcgo"], "1"), "external": (["-tags=withcgo", "-ldflags=-linkmode=external"], "1"),
          "external pie": (["-tags=withcgo", "-buildmode=pie", "-ldflags=-linkmode=external"], "1"), "trimmed": (["-trimpath"], "0")}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_program_as_it_is_built(agent, build, go_program, shape):
    flags, cgo = SHAPES[shape]
    program = go_program(build(shape.replace(" ", "_"), *flags, cgo=cgo))
    try_everything(agent("--no-bpf", "--pid", program.pid), program, extra=int(cgo))


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_versions_of_go(agent, build, go_program, toolchain):
    program = go_program(build(toolchain, toolchain=toolchain))
    try_everything(agent("--no-bpf", "--pid", program.pid), program)


def test_a_memory_limit_and_processors(agent, build, go_program):
    program = go_program(build("plain"), env={"GOMEMLIMIT": "1GiB", "GOMAXPROCS": "7"})
    a = agent("--no-bpf", "--pid", program.pid)
    page = a.next_page()
    assert page.value("boxo_resource_gomemlimit_bytes") == 1 << 30 == state(program)["MemLimit"]
    assert page.value("boxo_resource_gomaxprocs") == 7
    program = go_program(build("plain"))
    a = agent("--no-bpf", "--pid", program.pid)
    assert why(a.next_page(), "boxo_resource_gomemlimit_bytes") == ["no limit is set (GOMEMLIMIT)"]


def test_what_cannot_be_read_says_why(agent, build, go_program, target):
    program = go_program(build("stripped", "-ldflags=-s -w"))
    page = agent("--no-bpf", "--pid", program.pid).next_page()
    for name in (TOTAL, CENSUS, CYCLES, PAUSES, HEAP):
        assert page.sum(name) is None
        assert why(page, name) == ["stripped: no symbol table: build it without -ldflags=-s"]
    page = agent("--no-bpf", "--pid", target("threads", "2").pid).next_page()
    assert why(page) == ["no process of the target is a Go program"]


def test_an_experiment_and_an_unknown_version_say_so(agent, build, go_program, tmp_path):
    plain = build("plain").read_bytes()
    version = b"go1." + plain.split(b"go1.", 1)[1][:4].split(b"\0")[0]
    assert version.startswith(b"go1.2")
    path = tmp_path / "unknown"
    path.write_bytes(plain.replace(version[:6], b"go1.99"))
    path.chmod(0o755)
    program = go_program(path)
    page = agent("--no-bpf", "--pid", program.pid).next_page()
    assert why(page)[0].startswith("it was built by go1.99") and "scripts/go-layouts" in why(page)[0]


def test_without_the_right_to_read(agent, build, go_program):
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody else")
    program = go_program(build("plain"))
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    socket = f"/tmp/boxo-goruntime-{os.getpid()}.sock"
    a = agent("--no-bpf", "--pid", program.pid, "--collector", "goruntime", prefix=nobody, events=socket)
    [reason] = why(a.next_page())
    assert "Permission denied" in reason or "Operation not permitted" in reason
    assert "CAP_SYS_PTRACE" in reason


def test_with_the_one_capability(agent, build, go_program):
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody else")
    program = go_program(build("plain"), cwd="/")
    only = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+sys_ptrace", "--ambient-caps=+sys_ptrace",
            "--bounding-set=-all,+sys_ptrace"]
    a = agent("--no-bpf", "--pid", program.pid, "--collector", "goruntime", prefix=only,
              events=f"/tmp/boxo-goruntime-{os.getpid()}.sock")
    program.tell("receive 5")
    holds(a.next_page(2), settled(program, chan_receive=5))  # what it keeps after the first collection is enough


# Refuses process_vm_readv, as a container's filter of system calls may.
FILTER = """
import ctypes, os, struct, sys
code = b"".join(struct.pack("HBBI", *x) for x in
                [(0x20, 0, 0, 0), (0x15, 0, 1, 310), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7fff0000)])
text = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_where_a_filter_refuses_the_call(agent, build, go_program, run_agent):
    if os.uname().machine != "x86_64":
        pytest.skip("the filter is for x86-64")
    program = go_program(build("plain"))
    try_everything(agent("--no-bpf", "--pid", program.pid, prefix=["/usr/bin/python3", "-c", FILTER]), program)
    checked = subprocess.run(["/usr/bin/python3", "-c", FILTER, AGENT, "--check", "--no-bpf", "--pid", str(program.pid),
                              "--events", "", "--collector", "goruntime"], capture_output=True, text=True)
    assert "/proc/PID/mem" in checked.stdout, checked.stdout + checked.stderr
    status, out, _ = run_agent("--check", "--no-bpf", "--pid", program.pid, "--events", "", "--collector", "goruntime")
    assert status == 0 and "process_vm_readv" in out


def test_more_pauses_than_the_runtime_remembers(agent, build, go_program):
    program = go_program(build("plain"))
    program.tell("gc 700")
    said = state(program)
    a = agent("--no-bpf", "--pid", program.pid)
    page = a.next_page()
    assert page.value(CYCLES) == said["Cycles"] == 700
    assert page.value(PAUSES + "_count") == 255
    assert page.value(PAUSES + "_sum") == pytest.approx(sum(said["Pauses"][:255]) / 1e9, rel=1e-9)
    # From then on none is missed.
    for _ in range(3):
        program.tell("gc 200")
        a.next_page()
    page = a.next_page()
    assert (page.value(CYCLES), page.value(PAUSES + "_count")) == (1300, 855)


def test_a_restart_keeps_what_was_counted(agent, build, go_program, world):
    path = build("plain")
    first = go_program(path, prefix=world)
    first.tell("gc 4")
    total = state(first)["PauseTotal"]
    a = agent("--no-bpf", "--comm", path.name, prefix=world)
    assert a.next_page().value(CYCLES) == 4
    first.popen.stdin.close()
    first.popen.wait(20)
    wait_until("the end is noticed", lambda: a.value("boxo_agent_target_up") == 0, 20)
    page = a.next_page()
    assert page.value(CYCLES) == 4 and page.value(TOTAL) is None
    assert why(page) == ["the target is not running"]
    second = go_program(path, prefix=world)
    second.tell("gc 3")
    total += state(second)["PauseTotal"]
    page = wait_until("the new one is read", lambda: (p := a.next_page()).value(TOTAL) and p, 30)
    assert page.value(CYCLES) == page.value(PAUSES + "_count") == 7
    assert page.value(PAUSES + "_sum") == pytest.approx(total / 1e9, rel=1e-9)


@pytest.mark.parametrize("shape", ["plain", "pie"])
def test_exec_begins_anew_and_fork_counts_once(agent, build, go_program, shape):
    program = go_program(build(shape, *SHAPES[shape][0]))
    a = agent("--no-bpf", "--pid", program.pid, interval="100ms")
    for _ in range(3):
        program.tell("gc 5")
    a.next_page()
    for _ in range(100):  # in the moment between fork and exec there are two that show this memory
        assert program.tell("fork") == "OK"
    said = state(program)
    page = a.next_page()
    assert page.value(CYCLES) == 15
    assert page.value(TOTAL) == said["Goroutines"]
    assert program.tell("exec") == "READY"
    program.tell("gc 16")
    assert a.next_page(2).value(CYCLES) == 31
    assert a.value(TOTAL) == state(program)["Goroutines"]


def test_a_copy_counts_once(agent, build, go_program):
    """C may fork without exec."""
    program = go_program(build("cgo", *SHAPES["cgo"][0], cgo="1"))
    a = agent("--no-bpf", "--pid", program.pid)
    program.tell("receive 50")
    program.tell("gc 3")
    said = settled(program, chan_receive=50)
    assert program.tell("copy") == "OK"
    page = a.next_page()
    assert page.value("boxo_agent_target_processes") == 2
    holds(page, said, 1)


def test_a_program_and_its_child_are_summed(agent, build, go_program):
    program = go_program(build("plain"))
    a = agent("--no-bpf", "--pid", program.pid)
    program.tell("gc 4")
    child = json.loads(program.tell("child 100"))
    assert (child["Goroutines"], child["Cycles"]) == (101, 2)
    page = a.next_page()
    said = state(program)
    assert page.value(TOTAL) == said["Goroutines"] + child["Goroutines"]
    assert page.value(CYCLES) == page.value(PAUSES + "_count") == 6
    assert abs(page.value(HEAP) - said["Heap"] - child["Heap"]) <= 2 * SLACK


def test_ten_thousand_goroutines(agent, build, go_program):
    program = go_program(build("plain"))
    a = agent("--no-bpf", "--pid", program.pid)
    program.tell("receive 10000")
    said = settled(program, chan_receive=10000)
    page = wait_until("they are counted anew", lambda: census(p := a.next_page()).get(("waiting", "chan receive")) == 10000 and p, 30)
    assert page.value(TOTAL) == said["Goroutines"]
    program.tell("end")
    said = settled(program, chan_receive=0)
    page = wait_until("their end is counted", lambda: census(p := a.next_page())[("waiting", "chan receive")] == 0 and p, 30)
    assert page.value(TOTAL) == said["Goroutines"] < 10


def test_a_wild_program_is_read_without_nonsense(agent, build, go_program):
    program = go_program(build("plain"))
    a = agent("--no-bpf", "--pid", program.pid, "--collector", "goruntime", interval="100ms")
    program.tell("churn 10")
    program.tell("receive 500")
    for _ in range(25):
        page = a.next_page()
        assert page.value("boxo_agent_collector_success", collector="goruntime") == 1
        if (total := page.value(TOTAL)) is None:
            assert all("changed while it was read" in x for x in why(page)), why(page)
            continue
        assert 400 <= total <= 4000
        seen = census(page)
        if seen:
            assert 400 <= sum(seen.values()) <= 4000, seen
            assert all(n >= 0 for n in seen.values())
        assert 0 < page.value(HEAP) < 1 << 30
        program.tell("gc 1")
    program.tell("churn 0")
    program.tell("end")
    said = state(program)
    page = a.next_page(2)
    assert page.value(TOTAL) == said["Goroutines"] == 1
    assert page.value(CYCLES) == page.value(PAUSES + "_count") == said["Cycles"]


def test_programs_that_end_while_they_are_read(agent, build, go_program, world):
    path = build("plain")
    a = agent("--no-bpf", "--comm", path.name, "--collector", "goruntime", interval="100ms", prefix=world)
    cycles = None
    for begun in range(1, 21):
        program = go_program(path, prefix=world)
        program.tell("receive 2000")
        program.tell("gc 1")
        program.popen.kill()
        program.popen.wait()
        page = a.page()
        assert page.value("boxo_agent_collector_success", collector="goruntime") == 1
        now = page.value(CYCLES)
        if cycles is not None or now is not None:  # once there it stays, be the program running, gone or about to begin
            assert now is not None, why(page, CYCLES)
            assert (cycles or 0) <= now <= begun
            assert page.value(PAUSES + "_count") == now
            cycles = now


def test_kubo_as_it_counts_itself(agent, node):
    daemon = node()
    a = agent("--no-bpf", "--pid", daemon.pid, interval="100ms")

    def own():
        text = daemon.metrics()
        return {name: float(next(line.split()[1] for line in text.splitlines() if line.startswith(name + " ")))
                for name in ("go_goroutines", "go_gc_duration_seconds_count", "go_gc_duration_seconds_sum")}

    cycles = "go_gc_duration_seconds_count"

    def same():
        before, page, after = own(), a.next_page(), own()
        if not before[cycles] == after[cycles] > 0:
            return None
        assert page.value(CYCLES) == page.value(PAUSES + "_count") == after[cycles]
        assert page.value(PAUSES + "_sum") == pytest.approx(after["go_gc_duration_seconds_sum"], rel=1e-6)
        # To answer takes the node a few goroutines more than it has afterwards, and others come and go.
        return min(before["go_goroutines"], after["go_goroutines"]) - 20 <= page.value(TOTAL) <= max(before["go_goroutines"], after["go_goroutines"])

    wait_until("the agent and kubo agree", same, 60)
