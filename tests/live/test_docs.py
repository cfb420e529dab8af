# SPDX-License-Identifier: MIT OR Apache-2.0
"""The manual against the program: the same options with the same values and defaults, the same metrics."""
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "man").glob("*.[1-8]"))
AGENT_8 = ROOT / "man/boxo-agent.8"
METAVAR = r"[A-Z]+(?:[:=][A-Z]+)?"


def options_of_help(text):
    """Option: (value, default) of every option of --help."""
    found = {}
    for name, value, rest in re.findall(rf"^  (--[a-z-]+)(?: ({METAVAR}))?(.*(?:\n {{20,}}.*)*)", text, re.M):
        default = re.search(r"\(default:? (.*?)\)", rest)
        found[name] = (value, default and " ".join(default.group(1).split()))
    return found


def options_of_page(source):
    """The same of the page's source, where `.It Fl -name Ar VALUE` begins an option's item."""
    found = {}
    for item in re.split(r"^\.It ", source, flags=re.M)[1:]:
        head, body = item.split("\n", 1)
        if not (name := re.match(r"Fl -([a-z-]+)(?: Ar (\S+))?$", head)):
            continue
        body = re.split(r"^\.El", body, flags=re.M)[0]
        words = " ".join(re.sub(r"^\.\w+ ", "", line) for line in body.splitlines())
        default = re.search(r"The default is (?:the )?(.*?) ?\.( |$)", words)
        found["--" + name[1]] = (name[2] or "", default and default.group(1).replace(" ,", ","))
    return found


@pytest.fixture
def help_options(run_agent):
    status, out, _ = run_agent("--help")
    assert status == 0
    options = options_of_help(out)
    assert len(options) > 20 and options["--listen"] == ("ADDR:PORT", "127.0.0.1:9559")
    return options


def test_every_option_is_in_both(help_options):
    page = options_of_page(AGENT_8.read_text())
    assert {o: v for o, (v, _) in help_options.items()} == {o: v for o, (v, _) in page.items()}


def test_defaults_are_the_same(help_options):
    page = options_of_page(AGENT_8.read_text())
    told = {o: d for o, (_, d) in help_options.items() if d}
    assert told and {o: page[o][1] for o in told} == told
    assert {o for o, (_, d) in page.items() if d} == set(told), "defaults that only the page tells"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_are_clean(page):
    for command in (["mandoc", "-Tlint"], ["groff", "-mandoc", "-ww", "-Tutf8", "-z"]):
        assert shutil.which(command[0]), f"{command[0]} is missing"
        r = subprocess.run([*command, page], capture_output=True, text=True)
        # Which other pages are installed, and listed in a database, is the machine's affair.
        said = [line for line in (r.stdout + r.stderr).splitlines()
                if "referenced manual not found" not in line and "outdated mandoc.db" not in line]
        assert said == [], command[0]


def test_exit_codes_and_paths_are_in_the_page():
    text = AGENT_8.read_text()
    for path in ("/metrics", "/-/healthy", "/-/ready", "/"):
        assert f".It Pa {path}\n" in text
    status = text.split(".Sh EXIT STATUS")[1].split(".Sh")[0]
    assert re.findall(r"^\.It (\d)", status, re.M) == ["0", "2", "3", "4"]


def test_capabilities_are_those_of_the_document_and_of_the_program():
    def named(text):
        return set(re.findall(r"CAP_[A-Z_]+", text))

    page = AGENT_8.read_text().split(".Ss Capabilities")[1].split(".Sh")[0]
    listed = named("".join(re.findall(r"^\.It Dv .*", page, re.M)))
    document = (ROOT / "docs/privileges.md").read_text()
    rows = named("".join(re.findall(r"^\| `CAP_.*?\|", document, re.M)))
    assert listed == rows and len(rows) > 8
    code = named((ROOT / "agent/privileges.cc").read_text()) - {"CAP_SETPCAP", "CAP_LAST_CAP"}
    four = named("".join(re.findall(r"^\| `CAP_.*?\|", document.split("### ")[0].split("| Needed in special")[0], re.M)))
    assert len(four) == 4
    assert four | named(document.split("## What the agent gives up")[1].split("Everything else goes")[0]) == code
    assert four | named(page.split("it keeps the first four")[1].split("Every other")[0]) == code


