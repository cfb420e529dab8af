# SPDX-License-Identifier: MIT OR Apache-2.0
"""The agent with fewer privileges than root's: file capabilities, and the special cases of docs/privileges.md."""
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

import pytest
from conftest import AGENT, KERNEL, SLOW, TOO_OLD, at_rest, children, wait_until

NOBODY, SOMEBODY = 65534, 4321
NUMBERS = {"CHOWN": 0, "DAC_READ_SEARCH": 2, "KILL": 5, "SETPCAP": 8, "NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21,
           "SYS_RESOURCE": 24, "PERFMON": 38, "BPF": 39}  # linux/capability.h
FOUR = ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"]
# Before 5.11 maps count against the limit on locked memory.
MAPS = ["SYS_RESOURCE"] if KERNEL < (5, 11) else []
IO = "boxo_resource_io_bytes_total"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give and to take capabilities")
needs_bpf = pytest.mark.skipif(not os.path.exists("/sys/kernel/btf/vmlinux"), reason="eBPF needs a kernel with BTF")


def as_user(user, groups=None):
    return ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={groups}" if groups else "--clear-groups", "--inh-caps=-all"]


def without(capability):
    """As root, but for this capability, for good."""
    return ["setpriv", f"--bounding-set=-{capability.lower()}", f"--inh-caps=-{capability.lower()}"]


