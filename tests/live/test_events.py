# SPDX-License-Identifier: MIT OR Apache-2.0
"""Events through the real program: every line of the contract, exact counts under load, bad input."""
import contextlib
import math
import multiprocessing
import pathlib
import random
import re
import subprocess
import time

import pytest

from conftest import SLOW, held_up, wait_until
from events import HERE, Events, Stream, listening, received, rejected  # noqa: F401 (a fixture)

# Line, then what the page shows beside section 2 of the contract.
CONTRACT = [
    ("bitswap.requests:7|c", {"boxo_bitswap_requests_total": 7}),
    ("bitswap.response_time:50|ms|#result:ok", {}),
    ("bitswap.response_time:70|ms|#result:error", {
        "boxo_bitswap_response_time_average_seconds": .06, "boxo_bitswap_response_time_p95_seconds": .07,
        "boxo_bitswap_response_time_p99_seconds": .07, "boxo_bitswap_responses_total": 2,
        "boxo_bitswap_errors_total": 1, "boxo_bitswap_error_rate": .5, "boxo_bitswap_response_time_seconds_count": 2,
        "boxo_bitswap_response_time_seconds_sum": .12}),
    ("bitswap.blocks_received:4|c|#duplicate:false", {}),
    ("bitswap.blocks_received:1|c|#duplicate:true", {
        "boxo_bitswap_blocks_received_total": 5, "boxo_bitswap_blocks_duplicated_total": 1}),
    ("bitswap.blocks_sent:3|c", {"boxo_bitswap_blocks_sent_total": 3}),
    ("bitswap.active_connections:10|g", {"boxo_bitswap_active_connections": 10}),
    ("bitswap.queued_requests:3|g", {"boxo_bitswap_queued_requests": 3}),
    ("blockstore.cache_hits:85|c", {"boxo_blockstore_cache_hits_total": 85}),
    ("blockstore.cache_misses:15|c", {"boxo_blockstore_cache_misses_total": 15, "boxo_blockstore_cache_hit_rate": .85}),
    ("blockstore.read_time:5|ms", {
        "boxo_blockstore_read_latency_average_seconds": .005, "boxo_blockstore_read_latency_p95_seconds": .005,
        "boxo_blockstore_read_latency_p99_seconds": .005, "boxo_blockstore_read_latency_seconds_count": 1}),
    ("blockstore.write_time:10|ms", {
        "boxo_blockstore_write_latency_average_seconds": .01, "boxo_blockstore_write_latency_p95_seconds": .01,
        "boxo_blockstore_write_latency_p99_seconds": .01, "boxo_blockstore_write_latency_seconds_sum": .01}),
    ("blockstore.batch_operations:2|c", {"boxo_blockstore_batch_operations_total": 2}),
    ("blockstore.total_blocks:1000|g", {"boxo_blockstore_total_blocks": 1000}),
    ("blockstore.compression_ratio:0.75|g", {"boxo_blockstore_compression_ratio": .75}),
    ("blockstore.storage_bytes:1073741824|g", {"boxo_blockstore_storage_bytes": 1 << 30}),
    ("blockstore.cache_size_bytes:4096|g", {"boxo_blockstore_cache_size_bytes": 4096}),
    ("network.active_connections:5|g", {"boxo_network_active_connections": 5}),
    ("network.latency:20|ms|#peer:12D3KooWA", {
        "boxo_network_latency_average_seconds": .02, "boxo_network_latency_p95_seconds": .02,
        "boxo_network_latency_p99_seconds": .02, 'boxo_network_peer_latency_seconds{peer="12D3KooWA"}': .02}),
    ("network.bandwidth:1048576|h|#peer:12D3KooWA", {
        "boxo_network_bandwidth_bytes_per_second": 1048576,
        'boxo_network_peer_bandwidth_bytes_per_second{peer="12D3KooWA"}': 1048576}),
    ("network.bytes_sent:4096|c|#peer:12D3KooWA", {
        "boxo_network_bytes_sent_total": 4096, 'boxo_network_peer_bytes_sent_total{peer="12D3KooWA"}': 4096}),
    ("network.bytes_received:512|c|#peer:12D3KooWA", {
        "boxo_network_bytes_received_total": 512, 'boxo_network_peer_bytes_received_total{peer="12D3KooWA"}': 512}),
    ("network.connection_errors:1|c|#peer:12D3KooWA", {
        "boxo_network_connection_errors_total": 1, 'boxo_network_peer_errors_total{peer="12D3KooWA"}': 1}),
    ("network.packets_sent:100|c", {}),
    ("network.packets_lost:1|c", {"boxo_network_packet_loss_rate": .01}),
    ("resource.cpu_usage:45.5|g", {"boxo_resource_cpu_usage_percent": 45.5}),
    ("resource.disk_used_bytes:7|g", {"boxo_resource_disk_usage_bytes": 7}),
    ("resource.disk_total_bytes:8|g", {"boxo_resource_disk_total_bytes": 8}),
    ("resource.goroutines:123|g", {"boxo_resource_goroutines_total": 123}),
    ("resource.gc_pause:0.3|ms", {"boxo_resource_gc_pause_seconds_sum": .0003}),
    ("resource.gc_cycles:1|c", {"boxo_resource_gc_cycles_total": 1}),
    ("resource.heap_bytes:9|g", {"boxo_resource_heap_bytes": 9}),
    ("myapp.custom_requests:1|c|#method:get", {'boxo_myapp_custom_requests_total{method="get"}': 1}),
    ("myapp.queue:4|g", {"boxo_myapp_queue": 4}),
    ("myapp.wait:4|ms", {"boxo_myapp_wait_seconds_count": 1, "boxo_myapp_wait_seconds_sum": .004}),
    ("myapp.size:4|h", {"boxo_myapp_size_sum": 4}),
]


