# SPDX-License-Identifier: MIT OR Apache-2.0
"""The suites of scripts/test: what each runs, how its tests are counted, and one line for each.

A suite is a list of steps, a step is a command and the way to count its tests. A step that ends badly without a failed
test of its own counts as one failed. What each step printed stays in .cache/test-logs.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOGS = ROOT / ".cache" / "test-logs"
PYTHON = "/usr/bin/python3"
BEAT = 30  # seconds between two signs of life


class Counts:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped
        self.reasons = []  # of what was skipped
        self.failures = []  # names of tests

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.reasons += other.reasons
        self.failures += other.failures

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


# ---- how tests are counted: (text of the log, the step) -> Counts ----

def no_count(_text, _step):
    return Counts()


def check(_text, step):
    return Counts(passed=int(step.status == 0))


def doctest(text, step):
    m = re.search(r"test cases:\s*\d+ \|\s*(\d+) passed \|\s*(\d+) failed \|\s*(\d+) skipped", text)
    counts = Counts(*map(int, m.groups())) if m else Counts()
    counts.reasons = [f"{step.name}: {counts.skipped} tests: {step.why}"] if counts.skipped else []
    # The name stands above what failed in it, once for each.
    counts.failures = list(dict.fromkeys(re.findall(r"^TEST CASE:\s+(.*)\n(?:.*\n)*?.*ERROR: ", text, re.MULTILINE)))
    return counts


def plain(text, _step):
    found = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", text, re.MULTILINE)
    counts = Counts(*map(int, found[-1])) if found else Counts()
    counts.reasons = re.findall(r"^.*\bskipped: (.*)$", text, re.MULTILINE) if counts.skipped else []
    counts.failures = re.findall(r"^.*\bFAILED (?:tests/.*)$", text, re.MULTILINE) if counts.failed else []
    return counts


def pytest(_text, step):
    counts = Counts()
    try:
        cases = list(xml.parse(step.junit).getroot().iter("testcase"))
    except (OSError, xml.ParseError):
        return counts
    for case in cases:
        kinds = {child.tag: child for child in case}
        if "failure" in kinds or "error" in kinds:
            counts.failed += 1
            counts.failures.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in kinds:
            counts.skipped += 1
            counts.reasons.append(f"{case.get('name')}: {kinds['skipped'].get('message')}")
        else:
            counts.passed += 1
    return counts


def go_test(text, _step):
    """`go test -json`: only tests, not their subtests; a package that does not build counts as one failed."""
    counts, output, failed_packages, packages_with_failure = Counts(), {}, set(), set()
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        package, test, action = event.get("Package"), event.get("Test"), event.get("Action")
        if action == "output" and test:
            output.setdefault((package, test), []).append(event["Output"].strip())
        elif action == "fail" and not test:
            failed_packages.add(package)
        elif action in ("pass", "fail", "skip") and test and "/" not in test:
            counts.passed += action == "pass"
            counts.failed += action == "fail"
            counts.skipped += action == "skip"
            if action == "fail":
                packages_with_failure.add(package)
                counts.failures.append(f"{package} {test}")
            if action == "skip":
                said = [x for x in output.get((package, test), []) if x and not x.startswith(("===", "---"))]
                counts.reasons.append(f"{test}: {' '.join(said)}")
    counts.failed += len(failed_packages - packages_with_failure)
    return counts


# ---- steps and suites ----

class Step:
    ahead = False  # may run before its turn, while another suite waits

    def __init__(self, name, argv, count=check, cwd=ROOT, timeout=900, why="", **env):
        self.name, self.argv, self.count, self.cwd, self.timeout = name, [str(a) for a in argv], count, cwd, timeout
        self.env, self.why, self.status = env, why, None
        file = re.sub(r"\W+", "-", name)
        self.log, self.junit = LOGS / f"{file}.log", LOGS / f"{file}.xml"
        if count is pytest:
            self.argv = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-r", "fEs", "--tb=short", f"--junitxml={self.junit}",
                         *self.argv]

    def run(self):
        """Counts of what ran; the log's end on the screen if something failed."""
        self.junit.unlink(missing_ok=True)
        start = next_beat = time.monotonic()
        with open(self.log, "wb") as log:
            p = subprocess.Popen(self.argv, cwd=self.cwd, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log, start_new_session=True)
            try:
                while True:
                    try:
                        self.status = p.wait(0.2)
                        break
                    except subprocess.TimeoutExpired:
                        now = time.monotonic()
                        if now - start > self.timeout:
                            log.write(f"\nnot done within {self.timeout} s\n".encode())
                            raise
                        if now - next_beat >= BEAT:
                            next_beat = now
                            say(f"  {self.name}: {now - start:.0f} s so far: {self._last_line()}")
            except subprocess.TimeoutExpired:
                self.status = -1
            finally:
                if self.status is None or self.status < 0:
                    _end_group(p)
        text = self.log.read_text(errors="replace")
        counts = self.count(text, self)
        if self.status != 0 and counts.failed == 0:
            counts.failed = 1
        if counts.failed and not counts.failures:
            counts.failures = [f"status {self.status}: {self.log.relative_to(ROOT)}"]
        if counts.failed:
            tail = "\n".join(readable(text).splitlines()[-60:])
            say(f"{tail}\n  {self.name}: failed (status {self.status}); all it said: {self.log.relative_to(ROOT)}")
        return counts

    def _last_line(self):
        with open(self.log, "rb") as f:
            f.seek(max(0, self.log.stat().st_size - 2000))
            lines = readable(f.read().decode(errors="replace")).strip().splitlines()
        return lines[-1][-100:] if lines else ""


