# SPDX-License-Identifier: MIT OR Apache-2.0
"""The house's rules, held against the source tree: who may include whom, one door for each library, licences, sizes."""
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
ROOMS = ("host", "kernel", "golang", "events")
MAX_LINES = 600

# Library: (its headers, the files that may name them). One package, one door. doctest and libFuzzer are the tests' own.
DOORS = {
    "libbpf": (r"bpf/|gelf|libelf", r"collectors/kernel/|bpf/|tests/bench/"),
    "libproc2": (r"libproc2/", r"collectors/host/\w+\.cc$"),
    "libmnl": (r"libmnl/", r"collectors/host/\w+\.cc$"),
    "prometheus-cpp": (r"prometheus/", r"agent/exporter\.cc$"),
    "CLI11": (r"CLI/", r"agent/options\.cc$"),
    "libmicrohttpd": (r"microhttpd", r"agent/http\.cc$"),
    "libcap-ng": (r"cap-ng", r"agent/privileges\.cc$"),
    "doctest": (r"doctest", r"tests/"),
}
# Libraries whose door is one single file wherever they are used.
ONE_FILE = {"libproc2", "libmnl", "prometheus-cpp", "CLI11", "libmicrohttpd", "libcap-ng"}
SYSTEM = re.compile(r"(sys|linux|asm|arpa|net|netinet|bits)/|[a-z0-9_]+$")  # the kernel's, libc's folders; C++'s own
LIBC = set("assert ctype cxxabi dirent dlfcn elf endian errno fcntl fnmatch ftw getopt glob grp inttypes libgen limits link locale malloc "
           "math mntent netdb poll pthread pwd sched semaphore setjmp signal spawn stdarg stdatomic stdbool stddef stdint "
           "stdio stdlib string strings syscall syslog termios threads time ucontext unistd utime wchar".split())


def tracked():
    listing = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                             capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout: no list of the project's files")
    return sorted(p for x in listing.stdout.split("\0") if x and (p := ROOT / x).is_file())


FILES = {str(p.relative_to(ROOT)): p for p in tracked()}


def lines(path):
    return FILES[path].read_text(errors="replace").splitlines()


def sources(*suffixes, under=""):
    return [x for x in FILES if x.startswith(under) and x.endswith(suffixes)]


