# SPDX-License-Identifier: MIT OR Apache-2.0
"""Whom the agent watches: every kind of target, held against processes whose fate the test decides."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import uuid

import pytest
from conftest import CLOCK_TICK, children, remove_empty_group, wait_until
from processes import SLEEP, Obedient, group, into, kill, processes, program, restarts, start, unique

HERE = pathlib.Path(__file__).resolve().parent
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

# A process that obeys: "fork" makes a child that does nothing, "double" one whose own parent ends on "orphan", each
# answered with a pid; "exec PATH" becomes another program.
OBEDIENT = """
import os, signal, sys
print("READY", flush=True)
middle, go = 0, -1
for line in sys.stdin:
    word = line.split()
    if word[0] == "fork":
        pid = os.fork()
        if pid == 0:
            signal.pause()
        print(pid, flush=True)
    elif word[0] == "double":
        told, tell = os.pipe()
        wait, go = os.pipe()
        middle = os.fork()
        if middle == 0:
            os.close(go)
            grandchild = os.fork()
            if grandchild == 0:
                signal.pause()
            os.write(tell, b"%d" % grandchild)
            os.read(wait, 1)
            os._exit(0)
        print(os.read(told, 20).decode(), flush=True)
    elif word[0] == "orphan":
        os.write(go, b"x")
        os.waitpid(middle, 0)
        print("done", flush=True)
    elif word[0] == "reap":
        os.waitpid(int(word[1]), 0)
        print("done", flush=True)
    elif word[0] == "exec":
        os.execv(word[1], [word[1], "1000"])
"""


@pytest.fixture
def obedient(start):
    def run(prefix=(), python=sys.executable):
        return Obedient(start(*prefix, python, "-c", OBEDIENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    return run


def inner_pid(pid):
    """The pid of a process in its own pid namespace."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:"))


def test_children_are_followed(agent, obedient):
    t = obedient()
    a = agent("--pid", t.pid, interval="100ms")
    processes(a, 1)
    kids = [int(t.tell("fork")) for _ in range(3)]
    processes(a, 4)
    os.kill(kids[0], signal.SIGKILL)
    t.tell(f"reap {kids[0]}")
    processes(a, 3)
    # The main process ends: the target is down for good, whatever comes of its children.
    t.popen.kill()
    t.popen.wait()
    processes(a, 0)
    assert restarts(a) == 0
    assert os.path.exists(f"/proc/{kids[1]}"), "the child lives on"
    a.next_page(3)
    processes(a, 0)
    assert f"pid {t.pid} has ended" in a.log()


def test_a_grandchild_stays_when_its_parent_ends(agent, obedient):
    t = obedient()
    a = agent("--pid", t.pid, interval="100ms")
    grandchild = int(t.tell("double"))
    processes(a, 3)
    t.tell("orphan")
    stat = pathlib.Path(f"/proc/{grandchild}/stat").read_text()
    assert int(stat.rsplit(")", 1)[1].split()[1]) != t.pid, "somebody else is its parent now"
    processes(a, 2)
    a.next_page(3)
    processes(a, 2)
    os.kill(grandchild, signal.SIGKILL)
    processes(a, 1)


@pytest.mark.parametrize("where", ["here", "in a pid namespace"])
def test_a_grandchild_stays_whose_parent_nobody_saw(agent, obedient, request, where):
    """The kernel has seen both come."""
    inside = () if where == "here" else request.getfixturevalue("namespace")
    t = obedient(prefix=inside)
    main = children(t.pid)[0] if inside else t.pid
    a = agent("--pid", inner_pid(main), interval="1s", prefix=inside)
    if a.next_page().value("boxo_agent_probe_up", probe="members") != 1:
        pytest.skip("no BPF")
    a.next_page()
    t.tell("double")
    t.tell("orphan")
    assert children(main) == [], "somebody else is its parent now"
    processes(a, 2)
    # The scheduler's probe follows it, too: were it let go, nobody would count its waits any more.
    for page in (a.next_page(), a.next_page()):
        assert page.value("boxo_agent_target_processes") == 2
        assert page.sum("boxo_resource_threads") == 2