@contextlib.contextmanager
def beside(work, *arguments):
    """Runs work(argument) for each of the arguments in a process of its own: threads of this one would hold up what it
    measures."""
    running = [multiprocessing.get_context("fork").Process(target=work, args=(x,), daemon=True) for x in arguments]
    for p in running:
        p.start()
    yield running
    for p in running:
        p.join()
        assert p.exitcode == 0


def scrapes(a, go_on):
    """How long each scrape took while go_on() said so."""
    took = []
    while go_on():
        start = time.monotonic()
        a.page()
        took.append(time.monotonic() - start)
        time.sleep(.005)
    return took


def quick(took):
    """Whether no scrape had to wait for the flood. That others have the CPU may delay one or two for longer."""
    return len(took) > 2 and sorted(took)[-3] < 1 * SLOW


@pytest.mark.parametrize("way", ["datagrams", "stream"])
def test_every_line_of_the_contract(listening, short_tmp, way):
    a = listening("--events-stream", short_tmp / "s", "--label", "node=a")
    lines = [line for line, _ in CONTRACT]
    (Stream(short_tmp / "s") if way == "stream" else Events(a.events)).send(*lines)
    page = received(a, len(lines))
    assert rejected(page) == {}
    wrong = []
    for _, expected in CONTRACT:
        for name, value in expected.items():
            plain, labels = re.fullmatch(r"(\w+)(?:\{(\w+)=\"(.*)\"\})?", name).group(1), {}
            if "{" in name:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            found = page.value(plain, **labels)
            if found is None or not math.isclose(found, value, rel_tol=1e-9):
                wrong.append(f"{name}: {found}, not {value}")
    assert not wrong, "\n".join(wrong)
    # What the application says goes before what others see.
    for name in ("boxo_bitswap_requests_total", "boxo_network_latency_seconds", "boxo_resource_cpu_usage_percent"):
        assert page.value("boxo_agent_metric_source_info", metric=name, source="app") == 1
    # The rates of the interval in which the lines came are gone by now; that they were there a unit test knows.
    assert page.value("boxo_bitswap_requests_per_second") is not None
    check = subprocess.run(["promtool", "check", "metrics"], input=page.text, capture_output=True, text=True)
    complaints = [x for x in check.stderr.splitlines() if "boxo_resource_goroutines_total" not in x]
    assert not complaints, check.stderr


