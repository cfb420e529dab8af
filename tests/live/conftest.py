# SPDX-License-Identifier: MIT OR Apache-2.0
"""Fixtures for the live tests: the built agent as a child process, its page parsed by prometheus_client.

    def test_threads(agent, target):
        t = target("threads", "5")                       # tests/targets/threads.c, prints READY when its numbers stand
        a = agent("--pid", t.pid)
        assert a.value("boxo_resource_threads", state="sleeping") == 6
"""
import contextlib
import functools
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from nodes import with_parent  # noqa: E402
BUILD = pathlib.Path(os.environ.get("BOXO_BUILD", ROOT / "build"))
AGENT = BUILD / "agent" / "boxo-agent"
TARGETS = BUILD / "tests" / "targets"
CLOCK_TICK = os.sysconf("SC_CLK_TCK")
KERNEL = tuple(int(x) for x in re.findall(r"\d+", os.uname().release)[:2])
# Probes that do not work on every kernel of tests/vm: since when they do.
# readers: iterators over one process; udp: a tracing program remembers something with a socket.
SINCE = {"readers": (6, 1), "udp": (5, 11)}
TOO_OLD = {probe for probe, since in SINCE.items() if KERNEL < since}
PROBES = {f.name.removesuffix(".bpf.c") for f in (ROOT / "bpf").glob("*.bpf.c")}
# Every allowance of time is multiplied by this: tests/vm/run sets it, for machines emulated in software.
SLOW = float(os.environ.get("BOXO_SLOW", "1"))
# Linux 6.18 in a virtual machine was seen not to run programs in interrupts that met a thread of its pid 1, as when the kernel
# lets go of a thread or process: this share of them is not counted there.
LEFT_OUT = 0.1 if KERNEL >= (6, 18) else 0


def pytest_configure(config):
    config.addinivalue_line("markers", "realtime: says nothing where all is emulated; left out by tests/vm/run")


def wait_until(what, condition, timeout=30.0, step=0.02):
    """Waits for condition() to be true and returns its value; fails with `what` otherwise."""
    timeout *= SLOW
    end = time.monotonic() + timeout
    while True:
        late = time.monotonic() > end  # before the look: this process itself may have had no CPU for a while
        value = condition()
        if value:
            return value
        if late:
            pytest.fail(f"not within {timeout} s: {what}")
        time.sleep(step)