def test_what_is_not_reaped_has_ended(agent, start, program):
    p = start(program(unique()), "1000")
    a = agent("--pid", p.pid, interval="100ms")
    processes(a, 1)
    p.kill()  # and nobody waits for it: a zombie
    processes(a, 0)
    assert p.returncode is None and os.path.exists(f"/proc/{p.pid}")


def test_a_pid_that_is_a_thread(run_agent, short_tmp, start):
    p = start(sys.executable, "-c", "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()")
    tasks = wait_until("two threads", lambda: len(t := os.listdir(f"/proc/{p.pid}/task")) == 2 and t)
    thread = next(t for t in tasks if t != str(p.pid))
    status, _, err = run_agent("--pid", thread, "--events", short_tmp / "e")
    assert status == 4
    assert thread in err and f"its process, {p.pid}" in err


@pytest.mark.parametrize("length", [8, 15, 24])
def test_a_name_is_waited_for_and_found_again_within_two_intervals(agent, start, program, length):
    """Which is by the first collection that begins after it was started."""
    path = program(unique(length))
    a = agent("--comm", path.name, interval="500ms")
    processes(a, 0)
    assert f"no process named {path.name} yet" in a.log()
    p = start(path, "1000")
    processes(a, 1)
    assert restarts(a) == 0
    for n in (1, 2, 3):
        p.kill()
        p.wait()
        p = start(path, "1000")
        page = a.next_page()
        assert page.value("boxo_agent_target_restarts_total") == n
        assert page.value("boxo_agent_target_processes") == page.value("boxo_agent_target_up") == 1
        assert f"pid {p.pid} " in a.log()


def test_a_name_that_only_begins_like_it_is_another(agent, start, program):
    path = program("tprefix-of-some-long-name")
    start(path, "1000")
    a = agent("--comm", "tprefix-of-some-other-name", interval="100ms")
    a.next_page(3)
    processes(a, 0)


def test_exec_is_no_restart_for_a_pid_and_the_end_of_a_name(agent, obedient, program, tmp_path):
    name = unique()
    python = tmp_path / name
    python.symlink_to(os.path.realpath(sys.executable))
    t = obedient(python=str(python))
    other = program(unique())
    by_pid = agent("--pid", t.pid, interval="100ms")
    by_name = agent("--comm", name, interval="100ms")
    processes(by_pid, 1)
    processes(by_name, 1)
    t.order(f"exec {other}")
    processes(by_name, 0)
    by_pid.next_page(3)
    processes(by_pid, 1)
    assert restarts(by_pid) == 0


def test_a_name_with_everything_in_it(agent, start, program):
    path = program("t) R (\n\"x\" 1")
    p = start(path, "1000")
    for target in (("--pid", p.pid), ("--comm", path.name)):
        a = agent(*target, interval="100ms")
        processes(a, 1)
        assert len([line for line in a.log().splitlines() if str(p.pid) in line]) >= 1


@pytest.mark.parametrize("name", ["absolute", "as in /proc/PID/cgroup"])
def test_a_cgroup_with_all_that_is_in_it(agent, start, program, group, name):
    first = into(group, start, program)
    wait_until("it is there", lambda: str(first.pid) in (group / "cgroup.procs").read_text().split())
    a = agent("--cgroup", group if name == "absolute" else "/" + group.name, interval="100ms")
    processes(a, 1)
    (group / "sub").mkdir()
    second = into(group / "sub", start, program)
    third = into(group, start, program)
    processes(a, 3)
    kill(third)
    processes(a, 2)
    kill(first)
    processes(a, 1)
    assert restarts(a) == 0, "one that was there before goes on"
    kill(second)
    processes(a, 0)
    third = into(group, start, program)
    processes(a, 1)
    assert restarts(a) == 1
    kill(third)


def test_a_cgroup_that_is_made_again(agent, start, program, group):
    group.rmdir()
    a = agent("--cgroup", "/" + group.name, interval="100ms")
    processes(a, 0)
    assert f"no cgroup /{group.name} yet" in a.log()
    for n in range(3):
        group.mkdir()
        p = into(group, start, program)
        processes(a, 1)
        assert restarts(a) == n
        kill(p)
        remove_empty_group(group)
        processes(a, 0)
    group.mkdir()