def test_absent_before_the_first_event(listening):
    page = listening().page()
    assert page.value("boxo_agent_events_received_total") == 0
    assert page.value("boxo_agent_events_rejected_total", reason="malformed") == 0
    assert page.value("boxo_agent_events_dropped_total", reason="sequence") == 0
    for name in ("boxo_bitswap_requests_total", "boxo_bitswap_error_rate", "boxo_blockstore_cache_hit_rate"):
        assert page.value(name) is None
        assert [s.labels["reason"] for s in page.all("boxo_agent_metric_absent_info") if s.labels["metric"] == name] == [
            "no event of the application tells it: see boxo-agent-events(7)"]


def test_a_million_lines(listening):
    a = listening()
    e = Events(a.events)
    for _ in range(4000):
        e.send(*["bitswap.requests:1|c"] * 250)
    page = received(a, 1_000_000)
    assert page.value("boxo_bitswap_requests_total") == 1_000_000
    assert page.value("boxo_agent_events_received_total") == 1_000_000
    assert page.value("boxo_agent_events_cpu_seconds_total") > 0


def test_percentiles(listening):
    a = listening()
    e = Events(a.events)
    draw = random.Random(5)
    times = [round(draw.lognormvariate(3, 1), 3) for _ in range(3210)]
    for t in times:
        e.send(f"blockstore.read_time:{t}|ms")
    page = received(a, len(times))
    last = sorted(times[-1000:])
    for name, expected in (("average", sum(last) / 1000), ("p95", last[949]), ("p99", last[989])):
        assert page.value(f"boxo_blockstore_read_latency_{name}_seconds") == pytest.approx(expected / 1000, rel=.01)
    assert page.value("boxo_blockstore_read_latency_seconds_count") == len(times)
    assert page.value("boxo_blockstore_read_latency_seconds_sum") == pytest.approx(sum(times) / 1000)
    for bound in (.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1):
        assert page.value("boxo_blockstore_read_latency_seconds_bucket", le=f"{bound:g}") == sum(
            t <= bound * 1000 for t in times), bound


BAD = {
    "malformed": [b"garbage", b"x|c", b"x:1|c|what"], "value": [b"x:nan|g", b"x:inf|g", b"bitswap.requests:-1|c",
    b"bitswap.requests:1e999|c", b"bitswap.requests:1e300|c", b"bitswap.response_time:-5|ms", b"x:1x|c"],
    "rate": [b"x:1|c|@1e-9", b"x:1|c|@2"], "unknown_name": [b"bitswap.request:1|c", b"network.nonsense:1|g"],
    "name": [b"\x01\x02\xff:1|c"], "tag": [b"x:1|c|#__a:1", b"x:1|c|#a-b:1", b"x:1|c|#a:1,a:2"], "type": [b"x:1|q"],
    "type_changed": [b"bitswap.requests:1|g"], "unsupported": [b"x:a|s", b"_sc|x|0", b"_e{1,1}:a|b"],
    "name_conflict": [b"bitswap_requests:1|c"], "too_long": [b"x:" + b"1" * 10000 + b"|c"],
}


def test_bad_lines_cost_only_themselves(listening):
    a = listening("--log-level", "debug")
    e = Events(a.events)
    sent = 0
    for lines in BAD.values():
        for line in lines:
            sent += e.send(b"bitswap.blocks_sent:1|c", line, b"bitswap.blocks_sent:1|c")
    binary = random.Random(3).randbytes(30000).replace(b"\n", b"")
    sent += e.send(b"bitswap.blocks_sent:1|c", binary, b"bitswap.blocks_sent:1|c")
    e.send(b"")
    e.send(b"bitswap.blocks_sent:1|c\n" * 2000 + b"y" * 60000)  # over 64 KiB: what is whole counts
    page = received(a, sent + 2002)
    bad = rejected(page)
    assert bad.pop("empty") == 1
    assert bad.pop("too_long") == 3  # one line, the binary one, and what was cut
    assert bad == {reason: len(lines) for reason, lines in BAD.items() if reason != "too_long"}
    assert page.value("boxo_bitswap_blocks_sent_total") == 2 * (sum(map(len, BAD.values())) + 1) + 2000
    e.send(b"bad \x1b[31m\xff line")
    received(a, sent + 2003)
    wait_until("the last bad line in the log", lambda: "malformed: bad \\x1b[31m\\xff line" in a.log())