def includes(path):
    """[(line number, "<" or '"', name)]"""
    found = (re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', text) for text in lines(path))
    return [(n, m.group(1), m.group(2)) for n, m in enumerate(found, 1) if m]


def report(wrong):
    __tracebackhide__ = True
    assert not wrong, "\n" + "\n".join(wrong)


CODE = sources(".cc", ".h", ".c")


def room(path):
    """"host" of collectors/host/x.cc; "" for what lies in collectors itself; None elsewhere."""
    m = re.match(r"collectors/(?:(\w+)/)?[^/]+$", path)
    return (m.group(1) or "") if m else None


def test_include_directions():
    """agent -> collectors -> bpf's shared headers, and no room knows another."""
    wrong = []
    for path in CODE:
        if path.startswith("tests/"):
            continue
        for n, kind, name in includes(path):
            if kind == "<":
                continue
            where = f"{path}:{n} includes {name}"
            if name.startswith("agent/") and not path.startswith("agent/"):
                wrong.append(f"{where}: only agent/ may know agent/")
            if path.startswith("bpf/") and name.startswith("collectors/"):
                wrong.append(f"{where}: the kernel side knows nobody")
            if (other := room(name)) and room(path) in ROOMS and other != room(path):
                wrong.append(f"{where}: rooms do not know each other")
            if (other := room(name)) and path.startswith("collectors/") and room(path) == "":
                wrong.append(f"{where}: the vocabulary knows no room")
            if name.startswith("tests/"):
                wrong.append(f"{where}: the program does not know its tests")
            if ".." in name:
                wrong.append(f"{where}: a path from the project's root, please")
    report(wrong)


def test_one_package_one_door():
    wrong, used = [], {}
    for path in CODE:
        for n, kind, name in includes(path):
            library = next((k for k, (headers, _) in DOORS.items() if re.match(headers, name)), None)
            if library and kind == "<":
                used.setdefault(library, set()).add(path)
                if not re.match(DOORS[library][1], path):
                    wrong.append(f"{path}:{n} includes {name}: {library} is named in {DOORS[library][1]} only")
                if path.endswith(".h") and not path.startswith(("collectors/kernel/", "bpf/", "tests/")):
                    wrong.append(f"{path}:{n}: no type of {library} in a header")
            elif kind == "<" and not SYSTEM.match(name) and name.removesuffix(".h") not in LIBC:
                wrong.append(f"{path}:{n} includes {name}: a library without a door (name it in DOORS)")
    wrong += [f"{library} is named in several places: {', '.join(sorted(files))}"
              for library, files in used.items() if library in ONE_FILE and len(files) > 1]
    report(wrong)


def test_numbers_of_first_namespaces():
    """What the kernel fixes for good is written down once."""
    home = "collectors/process_id.h"
    report([f"{path}:{n}: the inode number of one of the machine's first namespaces belongs in {home}"
            for path in CODE if path != home
            for n, text in enumerate(lines(path), 1) if re.search(r"0xEFFFFFF\w\b", text, re.IGNORECASE)])


def first_lines(path):
    head = lines(path)[:3]
    return head[1] if head and head[0].startswith("#!") and len(head) > 1 else head[0] if head else ""


def scripts():
    """Files without a suffix that begin with #!."""
    return [x for x, p in FILES.items() if "." not in p.name and p.open("rb").read(2) == b"#!"]


def test_licences():
    """The kernel side is MIT or GPL, because the kernel asks for the GPL; everything else MIT or Apache."""
    wrong = []
    for path in [*CODE, *sources(".py", ".sh", ".go"), *scripts()]:
        kernel_side = re.search(r"\.bpf\.[ch]$", path)
        expected = "MIT OR GPL-2.0-only" if kernel_side else "MIT OR Apache-2.0"
        head = first_lines(path)
        # A header of bpf/ that both sides include is everybody's.
        fits = re.search(r"SPDX-License-Identifier: (MIT OR [\w.-]+(?: OR [\w.-]+)*)(?: \*/)?$", head)
        if not fits or (fits.group(1) != expected and not re.match(r"bpf/[^/]+\.h$", path)):
            wrong.append(f"{path}: the first line is not `SPDX-License-Identifier: {expected}`")
    for path in sources(".bpf.c"):
        if not re.search(r'"Dual MIT/GPL"', FILES[path].read_text()) and not license_by_header(path):
            wrong.append(f'{path}: no license string "Dual MIT/GPL"')
    report(wrong)


def license_by_header(path):
    """Whether a header of bpf/ that `path` includes holds the license string for all."""
    headers = [FILES.get(f"bpf/{name.removeprefix('bpf/')}") for _, kind, name in includes(path) if kind == '"']
    return any('"Dual MIT/GPL"' in h.read_text() for h in headers if h)


def test_sizes():
    """One idea a file."""
    report([f"{path}: {n} lines, more than {MAX_LINES}"
            for path in [*CODE, *sources(".py", ".sh", ".go"), *scripts()] if (n := len(lines(path))) > MAX_LINES])


def test_words():
    """What has no place here: paths of somebody's machine, notes to oneself, banners."""
    home = re.compile(r"(?<![\w.~$}-])/(?:root|work|home|Users)/\w")
    note = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
    banner = re.compile(r"^\s*(?://|#|\*)\s*[=*#/-]{8,}")
    wrong = []
    for path in FILES:
        if path == "tests/rules/test_rules.py" or path.endswith((".sum", ".json", ".svg", ".png")) or "/corpus/" in path:
            continue
        for n, text in enumerate(lines(path), 1):
            for what, pattern in (("a path of one machine", home), ("a note to oneself", note), ("a banner", banner)):
                if m := pattern.search(text):
                    wrong.append(f"{path}:{n}: {what}: {m.group(0).strip()}")
    report(wrong)


def listed(meson, variable):
    """The names that a meson.build gives to `variable`."""
    if meson not in FILES:
        return set()
    text = re.sub(r"#.*", "", FILES[meson].read_text())
    return {x for block in re.findall(rf"\b{variable}\s*\+?=\s*\[(.*?)\]", text, re.S) for x in re.findall(r"'([^']+)'", block)}


def test_nothing_is_forgotten():
    """A file that no meson.build names is never built, and a test of it never runs."""
    wrong = []
    for folder, suffix, variable in (("bpf/", ".bpf.c", "probe_names"), ("tests/unit/", "_test.cc", "unit_tests")):
        names = listed(f"{folder}meson.build", variable)
        wrong += [f"{x}: its name is missing in {folder}meson.build" for x in sources(suffix, under=folder)
                  if pathlib.Path(x).name.removesuffix(suffix) not in names and "/" not in x[len(folder):]]
    for path in sources(".cc", under="collectors/") + sources(".cc", under="agent/"):
        folder, name = path.rsplit("/", 1)
        if name.removesuffix(".cc") not in (text := FILES[f"{folder}/meson.build"].read_text()) and name not in text:
            wrong.append(f"{path}: its name is missing in {folder}/meson.build")
    report(wrong)


def collectors():
    """The names of all collectors, as their constants say them."""
    found = (re.findall(r"const CollectorInfo \w+_collector(?: = )?\{\s*\"(\w+)\"", FILES[x].read_text())
             for x in sources(".cc", under="collectors/"))
    return {name for names in found for name in names}


@pytest.mark.parametrize("what, names, page", [
    ("probe", listed("bpf/meson.build", "probe_names"), "docs/probes.md"),
    ("collector", collectors(), "docs/collectors.md"),
])
def test_documented(what, names, page):
    assert len(names) > 5
    text = FILES[page].read_text()
    report([f"{what} {name} is not in {page}" for name in sorted(names) if f"| `{name}` |" not in text])


def test_the_page_of_kernels_is_as_new_as_its_tests(monkeypatch):
    """docs/kernels.md is what a run printed: of so many tests in each file, under this heading."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/vm"))
    import inside
    import table
    page = table.PAGE.read_text()
    assert page.startswith(table.HEAD)
    wanted = {name.removeprefix("test_").removesuffix(".py"): {len(tests)} for name, tests in inside.NEAR.items()}
    told = {name: {sum(map(int, re.findall(r"\d+", cell))) for cell in cells.split("|") if cell.strip()}
            for name, cells in re.findall(r"^\| tests: (\w+) \|(.*)", page, re.M)}
    assert told.pop("kernels") and told.pop("lockdown")
    assert told == wanted, "make it anew: tests/vm/run --quick --table"


def test_no_static_initialisers():
    """Nothing runs before main: no object of the program registers a constructor. But for the door to CLI11, whose header
    brings its own."""
    objects = [p for folder in ("agent", "collectors") for p in (BUILD / folder).rglob("*.cc.o") if p.name != "options.cc.o"]
    if not objects:
        pytest.skip(f"no objects below {BUILD}: build first")
    table = subprocess.run(["nm", "-A", "--defined-only", *map(str, objects)], capture_output=True, text=True, check=True).stdout
    report([line.split(":")[0].removeprefix(f"{BUILD}/") + ": runs code before main" for line in table.splitlines() if " _GLOBAL__sub_I_" in line])