def test_a_container_by_the_first_digits_of_its_id(agent, start, program, group, run_agent, short_tmp):
    ids = [uuid.uuid4().hex * 2 for _ in range(2)]
    ids[1] = ids[0][:6] + ids[1][6:]
    containers = [group / "docker" / ids[0], group / f"docker-{ids[1]}.scope"]
    a = agent("--container", ids[0][:12], interval="100ms")
    processes(a, 0)
    for c in containers:
        c.mkdir(parents=True)
    p = [into(c, start, program) for c in containers]
    processes(a, 1)
    assert f"pid {p[0].pid} " in a.log()
    status, _, err = run_agent("--container", ids[0][:6], "--events", short_tmp / "e")
    assert status == 2
    assert ids[0] in err and ids[1] in err and "give more of the id" in err
    # Started again under the same id, as docker restart does.
    kill(p[0])
    remove_empty_group(containers[0])
    processes(a, 0)
    containers[0].mkdir()
    p[0] = into(containers[0], start, program)
    processes(a, 1)
    assert restarts(a) == 1
    kill(*p)


SLICES = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f2e_4d.slice/"
# What precedes the id in a pod's status, the container's group, and that of the runtime's own process beside it.
RUNTIMES = {
    "containerd and systemd": ("containerd://", SLICES + "cri-containerd-{}.scope", None),
    "containerd alone": ("containerd://", "kubepods/burstable/pod1f2e-4d/{}", None),
    "containerd without a running systemd": ("containerd://", "kubepods-burstable-pod1f2e_4d.slice:cri-containerd:{}", None),
    "CRI-O": ("cri-o://", SLICES + "crio-{}.scope/container", SLICES + "crio-conmon-{}.scope"),
    "podman": ("", "machine.slice/libpod-{}.scope/container", "machine.slice/libpod-conmon-{}.scope"),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_container_of_each_runtime(agent, start, program, group, runtime):
    scheme, path, beside = RUNTIMES[runtime]
    ours, other = (uuid.uuid4().hex * 2 for _ in range(2))
    a = agent("--container", scheme + ours, "--no-bpf", interval="100ms")
    processes(a, 0)

    def run(path, name):
        (group / path.format(name)).mkdir(parents=True)
        return into(group / path.format(name), start, program)

    # Another container of the pod, and what holds this one's terminal.
    others = [run(path, other)] + ([run(beside, ours)] if beside else [])
    a.next_page(3)
    processes(a, 0)
    first = run(path, ours)
    processes(a, 1)
    assert f"pid {first.pid} " in a.log()
    second = into(group / path.format(ours), start, program)
    processes(a, 2)
    kill(first, second, *others)
    processes(a, 0)


def test_the_target_in_a_pid_namespace_below(agent, obedient):
    t = obedient(prefix=NAMESPACE)
    inside = wait_until("the namespace's first process", lambda: children(t.pid))[0]
    assert inner_pid(inside) == "1"
    a = agent("--pid", inside, interval="100ms")
    processes(a, 1)
    t.tell("fork")
    t.tell("double")
    processes(a, 4)
    t.tell("orphan")
    processes(a, 3)
    os.kill(inside, signal.SIGKILL)
    processes(a, 0)


@pytest.fixture
def namespace(start):
    """A pid namespace with a /proc of its own: the prefix that puts a command into it."""
    holder = start(*NAMESPACE, SLEEP, "1000")
    inside = wait_until("the namespace's first process", lambda: children(holder.pid))[0]
    wait_until("its own /proc", lambda: pathlib.Path(f"/proc/{inside}/comm").read_text() == "sleep\n")
    yield ("nsenter", "--target", str(inside), "--pid", "--mount")
    os.kill(inside, signal.SIGKILL)
    holder.wait()


def test_both_in_one_pid_namespace(agent, obedient, namespace):
    t = obedient(prefix=namespace)
    inner = inner_pid(children(t.pid)[0])
    a = agent("--pid", inner, interval="100ms", prefix=namespace)
    processes(a, 1)
    assert f"pid {inner} " in a.log()
    t.tell("fork")
    t.tell("double")
    processes(a, 4)
    t.tell("orphan")
    processes(a, 3)


@pytest.fixture
def pod():
    """Two groups with a memory limit each, as the containers of a pod have them; and how to run a command in one of
    them, in a cgroup namespace and below a mount that show this group alone."""
    top, v1 = pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/sys/fs/cgroup/memory")
    if (v1 / "release_agent").exists():
        root, limit, mount = v1, "memory.limit_in_bytes", f"mkdir {v1} && mount -t cgroup -o memory none {v1}"
    elif "memory" in (top / "cgroup.subtree_control").read_text():
        root, limit, mount = top, "memory.max", f"mount -t cgroup2 none {top}"
    else:
        pytest.skip("no memory controller for groups made here")
    groups = [root / unique() for _ in range(2)]
    prefixes = []
    for group, mib in zip(groups, (512, 64)):
        group.mkdir()
        (group / limit).write_text(str(mib << 20))
        inner = f"mount --make-rprivate / && mount -t tmpfs none {top} && {mount} && exec \"$@\""
        prefixes.append(("sh", "-c", f"echo $$ > {group}/cgroup.procs && exec unshare --cgroup --mount sh -c '{inner}' sh \"$@\"",
                         "sh"))
    yield groups, prefixes
    for group in groups:
        remove_empty_group(group)


@pytest.mark.parametrize("kind", ["--pid", "--comm", "--cgroup"])
def test_the_limit_is_the_targets_though_the_agent_sees_only_its_own_group(agent, start, program, pod, kind):
    (_, theirs), (here, there) = pod
    path = program(unique())
    p = start(*there, path, "1000")
    wait_until("it runs", lambda: pathlib.Path(f"/proc/{p.pid}/comm").read_text() == path.name + "\n")
    a = agent(kind, {"--pid": p.pid, "--comm": path.name, "--cgroup": f"/../{theirs.name}"}[kind], prefix=here)
    processes(a, 1)
    assert a.next_page().value("boxo_resource_memory_limit_bytes") == 64 << 20
    kill(p)
    processes(a, 0)
    a.stop()


@pytest.fixture(scope="session")
def boxonode(tmp_path_factory):
    """A Go program with a package of boxo in it, in several shapes."""
    if not shutil.which("go"):
        pytest.skip("no Go compiler")
    out = tmp_path_factory.mktemp("boxonode")

    def build(name, *flags, strip=False):
        r = subprocess.run(["go", "build", *flags, "-o", out / name, "."], cwd=HERE.parent / "targets/boxonode",
                           capture_output=True, text=True)
        assert r.returncode == 0, r.stderr
        if strip:  # leaves no section table
            image = bytearray((out / name).read_bytes())
            image[40:48], image[58:64] = bytes(8), bytes(6)
            (out / name).write_bytes(image)
            (out / name).chmod(0o755)
        return out / name

    return build


@pytest.mark.parametrize("name,flags,strip", [
    ("plain", (), False),
    ("stripped", ("-ldflags=-s -w",), False),
    ("pie", ("-buildmode=pie",), False),
    ("no-sections", ("-ldflags=-s -w",), True),
    ("pie-no-sections", ("-buildmode=pie", "-ldflags=-s -w"), True),
])
def test_a_boxo_based_program_is_found_by_itself(agent, start, namespace, boxonode, name, flags, strip):
    path = boxonode(name, *flags, strip=strip)
    a = agent(interval="100ms", prefix=namespace)
    processes(a, 0)
    assert "no boxo-based process yet" in a.log()

    def node():
        p = start(*namespace, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert p.stdout.readline() == "READY\n"
        return p

    first = node()
    time.sleep(0.3)  # ticks of the agent: the second one is too young to be taken when the first one is
    second = node()
    processes(a, 1)
    stat = pathlib.Path(f"/proc/{children(first.pid)[0]}/stat").read_text()
    lived = time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat.rsplit(")", 1)[1].split()[19]) / CLOCK_TICK
    assert lived > 2.5, "it must have lived for a while"
    assert f"pid {inner_pid(children(first.pid)[0])} " in a.log(), "the older one"
    os.kill(children(first.pid)[0], signal.SIGKILL)
    other = f"pid {inner_pid(children(second.pid)[0])} ("
    wait_until("the other one is taken", lambda: f"watching {other}" in a.log())
    processes(a, 1)
    assert restarts(a) == 0, "it has been running"