def test_the_configuration_of_the_page_is_one(run_agent, tmp_path):
    block = AGENT_8.read_text().split('comm = "ipfs"')[1].split(".Ed")[0]
    path = tmp_path / "boxo-agent.toml"
    path.write_text('comm = "ipfs"' + block)
    status, _, err = run_agent("--config", path, "--list")
    assert (status, err) == (0, "")


def rows_of_list(text):
    """(name, labels, type, unit, source) of every row of --list."""
    rows = set()
    for line in text.splitlines()[1:]:
        name, kind, unit, source = re.split(r"  +", line)[:4]
        name, _, labels = name.rstrip("}").partition("{")
        rows.add((name, labels, kind, "" if unit == "-" else unit, source))
    return rows


def rows_of_page(text):
    """The same of the tables of docs/metrics.md."""
    rows = set()
    for line in text.splitlines():
        if line.startswith("| `boxo_"):
            name, kind, unit, labels, source = (cell.strip().strip("`") for cell in line.split(" | ")[:5])
            rows.add((name.lstrip("| `"), labels.replace(" ", ""), kind, unit, source.replace(" ", "")))
    return rows


def test_metrics_page_is_the_programs_list(run_agent):
    status, out, _ = run_agent("--list")
    assert status == 0
    listed, written = rows_of_list(out), rows_of_page((ROOT / "docs/metrics.md").read_text())
    assert len(listed) > 50
    assert listed - written == set(), "not in docs/metrics.md (scripts/metrics-doc writes its tables)"
    assert written - listed == set(), "in docs/metrics.md, but not in this build"


def labels_of_list(text):
    """Name: its labels, of every row of --list."""
    return {name: set(labels.split(",")) for name, labels, *_ in rows_of_list(text)}


PROSE = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *PAGES) if p.name not in ("metrics.md", "kernels.md")]
# Custom metrics.
EXAMPLES = re.compile(r"boxo_(myapp_\w*|NAME)$")


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.name)
def test_every_metric_that_is_named_exists(run_agent, page):
    listed = labels_of_list(run_agent("--list")[1])
    named = set(re.findall(r"(?<![\w/.-])boxo_[a-zA-Z0-9_]+", page.read_text()))
    base = {n: re.sub(r"_(bucket|sum|count)$", "", n) for n in named}
    beginnings = {n for n in named if n.endswith("_") and any(name.startswith(n) for name in listed)}
    assert [n for n in sorted(named - beginnings) if n not in listed and base[n] not in listed and not EXAMPLES.match(n)] == []


def test_queries_are_promql_and_their_labels_exist(run_agent, tmp_path):
    listed = labels_of_list(run_agent("--list")[1])
    blocks = re.findall(r"^```promql\n(.*?)^```", (ROOT / "docs/troubleshooting.md").read_text(), re.M | re.S)
    queries = [line for block in blocks for line in block.splitlines()]
    assert len(queries) > 30
    rules = [f"  - record: q{n}\n    expr: '{query}'\n" for n, query in enumerate(queries)]
    path = tmp_path / "rules.yml"
    path.write_text("groups:\n- name: docs\n  rules:\n" + "".join(rules))
    r = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    for query in queries:
        # It may be the limit of a group above: nothing that is the target's alone is a share of it.
        assert "/ boxo_resource_memory_limit_bytes" not in re.sub(r"ignoring \(\w*\) ", "", query)
        names = [re.sub(r"_(bucket|sum|count)$", "", n) for n in re.findall(r"boxo_\w+", query)]
        known = set().union(*(listed[n] for n in names)) | {"instance", "le"}
        used = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", query))
        for group in re.findall(r"(?:by|without|ignoring) \(([^)]*)\)", query):
            used |= {label.strip() for label in group.split(",")}
        assert used <= known, query