def held(pid, which="CapPrm"):
    """The capabilities of a process by name; one that this test does not know by number."""
    bits = int(re.search(rf"^{which}:\s+(\w+)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1], 16)
    names = {number: name for name, number in NUMBERS.items()}
    return {names.get(n, n) for n in range(64) if bits >> n & 1}


@pytest.fixture
def place():
    """A directory that everybody may enter, below a mount on which capabilities of files count; `run` in it is NOBODY's."""
    top = next((d for d in ("/var/tmp", "/tmp", "/opt", "/usr/local") if not os.statvfs(d).f_flag & (os.ST_NOSUID | os.ST_NOEXEC)), None)
    if top is None:
        pytest.skip("every directory tried is mounted nosuid or noexec")
    with tempfile.TemporaryDirectory(prefix="ba", dir=top) as d:
        path = pathlib.Path(d)
        path.chmod(0o755)
        (path / "run").mkdir()
        os.chown(path / "run", NOBODY, NOBODY)
        yield path


@pytest.fixture
def installed(place):
    """installed(names) is a copy of the agent with these capabilities, which anybody may run."""

    def install(names):
        program = place / "boxo-agent"
        shutil.copy(AGENT, program)
        program.chmod(0o755)
        if names:
            setcap = shutil.which("setcap", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
            if not setcap:
                pytest.skip("no setcap (package libcap2-bin)")
            r = subprocess.run([setcap, ",".join(f"cap_{n.lower()}" for n in names) + "+ep", program], capture_output=True, text=True)
            if "not supported" in r.stderr:
                pytest.skip(f"files in {place.parent} cannot have capabilities")
            assert r.returncode == 0, r.stderr
        return program

    return install


# Has seven descriptors. A number on its stdin: writes as many bytes; "sleep": sleeps twenty times.
NODE = """
import os, sys, time
null = [os.open("/dev/null", os.O_WRONLY) for _ in range(4)][0]
print("READY", flush=True)
for line in sys.stdin:
    if line == "sleep\\n":
        for _ in range(20): time.sleep(0.002)
    else:
        os.write(null, bytes(int(line)))
    print("DONE", flush=True)
"""


@pytest.fixture
def node(started):
    """A target that is SOMEBODY's."""
    return started([*as_user(SOMEBODY), sys.executable, "-c", NODE])


def check_io_and_fds(a, node):
    def written():
        at_rest(node.pid)
        return a.next_page().value(IO, operation="write")

    before = written()
    assert node.tell("100000") == "DONE"
    assert written() - before == 100000 + len("DONE\n")
    page = a.page()
    assert page.value("boxo_resource_open_fds") == len(os.listdir(f"/proc/{node.pid}/fd")) == 7
    assert page.value("boxo_resource_memory_bytes", type="pss") > 0


def check_probes(a, node, but=()):
    page = a.page()
    up = {s.labels["probe"]: s.value for s in page.all("boxo_agent_probe_up")}
    assert up["sched"] and {probe for probe, works in up.items() if not works} - TOO_OLD == set(but) - TOO_OLD, a.log()
    before = page.sum("boxo_resource_offcpu_seconds_count", reason="sleep") or 0
    assert node.tell("sleep") == "DONE"
    # Once in a while a kernel in a virtual machine leaves out half of the events.
    assert a.next_page().sum("boxo_resource_offcpu_seconds_count", reason="sleep") - before >= 5


@needs_bpf
@pytest.mark.parametrize("more", [[], ["SETPCAP", "CHOWN", "KILL", "NET_ADMIN", "SYS_ADMIN"]], ids=["four", "more"])
def test_file_capabilities_are_enough_and_no_more_than_needed_are_kept(agent, installed, place, node, more):
    program = installed(FOUR + MAPS + more)
    a = agent("--pid", node.pid, program=program, events=place / "run/e", prefix=as_user(NOBODY))
    assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t" in pathlib.Path(f"/proc/{a.pid}/status").read_text()
    check_probes(a, node, but=[] if more else ["udp"])
    check_io_and_fds(a, node)
    wait_until("the rest is dropped", lambda: held(a.pid) == set(FOUR))
    assert held(a.pid, "CapEff") == set(FOUR)
    if more:  # else it may not change it
        assert held(a.pid, "CapBnd") == set(FOUR)
    assert "NoNewPrivs:\t1\n" in pathlib.Path(f"/proc/{a.pid}/status").read_text()
    threads = {p.joinpath("comm").read_text().strip(): p.name for p in pathlib.Path(f"/proc/{a.pid}/task").iterdir()}
    for name in ("events", "http"):
        assert held(f"{a.pid}/task/{threads[name]}") == set(), name
    # What is left is enough for all that is to come.
    check_probes(a, node, but=[] if more else ["udp"])
    check_io_and_fds(a, node)


@needs_bpf
def test_as_the_user_of_the_node_two_file_capabilities_are_enough(agent, installed, place, node):
    """For its own memory the kernel treats such a program as another user's."""
    yama = pathlib.Path("/proc/sys/kernel/yama/ptrace_scope")
    if yama.exists() and yama.read_text() != "0\n":
        pytest.skip("nobody may read the memory of others here: kernel.yama.ptrace_scope is not 0")
    os.chown(place / "run", SOMEBODY, SOMEBODY)
    a = agent("--pid", node.pid, program=installed(["BPF", "PERFMON", *MAPS]), events=place / "run/e", prefix=as_user(SOMEBODY))
    check_probes(a, node, but=["udp"])
    check_io_and_fds(a, node)
    wait_until("the rest is dropped", lambda: held(a.pid) == {"BPF", "PERFMON"})
    # What it tells of itself, too.
    by_root = agent("--pid", node.pid)
    own, roots = ({s.name for s in x.next_page().samples if s.name.startswith("boxo_agent_")} for x in (a, by_root))
    assert "boxo_agent_memory_bytes" in own and roots - own == set()


@needs_bpf
def test_a_command_does_not_inherit_file_capabilities(agent, installed, place):
    a = agent("--", "sleep", "1000", program=installed(FOUR + MAPS + ["KILL"]), events=place / "run/e", prefix=as_user(NOBODY))
    [command] = children(a.pid)
    # Its name it has already before it becomes the program.
    wait_until("it runs", lambda: pathlib.Path(f"/proc/{command}/cmdline").read_text() == "sleep\0001000\0")
    assert held(command) == held(command, "CapInh") == held(command, "CapAmb") == set()
    page = a.next_page()
    assert page.value("boxo_agent_target_up") == 1 and page.value("boxo_agent_probe_up", probe="sched") == 1
    assert page.all(IO)
    wait_until("the rest is dropped", lambda: held(a.pid) == {*FOUR, "KILL"})
    assert a.stop() == 128 + 15


@needs_bpf
def test_what_takes_file_capabilities_away(installed, place):
    program = installed(FOUR + MAPS)

    def check(option="--inh-caps=-all"):
        # The first setpriv keeps root's capabilities until it becomes another program.
        r = subprocess.run([*as_user(NOBODY), "setpriv", option, program, "--check", "--interval", "100ms", "--pid", str(os.getpid()),
                            "--events", place / "run/e"], capture_output=True, text=True, timeout=60 * SLOW)
        row = re.search(r"^ +sched +(yes|no) +(.*)$", r.stdout, re.M)
        return row.groups() if row else r.stderr

    missing = "not permitted: give the agent CAP_BPF and CAP_PERFMON"
    assert check()[0] == "yes"
    assert check("--no-new-privs")[0] == "no" and missing in check("--no-new-privs")[1]
    refused = subprocess.run(["setpriv", "--bounding-set=-bpf", *as_user(NOBODY), program, "--version"], capture_output=True, text=True)
    assert refused.returncode and "Operation not permitted" in refused.stderr, "the kernel does not start it"
    with open(program, "ab") as f:
        f.write(b"\0")
    assert check()[0] == "no" and missing in check()[1], "one that was written to has none"


def test_without_any_capability_what_is_missing_says_so(agent, installed, place, node):
    program = installed([])
    a = agent("--pid", node.pid, program=program, events=place / "run/e", prefix=as_user(NOBODY))
    page = a.next_page()
    up = page.all("boxo_agent_probe_up")
    assert len(up) > 5 and {s.value for s in up} == {0}
    absent = {s.labels["metric"]: s.labels["reason"] for s in page.all("boxo_agent_metric_absent_info")}
    if os.path.exists("/sys/kernel/btf/vmlinux"):
        assert "give the agent CAP_BPF and CAP_PERFMON" in absent["boxo_resource_offcpu_seconds"]
        assert a.log().count("kernel probes are off: not permitted: give the agent CAP_BPF and CAP_PERFMON") == 1
    for name in (IO, "boxo_resource_disk_write_bytes_total", "boxo_network_sockets"):
        assert not page.all(name) and "CAP_SYS_PTRACE" in absent[name], name
    for name in ("boxo_resource_cpu_seconds_total", "boxo_resource_memory_bytes", "boxo_resource_threads", "boxo_resource_max_fds"):
        assert page.all(name), f"{name}: what everybody may read is there"
    assert bool(page.all("boxo_resource_open_fds")) == (KERNEL >= (6, 2)), "before, only the owner of the descriptors may count them"
    wait_until("nothing can be gained any more", lambda: "NoNewPrivs:\t1\n" in pathlib.Path(f"/proc/{a.pid}/status").read_text())
    assert held(a.pid) == set()


@pytest.mark.parametrize("prefix", [[], without("KILL")], ids=["with", "without"])
def test_cap_kill_passes_signals_on_to_a_command_that_changed_its_user(agent, prefix):
    a = agent("--no-bpf", "--", *as_user(SOMEBODY), "sleep", "1000", prefix=prefix)
    [command] = children(a.pid)
    status = pathlib.Path(f"/proc/{command}/status")
    try:
        wait_until("it changed its user and program", lambda: (s := status.read_text()) and f"Uid:\t{SOMEBODY}\t" in s and "Name:\tsleep\n" in s)
        wait_until("the rest is dropped", lambda: "CHOWN" not in held(a.pid))
        assert ("KILL" in held(a.pid)) == (not prefix)
        a.popen.terminate()
        if not prefix:
            assert a.popen.wait(30 * SLOW) == 128 + 15
            return
        wait_until("it says so", lambda: "cannot pass signal 15 on to the command: Operation not permitted" in a.log())
        assert "CAP_KILL" in a.log() and "Name:\tsleep\n" in status.read_text()
        os.kill(command, 9)
        assert a.popen.wait(30 * SLOW) == 128 + 9
    finally:
        if a.popen.poll() is None:
            os.kill(command, 9)


def test_cap_kill_is_dropped_where_there_is_no_command(agent):
    a = agent("--no-bpf", "--pid", os.getpid())
    wait_until("the rest is dropped", lambda: "CHOWN" not in held(a.pid))
    assert "KILL" not in held(a.pid)


CHOWN = [*as_user(NOBODY)[:-1], "--inh-caps=-all,+chown", "--ambient-caps=+chown"]


@pytest.mark.parametrize("prefix", [CHOWN, as_user(NOBODY, groups=12345)], ids=["capability", "member"])
def test_cap_chown_or_membership_gives_the_socket_to_a_group(agent, installed, place, prefix):
    a = agent("--no-bpf", "--pid", os.getpid(), "--events-group", 12345, program=installed([]), events=place / "run/e", prefix=prefix)
    assert (place / "run/e").stat().st_gid == 12345
    wait_until("the rest is dropped", lambda: held(a.pid) == set())


@pytest.mark.parametrize("prefix", [without("CHOWN"), as_user(NOBODY)], ids=["root", "nobody"])
def test_without_cap_chown_the_group_of_another_is_refused(installed, place, prefix):
    r = subprocess.run([*prefix, installed([]), "--no-bpf", "--listen", "127.0.0.1:0", "--pid", str(os.getpid()),
                        "--events", place / "run/e", "--events-group", "12345"], capture_output=True, text=True, timeout=60 * SLOW)
    assert r.returncode == 3
    assert "cannot give it to the group of --events-group: Operation not permitted: be a member of that group" in r.stderr


@needs_bpf
def test_cap_sys_resource_is_needed_before_5_11_only(agent):
    """Where the limit on locked memory is small."""
    def limited():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))

    a = agent("--pid", os.getpid(), prefix=without("SYS_RESOURCE"), preexec_fn=limited)
    up = a.value("boxo_agent_probe_up", probe="members")
    if KERNEL < (5, 11):
        assert up == 0 and "then give CAP_SYS_RESOURCE too" in a.log(), a.log()
        assert agent("--pid", os.getpid(), preexec_fn=limited).value("boxo_agent_probe_up", probe="members") == 1
    else:
        assert up == 1, a.log()
