# SPDX-License-Identifier: MIT OR Apache-2.0
"""Public DogStatsD clients, unmodified and as they come from their registries, against the agent."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from conftest import SLOW, wait_until

PROGRAMS = pathlib.Path(__file__).parent / "events_clients"
GO_CLIENT = "github.com/DataDog/datadog-go/v5@v5.9.1"
PYTHON_CLIENT = "datadog==0.56.0"
NPM_CLIENT = "hot-shots@17.1.1"


def run(*argv, timeout=300, **more):
    done = subprocess.run([str(x) for x in argv], capture_output=True, text=True, timeout=timeout * SLOW, **more)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.stdout}{done.stderr}"


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="session")
def go_client(tmp_path_factory):
    need("go")
    here = tmp_path_factory.mktemp("go")
    shutil.copy(PROGRAMS / "go" / "main.go", here)
    run("go", "mod", "init", "client", cwd=here)
    run("go", "get", GO_CLIENT, cwd=here)
    run("go", "build", "-o", "client", ".", cwd=here)
    return [here / "client"]


@pytest.fixture(scope="session")
def python_client(tmp_path_factory):
    here = tmp_path_factory.mktemp("python")
    if subprocess.run([sys.executable, "-m", "venv", here], capture_output=True).returncode:
        pytest.skip("no venv and pip for Python (Debian: python3-venv)")
    run(here / "bin" / "pip", "install", "--quiet", PYTHON_CLIENT)
    return [here / "bin" / "python", PROGRAMS / "client.py"]


@pytest.fixture(scope="session")
def js_client(tmp_path_factory):
    need("npm", "node")
    here = tmp_path_factory.mktemp("js")
    # Its Unix sockets are a module that is compiled against node's headers, which Debian has as a package.
    nodedir = ["--nodedir=/usr"] if pathlib.Path("/usr/include/node/node.h").exists() and pathlib.Path("/usr/bin/node").exists() else []
    run("npm", "install", "--no-audit", "--no-fund", *nodedir, NPM_CLIENT, cwd=here)
    shutil.copy(PROGRAMS / "client.js", here)
    return ["node", here / "client.js"]


# Client, how it is told the socket, lines of one, their sum of times in seconds, samples of a size.
CLIENTS = [
    ("go_client", "unixgram://{e}", "go", 100000, (0 + 25 + 50 + 75) * 1000 / 1000, 4 * sum(range(0, 25000, 25))),
    ("go_client", "unixstream://{s}", "go", 100000, (0 + 25 + 50 + 75) * 1000 / 1000, 4 * sum(range(0, 25000, 25))),
    ("python_client", "{e}", "python", 10000, sum(range(0, 100, 10)) * 100 / 1000, sum(range(0, 10000, 10))),
    ("python_client", "unixstream://{s}", "python", 10000, sum(range(0, 100, 10)) * 100 / 1000, sum(range(0, 10000, 10))),
    ("js_client", "{e}", "js", 10000, sum(range(0, 100, 10)) * 100 / 1000, sum(range(0, 10000, 10))),
]


ROOT = pathlib.Path(__file__).resolve().parents[2]
MAN = ROOT / "man/boxo-agent-events.7"


def examples():
    """The programs of the manual: heading of their section, text as a reader sees it."""
    text = MAN.read_text()
    text = text[text.index("\n.Sh EXAMPLES"):text.index("\n.Sh DIAGNOSTICS")]
    for section in text.split("\n.Ss ")[1:]:
        heading = section.split("\n", 1)[0]
        for n, part in enumerate(section.split("\n.Bd -literal\n")[1:]):
            yield heading, n, part.split("\n.Ed")[0].replace("\\e", "\\") + "\n"


# What each of them leaves on the page.
LEAVES = {
    ("Shell", 0): {"boxo_myapp_custom_requests_total": 1},
    ("Shell", 1): {"boxo_bitswap_requests_total": 1},
    ("Go", 0): {"boxo_bitswap_requests_total": 1, "boxo_bitswap_responses_total": 1, "boxo_bitswap_response_time_seconds_sum": .05},
    ("Go", 1): {"boxo_bitswap_requests_total": 1, "boxo_bitswap_responses_total": 1, "boxo_bitswap_response_time_seconds_sum": .05},
    ("Python", 0): {"boxo_blockstore_cache_hits_total": 1, "boxo_blockstore_read_latency_seconds_sum": .005},
    ("Python", 1): {"boxo_blockstore_cache_hits_total": 1, "boxo_blockstore_read_latency_seconds_sum": .005},
    ("Python", 2): {"boxo_bitswap_requests_total": 1},
    ("JavaScript", 0): {"boxo_bitswap_blocks_sent_total": 1, "boxo_network_peer_latency_seconds": .02},
    ("JavaScript", 1): {"boxo_bitswap_blocks_sent_total": 1},
}


def test_every_example_is_run():
    assert {(heading, n) for heading, n, _ in examples()} == set(LEAVES)


@pytest.mark.parametrize("heading, n", LEAVES, ids=[f"{heading}-{n}" for heading, n in LEAVES])
def test_example_of_the_manual(request, agent, short_tmp, tmp_path, heading, n):
    e, s = short_tmp / "e", short_tmp / "s"
    text = next(text for h, m, text in examples() if (h, m) == (heading, n))
    text = text.replace("/run/boxo-agent/events.sock", str(e)).replace("/run/boxo-agent/events-stream.sock", str(s))
    env = {**os.environ, "BOXO_EVENTS_SOCKET": str(e)}
    if heading == "Shell":
        need("nc" if "nc -" in text else "socat")
        # What is sent may come late: the example waits for it all the same.
        late = "".join(f"{word}() {{ sleep .2; command {word} \"$@\"; }}\n" for word in ("echo", "printf"))
        argv = ["sh", "-ec", late + text]
    elif heading == "Python":
        program = tmp_path / "example.py"
        argv = [request.getfixturevalue("python_client")[0] if "datadog" in text else sys.executable, program]
    elif heading == "JavaScript":
        need("node")
        # A program finds the packages that are installed beside it.
        beside = request.getfixturevalue("js_client")[1].parent if "hot-shots" in text else tmp_path
        program = beside / "example.js"
        argv = ["node", program]
    else:
        need("go")
        beside = tmp_path
        if "datadog" in text:
            beside = request.getfixturevalue("go_client")[0].parent / "example"
            beside.mkdir()
        else:
            run("go", "mod", "init", "example", cwd=beside)
            module = "github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
            run("go", "mod", "edit", f"-require={module}@v0.0.0", f"-replace={module}={ROOT / 'clients/go/boxoevents'}", cwd=beside)
        program = beside / "main.go"
        program.write_text(text)
        run("go", "build", "-o", tmp_path / "example", ".", cwd=beside)
        argv = [tmp_path / "example"]
    if heading in ("Python", "JavaScript"):
        program.write_text(text)
    a = agent("--pid", os.getpid(), "--no-bpf", "--events-stream", s, events=e)
    run(*argv, env=env)
    for name in LEAVES[heading, n]:
        wait_until(name, lambda: a.page().sum(name) is not None)
    page = a.page()
    assert {name: page.sum(name) for name in LEAVES[heading, n]} == pytest.approx(LEAVES[heading, n])
    assert page.sum("boxo_agent_events_rejected_total") == 0


@pytest.mark.parametrize("client, address, name, ones, seconds, sizes", CLIENTS,
                         ids=["go", "go-stream", "python", "python-stream", "js"])
def test_client(request, agent, short_tmp, client, address, name, ones, seconds, sizes):
    argv = request.getfixturevalue(client)
    e, s = short_tmp / "e", short_tmp / "s"
    a = agent("--pid", os.getpid(), "--no-bpf", "--events-stream", s, "--log-level", "debug", events=e)
    run(*argv, address.format(e=e, s=s))

    def all_there():
        page = a.page()
        lost = page.sum("boxo_agent_events_dropped_total")
        return (page.value("boxo_bitswap_requests_total") == ones and page.value("boxo_myapp_size_sum", client=name) == sizes and
                page.value("boxo_agent_events_rejected_total", reason="unsupported") == 3 and page) or (lost and page)

    try:
        page = wait_until(f"all that {name} sent", all_there)
    except pytest.fail.Exception:
        page = a.page()
    assert page.sum("boxo_agent_events_dropped_total") == 0
    assert {x.labels["reason"]: x.value for x in page.all("boxo_agent_events_rejected_total") if x.value} == {"unsupported": 3}, a.log()
    assert page.value("boxo_bitswap_requests_total") == ones
    assert page.value("boxo_bitswap_response_time_seconds_sum") == pytest.approx(seconds)
    assert page.value("boxo_bitswap_responses_total") == (4000 if name == "go" else 1000)
    assert page.value("boxo_myapp_size_sum", client=name) == sizes
    assert page.value("boxo_blockstore_total_blocks") == 1000
    assert page.sum("boxo_network_peer_bytes_sent_total") == 4096