def memory(a):
    status = pathlib.Path(f"/proc/{a.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))


def test_ten_thousand_label_values(listening):
    a = listening("--series", 100)
    e = Events(a.events)
    e.send("known:1|c")
    received(a, 1)
    before = memory(a)
    for start in range(0, 10000, 100):
        e.send(*[f"many:1|c|#k:{'v' * 60}{i}" for i in range(start, start + 100)])
        e.send(*[f"network.bytes_sent:1|c|#peer:{'p' * 60}{i}" for i in range(start, start + 100)])
    e.send("known:1|c")
    page = received(a, 20002)
    assert page.value("boxo_known_total") == 2
    assert len(page.all("boxo_many_total")) == 99
    assert page.value("boxo_agent_series_dropped_total", family="boxo_many_total") == 10000 - 99
    assert rejected(page) == {"series_limit": 10000 - 99}
    assert len(page.all("boxo_network_peer_bytes_sent_total")) == 101
    assert page.sum("boxo_network_peer_bytes_sent_total") == page.value("boxo_network_bytes_sent_total") == 10000
    # The lines known by heart, the peers that are watched, the page of all this: a few MB and no more.
    assert memory(a) - before < 12 * 1024 or SLOW > 1  # sanitizers keep what is freed


def test_four_blocking_senders_lose_nothing(listening):
    a = listening()
    lines = ["network.bytes_sent:2|c|#peer:p%d", "bitswap.response_time:3|ms|#result:ok", "own.count:1|c", "own.level:1|g"] * 50

    def work(i):
        e = Events(a.events)
        mine = [x % i if "%" in x else x for x in lines]
        for _ in range(1250):
            e.send(*mine)

    with beside(work, *range(4)) as senders:
        took = scrapes(a, lambda: any(s.is_alive() for s in senders))
    page = received(a, 1_000_000)
    assert page.value("boxo_agent_events_received_total") == 1_000_000
    assert page.value("boxo_network_bytes_sent_total") == 500_000
    assert [page.value("boxo_network_peer_bytes_sent_total", peer=f"p{i}") for i in range(4)] == [125_000] * 4
    assert page.value("boxo_bitswap_responses_total") == 250_000
    assert page.value("boxo_own_count_total") == 250_000
    assert rejected(page) == {}
    assert quick(took), took


def test_what_the_kernel_accepted_is_counted(listening):
    """Senders that do not wait lose what the queue has no room for, and nothing else."""
    a = listening()
    e = Events(a.events)
    e.socket.setblocking(False)
    accepted = lost = 0
    for _ in range(100_000):
        try:
            e.send("bitswap.requests:1|c")
            accepted += 1
        except BlockingIOError:
            lost += 1
    page = received(a, accepted)
    assert page.value("boxo_bitswap_requests_total") == accepted
    assert accepted + lost == 100_000


def test_a_flood_holds_up_no_tick(listening):
    a = listening(interval="100ms")

    def flood(end):
        e = Events(a.events)
        data = "\n".join(["bitswap.response_time:3.5|ms|#result:ok"] * 200)
        while time.monotonic() < end:
            e.send(data)

    def two_for_three_seconds():
        with beside(flood, *[time.monotonic() + 3] * 2) as floods:
            took.append(scrapes(a, lambda: any(f.is_alive() for f in floods)))

    took, missing = [], []
    while not took or (missing[-1] > 3 or not quick(took[-1])) and len(took) < 5:
        missing.append(held_up(a, .1, two_for_three_seconds))
    assert missing[-1] <= 3, f"ticks are missing: {missing}"
    assert quick(took[-1]), f"scrapes had to wait: {took}"
    assert a.value("boxo_agent_collector_success", collector="events") == 1
    assert a.stop() == 0


def test_gauges_end_with_who_set_them(agent, short_tmp):
    """Gauges, means, percentiles, shares and rates; a name that /proc can fill goes back to it, what counts does not."""
    node = subprocess.Popen(["sleep", "1000"])
    a = agent("--pid", node.pid, "--no-bpf", events=short_tmp / "e")
    e = Events(a.events)
    proc = {n: a.value("boxo_agent_metric_source_info", metric=n, source="proc") for n in (
        "boxo_network_bandwidth_bytes_per_second", "boxo_network_packet_loss_rate", "boxo_network_latency_seconds")}
    lines = [line for line, _ in CONTRACT]
    e.send(*lines)
    before = received(a, len(lines))
    apps = {n for n in before.families if before.families[n].type == "gauge" and not n.startswith("boxo_agent_")
            and before.value("boxo_agent_metric_source_info", metric=n, source="app") == 1}
    assert apps >= {"boxo_bitswap_active_connections", "boxo_blockstore_cache_hit_rate", "boxo_network_packet_loss_rate"}
    node.kill()
    node.wait()
    after = wait_until("the gauges are gone", lambda: (p := a.page()).value("boxo_bitswap_active_connections") is None and p)
    for name in apps:
        assert after.value("boxo_agent_metric_source_info", metric=name, source="app") is None, name
    of_samples = [f"boxo_{x}_{y}_seconds" for x in ("bitswap_response_time", "blockstore_read_latency",
                  "blockstore_write_latency", "network_latency") for y in ("average", "p95", "p99")]
    for name in [*of_samples, "boxo_bitswap_error_rate", "boxo_bitswap_requests_per_second", "boxo_network_peer_latency_seconds",
                 "boxo_blockstore_batch_operations_per_second", "boxo_network_peer_bandwidth_bytes_per_second", "boxo_myapp_queue"]:
        assert before.all(name) and not after.all(name), name
    for name, was_there in proc.items():
        if was_there and name in apps:
            assert after.value("boxo_agent_metric_source_info", metric=name, source="proc") == 1, name
    # The histogram of round-trip times stays with the application.
    assert after.value("boxo_network_latency_seconds_count") == 1
    for line, expected in CONTRACT:
        for name, value in expected.items():
            if name.endswith(("_total", "_count", "_sum")) and name != "boxo_resource_goroutines_total":
                assert after.value(name) == before.value(name), name


def test_by_hand(listening):
    """As the man page shows it for a shell."""
    a = listening()
    subprocess.run(["socat", "-", f"UNIX-SENDTO:{a.events}"], input="myapp.custom_requests:1|c|#method:get\n", text=True, check=True)
    assert received(a, 1).value("boxo_myapp_custom_requests_total", method="get") == 1


def test_a_look_beside_a_running_agent(agent, run_agent, short_tmp):
    """--once and --check do without the socket that another agent has, and leave it alone."""
    a = agent(*HERE, events=short_tmp / "e")
    for how in ("--once", "--check"):
        status, out, err = run_agent(how, "--interval", "100ms", *HERE, "--events", short_tmp / "e")
        assert status == 0, err
        if how == "--check":
            assert "another process receives there" in out
    Events(a.events).send("bitswap.requests:1|c")
    received(a, 1)


MAN = pathlib.Path(__file__).resolve().parents[2] / "man/boxo-agent-events.7"


def test_the_manual_tells_the_truth(listening):
    """Every event that boxo-agent-events(7) lists is accepted and exported as it says, and every reason is explained."""
    a = listening()
    text = MAN.read_text()
    events = re.findall(r"^\.It Li ([a-z_.]+:[\d.]+\|\w+)$((?:\n(?:\.Li boxo_\w+.*|a histogram.*))+)", text, re.M)
    assert {e.split(":")[0] for e, _ in events} >= {line.split(":")[0] for line, _ in CONTRACT}
    lines = [e + ("|#peer:a" if "_peer_" in names else "") for e, names in events]
    # Shares need both of their parts.
    lines.sort(key=lambda x: "lost" in x)
    Events(a.events).send(*lines)
    page = received(a, len(lines))
    assert rejected(page) == {}
    exported = {n for n in page.families} | {s.name for s in page.samples}
    missing = [n for _, names in events for n in re.findall(r"boxo_\w+", names) if n not in exported]
    assert not missing
    reasons = {s.labels["reason"] for s in page.all("boxo_agent_events_rejected_total")}
    explained = set(re.findall(r"^\.It Li (\w+)$", text[text.index(".Sh DIAGNOSTICS"):], re.M))
    assert reasons == explained