def at_rest(pid):
    """Waits until every thread of the process sleeps. A program that has answered does not wait for the next command yet,
    and the kernel may not have counted the answer."""
    def sleeps():
        try:
            return all(stat.read_text().rsplit(")", 1)[1].split()[0] == "S" for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"))
        except (FileNotFoundError, ProcessLookupError):  # a thread has just ended
            return False
    wait_until(f"process {pid} is at rest", sleeps)


def wanted_cpu(pid):
    """For how many seconds the main thread of the process ran or waited for a CPU."""
    ran, waited = pathlib.Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[:2]
    return (int(ran) + int(waited)) / 1e9


def held_up(agent, interval, work):
    """How many collections were left out while work() was done, beside those that others who had the CPU explain."""
    name = "boxo_agent_missed_collections_total"
    wanted, missed = wanted_cpu(agent.pid), agent.value(name)
    work()
    return agent.value(name) - missed - (wanted_cpu(agent.pid) - wanted) / interval


def children(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def removed(path):
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def remove_empty_group(path):
    """Removes a cgroup once all that ran there have ended: the kernel lets go of a process after it is no longer listed."""
    wait_until(f"{path} is empty", lambda: removed(path))


def remove_group(path):
    """Removes a cgroup that a test made; what still runs in it moves to the one above."""
    def moved_and_removed():
        for pid in (path / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                (path.parent / "cgroup.procs").write_text(pid)
        return removed(path)
    wait_until(f"{path} can be removed", moved_and_removed)


class Page:
    """One /metrics page."""

    def __init__(self, text):
        self.text = text

    @functools.cached_property
    def families(self):
        return {f.name: f for f in text_string_to_metric_families(self.text)}

    @functools.cached_property
    def samples(self):
        return [s for f in self.families.values() for s in f.samples]

    def all(self, name, **labels):
        """The samples with this exact sample name whose labels include `labels`."""
        # Reads these lines alone: a test asks hundreds of pages for one number each.
        lines = [line for line in self.text.splitlines() if line.startswith((name + "{", name + " "))]
        return [s for f in text_string_to_metric_families("\n".join(lines) + "\n") for s in f.samples
                if all(s.labels.get(k) == str(v) for k, v in labels.items())]

    def value(self, name, **labels):
        """The one sample that fits; None if there is none; an error if there are several."""
        found = self.all(name, **labels)
        assert len(found) <= 1, f"several {name}{labels}: {found}"
        return found[0].value if found else None

    def sum(self, name, **labels):
        """The sum of all samples that fit; None if there is none."""
        found = self.all(name, **labels)
        return sum(s.value for s in found) if found else None


class Agent:
    def __init__(self, argv, popen, log):
        self.argv, self.popen, self.log_path = argv, popen, log
        self.url = None

    @property
    def pid(self):
        return self.popen.pid

    def log(self):
        return pathlib.Path(self.log_path).read_text(errors="replace")

    def get(self, path):
        """(status, body) of an HTTP GET."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30 * SLOW) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def page(self):
        status, text = self.get("/metrics")
        assert status == 200, text
        return Page(text)

    def next_page(self, ticks=1):
        """A page of a tick that began after this call (ticks=2: the one after it)."""
        name = "boxo_agent_last_collection_timestamp_seconds"
        for _ in range(ticks + 1):
            last = self.page().value(name)
            page = wait_until("next collection", lambda: (p := self.page()).value(name) != last and p, 30)
        return page

    def value(self, name, **labels):
        return self.page().value(name, **labels)

    def stop(self, sig=signal.SIGTERM, timeout=30):
        if self.popen.poll() is None:
            self.popen.send_signal(sig)
        return self.popen.wait(timeout * SLOW)


@pytest.fixture
def agent(tmp_path):
    """agent(*args, interval="200ms", events=…, ready=True, prefix=(), env={}, program=AGENT) starts boxo-agent on a free port."""
    started = []

    def start(*args, interval="200ms", events=None, ready=True, prefix=(), env=None, program=AGENT, **popen):
        n = len(started)
        events = events or tmp_path / f"events{n}.sock"
        args = [str(a) for a in args]
        command = args[args.index("--"):] if "--" in args else []
        options = args[:len(args) - len(command)]
        # tests/vm names the probes that a test is about, since loading all of them takes seconds there.
        only = {"members", *os.environ["BOXO_PROBES"].split()} if "BOXO_PROBES" in os.environ else PROBES
        without = [x for name in sorted(PROBES - only) for x in ("--no-probe", name)]
        argv = [*map(str, prefix), str(program), "--listen", "127.0.0.1:0", "--interval", interval,
                "--events", str(events), *without, *options, *command]
        log = tmp_path / f"agent{n}.log"
        with open(log, "w") as out:
            p = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT,
                                 env={**os.environ, **(env or {})}, **popen)
        a = Agent(argv, p, log)
        a.events = str(events)
        started.append(a)

        def listening():
            assert p.poll() is None, f"agent ended with {p.returncode}: {a.log()}"
            return re.search(r"http://[^\s/]+:\d+", a.log())

        a.url = wait_until("agent listens", listening, 60).group(0)
        if ready:
            wait_until("agent is ready", lambda: a.get("/-/ready")[0] == 200, 60)
        return a

    yield start
    for a in started:
        if a.popen.poll() is None:
            a.popen.terminate()
            try:
                a.popen.wait(30 * SLOW)
            except subprocess.TimeoutExpired:
                a.popen.kill()
                a.popen.wait()
                pytest.fail(f"agent did not end within 30 s of SIGTERM: {a.log()}")


class TargetProgram:
    """A running program of tests/targets: a line on its stdin is a command, it answers with one line."""

    def __init__(self, popen):
        self.popen, self.pid = popen, popen.pid

    def read(self):
        return self.popen.stdout.readline().strip()

    def tell(self, line):
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()
        return self.read()


@pytest.fixture
def started():
    """started(argv) starts a program that speaks as those of tests/targets do, and waits for its READY line."""
    started = []

    def start(argv, **popen):
        p = subprocess.Popen([*map(str, argv)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **popen)
        started.append(p)
        t = TargetProgram(p)
        t.ready = t.read()
        assert t.ready.startswith("READY"), f"{argv} said {t.ready!r}"
        return t

    yield start
    for p in started:
        p.kill()
        p.wait()
        p.stdin.close()
        p.stdout.close()


@pytest.fixture
def target(started):
    """target(name, *args, prefix=()) starts tests/targets/NAME."""

    def start(name, *args, prefix=(), **popen):
        return started([*prefix, TARGETS / name, *args], **popen)

    return start


def growth(before, after, name, **labels):
    """By how much a histogram's (count, sum) rose from one page to the other."""
    return tuple((after.sum(name + part, **labels) or 0) - (before.sum(name + part, **labels) or 0) for part in ("_count", "_sum"))


def administer(*command):
    """What an administrator's tool printed."""
    path = os.environ["PATH"] + ":/sbin:/usr/sbin"
    return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}).stdout.strip()


@contextlib.contextmanager
def skip_without_tools():
    """Skips the test where an administrator's tool fails, with its reason."""
    try:
        yield
    except OSError as e:
        pytest.skip(str(e))
    except subprocess.CalledProcessError as e:
        pytest.skip(f"{e.cmd[0]} does not work here: {e.stderr.strip()}")


@pytest.fixture
def undoing():
    """Where the fixtures below note what is to be undone, the last first. Named before `target` in a test, they are undone
    after what runs there has ended."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def block_device(undoing, tmp_path):
    """block_device(mebibytes=512, image=None, linear=False) makes a disk of a file and returns its path; linear puts a device of
    the device mapper on top of it."""
    count = itertools.count()

    @skip_without_tools()
    def make(mebibytes=512, image=None, linear=False):
        n = next(count)
        image = image or tmp_path / f"image{n}"
        image.touch()
        os.truncate(image, mebibytes * 2**20)
        device = administer("losetup", "--find", "--show", image)
        undoing.callback(administer, "losetup", "--detach", device)
        if linear:
            name = f"boxo-{os.getpid()}-{n}"
            administer("dmsetup", "create", name, "--table", f"0 {administer('blockdev', '--getsz', device)} linear {device} 0")
            undoing.callback(administer, "dmsetup", "remove", "--retry", name)
            device = "/dev/" + administer("dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", name)  # without udev too
        return device

    return make


@pytest.fixture
def file_system(undoing, block_device, tmp_path):
    """file_system("xfs") makes one on a block_device of its own, mounts it, and returns where."""
    count = itertools.count()

    @skip_without_tools()
    def make(kind="ext4", **device):  # mkfs.xfs wants 300 MiB
        where = tmp_path / f"mounted{next(count)}"
        where.mkdir()
        device = block_device(**device)
        administer(f"mkfs.{kind}", "-q", device)
        administer("mount", "-t", kind, device, where)
        undoing.callback(administer, "umount", where)
        return where

    return make


@pytest.fixture
def traced():
    """traced(condition, event...) follows events of the kernel's tracer from now on: the other truth. What it returns gives, when
    called, (seconds, event, what the tracer says) of each that fits the condition. Without the events the test is skipped, or, if
    they are not needed, nothing is returned."""
    tracing = pathlib.Path("/sys/kernel/tracing")
    made = []

    def start(condition, *events, needed=True):
        if missing := [event for event in events if not (tracing / "events" / event).is_dir()]:
            if not needed:
                return None
            pytest.skip(f"this kernel has no event {missing[0]}, or there is no tracefs")
        instance = tracing / f"instances/boxo-{os.getpid()}-{len(made)}"
        instance.mkdir()
        made.append(instance)
        (instance / "buffer_size_kb").write_text("4096")
        (instance / "trace_clock").write_text("mono")
        for event in events:
            (instance / "events" / event / "filter").write_text(condition)
            (instance / "events" / event / "enable").write_text("1")

        def read():
            text = (instance / "trace").read_text()
            told = re.search(r"entries-in-buffer/entries-written: (\d+)/(\d+)", text)
            assert told[1] == told[2], "the tracer's buffer is too small"
            names = "|".join(event.split("/")[1] for event in events)
            return [(float(when), event, what) for when, event, what in re.findall(rf" ([\d.]+): ({names})(?:: |\()(.*)", text)]
        return read

    yield start
    for instance in made:
        instance.rmdir()


@pytest.fixture
def frozen():
    """with frozen(where): nobody's writes to this file system go on, until the end, be it this program's."""
    @contextlib.contextmanager
    def freeze(where):
        p = subprocess.Popen(["sh", "-c", 'fsfreeze -f "$1" && echo frozen; read -r _; fsfreeze -u "$1"', "sh", where],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        try:
            assert p.stdout.readline() == b"frozen\n"
            yield
        finally:
            p.stdin.close()
            p.wait()
            p.stdout.close()
    return freeze


@pytest.fixture
def run_agent():
    """run_agent(*args) runs boxo-agent to its end: (status, stdout, stderr)."""

    def run(*args, timeout=60, **popen):
        r = subprocess.run([str(AGENT), *map(str, args)], capture_output=True, text=True, timeout=timeout * SLOW, **popen)
        return r.returncode, r.stdout, r.stderr

    return run


@pytest.fixture
def short_tmp():
    """A directory with a short path: a Unix socket's path holds at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ba") as d:
        yield pathlib.Path(d)


@pytest.fixture
def world():
    """A pid namespace of its own, so that the only nodes in it are the test's: the command that enters it."""
    if os.getuid() != 0:
        pytest.skip("needs root for a pid namespace")
    holder = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "1000"])
    children = pathlib.Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    first = wait_until("the namespace's first process", lambda: children.read_text().strip())
    wait_until("its own /proc", lambda: "/proc" in pathlib.Path(f"/proc/{first}/mountinfo").read_text()
               and os.readlink(f"/proc/{first}/exe").endswith("sleep"))
    # nsenter stays as the parent; whatever it started ends with it.
    yield ["nsenter", "--target", first, "--pid", "--mount", *with_parent()]
    holder.kill()  # unshare holds SIGTERM back
    holder.wait()