def readable(text):
    """`go test -json` as the text it stands for; everything else as it is."""
    lines = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                line = json.loads(line).get("Output", "").rstrip("\n")
            except ValueError:
                pass
            if not line:
                continue
        lines.append(line)
    return "\n".join(lines)


def _end_group(popen):
    """Ends the step's process group, which is its own."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        try:
            os.killpg(popen.pid, number)
            popen.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def say(text):
    print(text, flush=True)


def build(directory, *options, count=no_count, **env):
    """Steps that configure `directory` if that was not done with these options, and build it."""
    steps = []
    stamp, wanted = ROOT / directory / "boxo-options", repr((options, sorted(env.items())))
    ready = (ROOT / directory / "build.ninja").exists()
    if directory != "build" and (not ready or not stamp.exists() or stamp.read_text() != wanted):
        shutil.rmtree(ROOT / directory, ignore_errors=True)
        ready = False
    if not ready:
        def stamped(_text, step):
            if step.status == 0:
                stamp.write_text(wanted)
            return Counts()
        steps.append(Step(f"configure {directory}", ["meson", "setup", *options, directory], stamped, **env))
    steps.append(Step(f"compile {directory}", ["ninja", "-C", directory], count, timeout=2400))
    for step in steps:
        step.ahead = directory != "build"  # which the tests run in
    return steps


# The sanitizers of clang 14 know the address layouts of older kernels: no randomisation for them.
FIXED = ["setarch", "-R"]
SANITIZED = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0", "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
             "TSAN_OPTIONS": "halt_on_error=0:second_deadlock_stack=1", "BOXO_SLOW": "3"}


# What these measure exactly is the test program itself, to which ThreadSanitizer adds a thread, switches and memory.
OF_ITSELF = ["*kernel_probe_test.cc", "*host_threads_test.cc", "*host_procps_test.cc"]


def unit(directory, prefix=(), without=(), why="", **env):
    exclude = [f"--source-file-exclude={','.join(without)}"] if without else []
    return Step(f"unit {directory}", [*prefix, ROOT / directory / "tests/unit/unit", *exclude], doctest, why=why, **env)


def suite_lint(_args):
    return [Step("shellcheck", ["shellcheck", "-x", "-P", ROOT, *shell_scripts()]),
            *build("build"), Step("rules", ["tests/rules"], pytest)]


def suite_format(_args):
    files = [p for folder in ("agent", "collectors", "tests") for suffix in ("*.cc", "*.h", "*.c")
             for p in sorted((ROOT / folder).rglob(suffix))]
    return [Step("clang-format", ["clang-format", "--dry-run", "-Werror", *files])]


def shell_scripts():
    found = [p for folder in ("scripts", ".ci", "tests", "deploy") for p in sorted((ROOT / folder).rglob("*")) if p.is_file()]
    return [p for p in found if p.suffix == ".sh" or re.match(rb"#!\s*(/usr)?/bin/(env )?(ba|da)?sh\b", p.open("rb").readline(100))]


def suite_unit(_args):
    return [*build("build"), unit("build")]


def suite_live(args):
    kubo = [] if os.environ.get("BOXO_NO_GO") else [Step("kubo", ["scripts/kubo"], no_count, timeout=1800)]
    return [*build("build"), *kubo, Step("live", [*(args or ["tests/live"])], pytest, timeout=1800)]


def suite_deploy(_args):
    return [*build("build"), Step("deploy", ["tests/deploy"], pytest)]


def suite_clang(_args):
    return [*build("build-clang", count=check, CC="clang", CXX="clang++"), unit("build-clang")]


def suite_sanitize(_args):
    clang = {"CC": "clang", "CXX": "clang++"}
    options = ["-Db_lundef=false", "-Doptimization=1"]
    smoke = [f"tests/live/test_{name}.py" for name in ("events", "events_socket", "agent")]
    return [*build("build-asan", "-Db_sanitize=address,undefined", *options, **clang),
            unit("build-asan", FIXED, **SANITIZED),
            pytest_with("live build-asan", smoke, FIXED, BOXO_BUILD=str(ROOT / "build-asan"), **SANITIZED),
            *build("build-tsan", "-Db_sanitize=thread", *options, **clang),
            unit("build-tsan", FIXED, OF_ITSELF, "ThreadSanitizer's own thread would falsify them", **SANITIZED),
            pytest_with("live build-tsan", [p for p in smoke if "events" in p], FIXED, BOXO_BUILD=str(ROOT / "build-tsan"),
                        **{**SANITIZED, "TSAN_OPTIONS": "halt_on_error=1"})]


def pytest_with(name, arguments, prefix, **env):
    step = Step(name, arguments, pytest, timeout=1800, **env)
    step.argv = [*prefix, *step.argv]
    return step


def suite_tidy(_args):
    return [*build("build-clang", CC="clang", CXX="clang++"), Step("clang-tidy", [PYTHON, "scripts/tidy.py", "build-clang"], plain, timeout=2400)]


def suite_go(_args):
    modules = sorted(p.parent for p in (ROOT / "clients").rglob("go.mod") if list(p.parent.rglob("*_test.go")))
    steps = []
    for module in modules:
        name = module.relative_to(ROOT)
        steps += [Step(f"go vet {name}", ["go", "vet", "./..."], cwd=module),
                  Step(f"go test {name}", ["go", "test", "-race", "-json", "./..."], go_test, cwd=module, timeout=1800)]
    return steps


def fuzzed(text, _step):
    """A line `TARGET: N inputs, …` for each target that withstood them."""
    return Counts(passed=len(re.findall(r"^\w+: \d+ inputs", text, re.MULTILINE)))


def suite_fuzz(_args):
    return [Step("fuzz", ["tests/fuzz/run", "60"], fuzzed, timeout=1800)]


def suite_vm(_args):
    kernels = Step("kernels", [PYTHON, "tests/vm/run", "--fetch"], no_count, timeout=1800)
    kernels.ahead = True
    return [*build("build"), kernels, Step("vm", [PYTHON, "tests/vm/run", "--quick"], plain, timeout=5400)]


SUITES = {
    "lint": (suite_lint, "shell scripts, the house's rules"),
    "format": (suite_format, "clang-format (only when asked for)"),
    "unit": (suite_unit, "unit tests (g++)"),
    "live": (suite_live, "the built program against real processes, kernels and nodes"),
    "deploy": (suite_deploy, "manifests, the pod's shape, the unit, the image"),
    "clang": (suite_clang, "clang, warnings are errors; unit tests"),
    "sanitize": (suite_sanitize, "address and undefined behaviour, threads"),
    "tidy": (suite_tidy, "clang-tidy"),
    "go": (suite_go, "the Go modules, with the race detector"),
    "fuzz": (suite_fuzz, "a minute of libFuzzer on what reads events"),
    "vm": (suite_vm, "the probes on Debian's stock kernels 5.10, 6.1 and 6.12, under qemu"),
}
ON_REQUEST = {"format"}
WAITING = {"live", "deploy"}  # most of their time they wait


class Ahead:
    """What the suites to come have to compile and fetch, while a waiting one runs: with idle priority, so that its tests do
    not notice. Ended when such a suite ends: what is not done then is the later suite's own work, and goes on from there."""

    def __init__(self):
        self.process = None

    def begin(self, names):
        if names and not self.process:
            with open(LOGS / "ahead.log", "wb") as log:
                self.process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "chrt", "--idle", "0", PYTHON, __file__,
                                                 "--ahead", *names], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None


