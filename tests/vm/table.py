# SPDX-License-Identifier: MIT OR Apache-2.0
"""docs/kernels.md, written from what the runs of tests/vm/run left."""
import collections
import json
import pathlib
import re
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kernels.md"
CIRCUMSTANCES = "6.1"  # the kernel on which they are shown

HEAD = """# Which kernel can do what

Written by `tests/vm/run --quick --table`; not edited by hand. Each column is a run of `boxo-agent --check` and of the live tests:
Debian's stock kernels booted under qemu with all cgroup controllers, and the kernel of the machine that made this page
(the last column). ✔ works; a number is the reason why not, listed below the table. The tests are counted by the file they
are in; a run that was not complete has none.

What `--check` looked at is one process of root's with a cgroup and a network namespace of its own, which has written a file on
a disk and has sockets. It is no Go program: the rows of `goruntime` say nothing of the kernel. An agent without privileges runs in
its network namespace, as one beside a node in a pod does.
"""


class Report:
    """The rows of one `--check`: name -> (works, detail), in order; and the metrics that are not exported."""

    def __init__(self, text):
        self.rows, self.missing = {}, {}
        table, _, rest = text.partition("\nNot exported:\n")
        group = ""
        for line in table.splitlines()[1:]:
            m = re.match(r"(  )?(\S.*?) {2,}(yes|no) +(.*)$", line)
            if not m:
                continue
            if not m.group(1):
                group = m.group(2)
            name = f"{group}: {m.group(2)}" if m.group(1) else group
            self.rows[name] = (m.group(3) == "yes", m.group(4))
        for line in rest.splitlines():
            if m := re.match(r"  (\S+) +(.*)$", line):
                self.missing[m.group(1)] = m.group(2)
        self.rows.pop("target", None)


class Run:
    """One directory that a run left."""

    def __init__(self, directory):
        self.name = directory.name
        self.facts = json.loads((directory / "kernel.json").read_text())
        self.checks = {f.name.removeprefix("check "): Report(f.read_text()) for f in sorted(directory.glob("check *"))}
        self.tests = self._tests(directory)

    @staticmethod
    def _tests(directory):
        """What came of the tests, by the file they are in."""
        counts = {}
        for case in (c for junit in directory.glob("junit*.xml") for c in xml.parse(junit).getroot().iter("testcase")):
            kinds = {x.tag for x in case}
            result = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            counts.setdefault(case.get("classname").split(".")[-1], collections.Counter())[result] += 1
        return {name: ", ".join(f"{n} {what}" for what in ("passed", "failed", "skipped") if (n := count[what]))
                for name, count in counts.items()}

    def title(self):
        """Debian's kernels by the version they are built from, which `uname -r` does not tell."""
        debian = re.search(r"Debian (\d[\w.+~]*)", self.facts["version"])
        return f"Debian {debian.group(1)}" if debian else re.match(r"\d+\.\d+\.\d+", self.facts["release"]).group(0)


class Reasons:
    """Numbers reasons in the order in which they are met."""

    def __init__(self):
        self._known = {}

    def mark(self, reason):
        return str(self._known.setdefault(reason, len(self._known) + 1))

    def text(self):
        return "".join(f"{n}. {reason}\n" for reason, n in self._known.items())


def lines_of(header, rows):
    yield "| " + " | ".join(header) + " |"
    yield "|---" * len(header) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def plain(text):
    """A reason without what differs from run to run."""
    return re.sub(r"/proc/\d+/", "/proc/PID/", re.sub(r"\bpid \d+", "pid PID", text)).replace("|", "\\|")


def features(reports):
    """Rows of what works, a column for each report, and why not."""
    names = list(dict.fromkeys(n for r in reports for n in r.rows))
    reasons, rows = Reasons(), []
    for name in names:
        cells = []
        for report in reports:
            works, detail = report.rows.get(name, (None, ""))
            cells.append("" if works is None else "✔" if works else reasons.mark(plain(detail)))
        rows.append([name, *cells])
    # What an application tells is no matter of the kernel.
    for name in sorted({n for r in reports for n, why in r.missing.items() if "no event of the application" not in why}):
        rows.append([f"`{name}`", *("✔" if name not in r.missing else reasons.mark(plain(r.missing[name])) for r in reports)])
    return rows, reasons


def write(out):
    runs = {d.name: Run(d) for d in out.iterdir() if (d / "kernel.json").exists() and (d / "check as root").exists()}
    main = sorted((r for n, r in runs.items() if not n.endswith("-v1")),
                  key=lambda r: [int(x) for x in re.findall(r"\d+", r.title())])
    facts = [["BTF", *("✔" if r.facts["btf"] else "-" for r in main)],
             ["kprobe_events in tracefs", *("✔" if r.facts["kprobes"] else "-" for r in main)],
             ["cgroup", *(r.facts["cgroup"] for r in main)],
             ["PSI", *("✔" if r.facts["psi"] else "-" for r in main)],
             *([f"tests: {name.removeprefix('test_')}", *(r.tests.get(name, "") for r in main)]
               for name in sorted({n for r in main for n in r.tests}))]
    rows, reasons = features([r.checks["as root"] for r in main])
    text = [HEAD, "## Kernels", "", *lines_of(["", *(r.title() for r in main)], facts + rows), "", reasons.text()]
    if base := runs.get(CIRCUMSTANCES):
        cases = {k: v for k, v in base.checks.items() if k != "as root"}
        if v1 := runs.get(f"{CIRCUMSTANCES}-v1"):
            cases["cgroup v1"] = v1.checks["as root"]
        rows, reasons = features(list(cases.values()))
        text += [f"## Circumstances, on {base.title()}", "", *lines_of(["", *cases], rows), "", reasons.text()]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(text).rstrip() + "\n")