def prepare(names):
    """The process of Ahead. What fails here fails again, and is told, in its own suite."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for step in (step for name in names for step in SUITES[name][0]([]) if step.ahead):
        step.run()
    return 0


def cpu_seconds():
    """Of all programs that have run and ended."""
    return sum(os.times()[2:4])


def main(argv):
    if argv[:1] == ["--ahead"]:
        return prepare(argv[1:])
    arguments = argv[argv.index("--") + 1:] if "--" in argv else []
    names = argv[:argv.index("--")] if "--" in argv else argv
    if names == ["--list"]:
        say("\n".join(f"{name:<10}{help_text}" for name, (_, help_text) in SUITES.items()))
        return 0
    if unknown := [n for n in names if n not in SUITES]:
        say(f"scripts/test: no suite {', '.join(unknown)}; there are: {', '.join(SUITES)}")
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    total, begin, done, ahead, failures = Counts(), time.monotonic(), {}, Ahead(), []
    names = names or [n for n in SUITES if n not in ON_REQUEST]
    for i, name in enumerate(names):
        start, cpu, counts = time.monotonic(), cpu_seconds(), Counts()
        if name in WAITING:
            ahead.begin([n for n in names[i + 1:] if n not in WAITING])
        for step in SUITES[name][0](arguments):
            if step.name in done:  # two suites share a build
                continue
            done[step.name] = step.run()
            counts.add(done[step.name])
            failures += [f"{step.name}: {name}" for name in done[step.name].failures]
            if done[step.name].failed and step.count in (no_count, check) and step.name.startswith(("compile", "configure")):
                break
        say(f"{name:<10}{counts}, {time.monotonic() - start:.1f} s, of CPU {cpu_seconds() - cpu:.0f} s")
        for reason in dict.fromkeys(counts.reasons):
            say(f"    skipped: {reason}")
        total.add(counts)
        if not WAITING & set(names[i + 1:i + 2]):
            ahead.end()
    for failure in failures:
        say(f"failed: {failure}")
    say(f"all suites: {time.monotonic() - begin:.0f} s")
    say(str(total))
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
