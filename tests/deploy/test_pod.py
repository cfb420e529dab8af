# SPDX-License-Identifier: MIT OR Apache-2.0
"""The real agent in the rebuilt pod of sidecar.yaml: it delivers there what the manifest promises, and each of its
capabilities is needed for something."""
import os
import pathlib
import re
import signal
import subprocess

import pytest

import pod as pods
from pod import live

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLOCK_TICK = os.sysconf("SC_CLK_TCK")
KUBO_MEMORY = "256Mi"  # given to kubo here, to see that the agent tells kubo's limit and not its own
# As kubo's image: other calls of the program come before the daemon.
START = 'ipfs version; ipfs version; exec ipfs "$@"'


class Node:
    """kubo's container with the stand-in as its program."""

    def __init__(self, container, program):
        mounts = {v["name"]: v["mountPath"] for v in container.spec["volumeMounts"]}
        self.pod = container.pod
        self.popen = container.start(
            (program, "/app/ipfs"),
            ["env", "PATH=/app:/usr/bin", f"IPFS_PATH={mounts['data']}", "sh", "-c", START, "start_ipfs", "daemon",
             mounts["data"], f"{mounts['events']}/events.sock"],
            instance=f"n{len(self.pod.started)}", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(self):
        self.known = dict(re.findall(r"(\w+)=(\d+)", self.popen.stdout.readline()))
        assert self.known, "the node did not start"
        self.pid = self.pod.pid_of(self.popen)
        return self

    def tell(self, line):
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline().strip()

    def proc(self, file):
        return pathlib.Path(f"/proc/{self.pid}/{file}").read_text()

    def cpu_seconds(self):
        """Its own and that of children it waited for (its shell had some before it became the daemon)."""
        return sum(map(int, self.proc("stat").rpartition(") ")[2].split()[11:15])) / CLOCK_TICK


class Sidecar:
    """The agent's container with the manifest's options; a test may use another port and socket."""

    def __init__(self, container, program, number=0, credentials=None):
        self.container = container
        self.port = 9559 + number
        args = list(container.spec["args"]) + ["--interval=500ms"]
        if number:
            args = [re.sub(r":9559$", f":{self.port}", re.sub(r"events\.sock$", f"events{number}.sock", a)) for a in args]
        self.log = container.pod.directory / f"agent{number}.log"
        with open(self.log, "w") as out:
            self.popen = container.start((program, "/app/boxo-agent"), ["/app/boxo-agent", *args],
                                         instance=f"a{len(container.pod.started)}", credentials=credentials, stdout=out, stderr=out)

    def pid(self):
        return self.container.pod.pid_of(self.popen)

    def get(self, path):
        return self.container.pod.get(self.port, path)

    def ready(self):
        def ready():
            assert self.popen.poll() is None, self.log.read_text()
            return self.get("/-/ready")[0] == 200

        live.wait_until("the agent is ready", ready, 60)
        return self

    def page(self):
        status, text = self.get("/metrics")
        assert status == 200
        return live.Page(text)

    def next_page(self):
        """A page of a collection that began after this call."""
        name = "boxo_agent_last_collection_timestamp_seconds"
        for _ in range(2):
            last = self.page().value(name)
            page = self.page_when("the next collection", lambda p: p.value(name) != last)
        return page

    def page_when(self, what, condition, timeout=60):
        def look():
            page = self.page()
            return page if condition(page) else None
        return live.wait_until(what, look, timeout, 0.1)


@pytest.fixture(scope="module")
def running(pod, agent_program, node_program):
    """(agent, node): the agent first, as a sidecar is."""
    kubo, agent = pod.containers["kubo"], pod.containers["boxo-agent"]
    kubo.spec.setdefault("resources", {}).setdefault("limits", {})["memory"] = KUBO_MEMORY
    sidecar = Sidecar(agent, agent_program).ready()
    assert sidecar.page().value("boxo_agent_target_up") == 0
    node = Node(kubo, node_program).wait()
    sidecar.page_when("the node is found", lambda p: (p.value("boxo_resource_memory_usage_bytes") or 0) >
                      int(node.known["memory"]))
    return sidecar, node


def test_probes_of_the_kubelet_answer_from_outside_the_pod(running, pod_spec):
    sidecar, _ = running
    agent = next(c for c in pod_spec["initContainers"] if c["name"] == "boxo-agent")
    for probe in ("readinessProbe", "livenessProbe"):
        assert sidecar.get(agent[probe]["httpGet"]["path"])[0] == 200
    assert subprocess.run(["promtool", "check", "metrics"], input=sidecar.get("/metrics")[1], text=True,
                          capture_output=True).returncode == 0


def test_the_daemon_is_watched_and_not_what_ran_before_it(running, pod):
    sidecar, node = running
    page = sidecar.page()
    assert page.value("boxo_agent_target_up") == 1
    assert "daemon" in node.proc("cmdline")
    assert page.value("boxo_resource_start_time_seconds") == pytest.approx(
        os.stat(f"/proc/{node.pid}").st_ctime, abs=30) or page.value("boxo_resource_start_time_seconds") is None


def test_cpu_memory_and_threads(running):
    sidecar, node = running
    page = sidecar.page_when("the node's CPU time", lambda p: p.sum("boxo_resource_cpu_seconds_total") ==
                             pytest.approx(node.cpu_seconds(), rel=0.05))
    rss = int(re.search(r"VmRSS:\s+(\d+)", node.proc("status")).group(1)) * 1024
    assert page.value("boxo_resource_memory_bytes", type="rss") == pytest.approx(rss, rel=0.02)
    assert page.sum("boxo_resource_threads") == int(node.known["threads"])


def test_disk(running, pod):
    sidecar, node = running
    io = dict(line.split(": ") for line in node.proc("io").splitlines())
    page = sidecar.page()
    # Beside the daemon's own: a page or two of the calls of the program that were watched before it.
    assert page.value("boxo_resource_disk_write_bytes_total") == pytest.approx(int(io["write_bytes"]), abs=16 << 10)
    room = os.statvfs(pod.volumes["data"])
    assert page.value("boxo_resource_disk_total_bytes") == room.f_blocks * room.f_frsize
    assert page.value("boxo_resource_disk_usage_bytes") == pytest.approx((room.f_blocks - room.f_bfree) * room.f_frsize,
                                                                          rel=0.01)


def test_descriptors_and_sockets(running):
    sidecar, node = running
    page = sidecar.page()
    assert page.value("boxo_resource_open_fds") == len(os.listdir(f"/proc/{node.pid}/fd"))
    tcp = int(node.known["tcp"])
    assert page.value("boxo_network_sockets", protocol="tcp", state="established") == tcp
    assert page.value("boxo_network_sockets", protocol="tcp", state="listening") == 1
    assert page.value("boxo_network_active_connections") == tcp


def test_the_limits_are_those_of_the_nodes_container(running):
    sidecar, _ = running
    assert sidecar.page().value("boxo_resource_memory_limit_bytes") == pods.quantity(KUBO_MEMORY)


def test_ebpf_probes_work(running):
    sidecar, node = running
    before = sidecar.page().sum("boxo_resource_block_io_latency_seconds_count") or 0
    assert node.tell("write") == "written"
    page = sidecar.page_when("the node's write", lambda p: (p.sum("boxo_resource_block_io_latency_seconds_count") or 0) >
                             before)
    reasons = {s.labels["probe"]: s.labels["reason"] for s in page.all("boxo_agent_probe_info")}
    up = {s.labels["probe"]: s.value for s in page.all("boxo_agent_probe_up")}
    assert up and all(value == 1 for probe, value in up.items() if not reasons[probe].startswith("only with --probe") and probe != "udp"), reasons
    assert page.sum("boxo_resource_runqueue_latency_seconds_count") > 0
    assert page.sum("boxo_resource_offcpu_seconds_count") > 0


def test_events_from_another_container(running):
    sidecar, node = running
    assert node.tell("send bitswap.requests:7|c") == "sent"
    sidecar.page_when("the event", lambda p: p.value("boxo_bitswap_requests_total") == 7)
    assert node.tell("unlink") == "Read-only file system"
    assert sidecar.page().sum("boxo_agent_events_rejected_total") == 0


def test_the_agent_has_what_the_manifest_gives_and_no_more(running, pod):
    sidecar, _ = running
    status = pathlib.Path(f"/proc/{sidecar.pid()}/status").read_text()
    granted = pods.mask(pod.containers["boxo-agent"].capabilities)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(re.search(rf"{name}:\s+(\w+)", status).group(1), 16) == granted
    assert "NoNewPrivs:\t1" in status


def test_resources_suffice(running, pod):
    sidecar, _ = running
    container = pod.containers["boxo-agent"]
    resources = container.spec["resources"]
    used = sidecar.page().value("boxo_agent_memory_bytes")
    assert used < pods.quantity(resources["requests"]["memory"]) < pods.quantity(resources["limits"]["memory"])
    for file in ("memory.max_usage_in_bytes", "memory.peak"):
        for group in pods.CGROUPS.glob(f"**/{pod.cgroup(container)}/{file}"):
            assert int(group.read_text()) < pods.quantity(resources["requests"]["memory"])


def what_is_read(sidecar, node):
    """The names of the metrics about the node, after it has done something to be seen."""
    found = set()

    def more():
        assert node.tell("write") == "written"
        size = len(found)
        found.update(s.name for s in sidecar.next_page().samples if s.name.startswith(("boxo_resource_", "boxo_network_")))
        return len(found) == size  # nothing new

    sidecar.page_when("the node is found", lambda p: p.value("boxo_agent_target_up") == 1)
    sidecar.page_when("two readings", lambda p: p.value("boxo_resource_cpu_usage_percent") is not None)
    for _ in range(3):
        live.wait_until("every metric is there", more, 60, 0)
    return found


def lost(running, agent_program, number, credentials):
    """What an agent with other credentials cannot read, and the page it has instead."""
    sidecar, node = running
    other = Sidecar(sidecar.container, agent_program, number, credentials).ready()
    missing = what_is_read(sidecar, node) - what_is_read(other, node)
    page = other.page()
    os.kill(other.pid(), signal.SIGKILL)
    other.popen.wait()
    return missing, page


NEEDED_FOR = {  # what docs/privileges.md says, a few of each
    "BPF": ["boxo_resource_runqueue_latency_seconds_bucket", "boxo_resource_block_io_latency_seconds_bucket"],
    "PERFMON": ["boxo_resource_runqueue_latency_seconds_bucket", "boxo_resource_block_io_latency_seconds_bucket"],
    "SYS_PTRACE": ["boxo_resource_disk_write_bytes_total", "boxo_resource_memory_limit_bytes"],
    "DAC_READ_SEARCH": ["boxo_resource_disk_write_bytes_total", "boxo_resource_io_bytes_total"],
}


def test_the_manifest_names_each_needed_capability(pod):
    assert set(pod.containers["boxo-agent"].capabilities) == set(NEEDED_FOR)


@pytest.mark.parametrize("number,capability", enumerate(NEEDED_FOR, start=1))
def test_without_a_capability_its_metrics_are_missing_and_the_rest_goes_on(running, pod, agent_program, number, capability):
    missing, page = lost(running, agent_program, number, pod.containers["boxo-agent"].credentials(without=[capability]))
    print(f"without {capability}: {sorted(missing)}")
    assert set(NEEDED_FOR[capability]) <= missing
    assert page.sum("boxo_resource_cpu_seconds_total") > 0 and page.value("boxo_resource_threads", state="sleeping") > 0
    absent = {s.labels["metric"] for s in page.all("boxo_agent_metric_absent_info")}
    for name in missing:
        assert name in absent or name.rpartition("_")[0] in absent, f"{name} is missing without a reason"


def test_what_the_manifest_offers_beside_them_brings_the_probe_udp(running, pod, agent_program):
    sidecar, node = running
    offered = pods.offered(ROOT / "deploy/kubernetes/sidecar.yaml")
    assert offered == ["NET_ADMIN"]
    container = pod.containers["boxo-agent"]
    without = sidecar.page()
    reasons = {s.labels["metric"]: s.labels["reason"] for s in without.all("boxo_agent_metric_absent_info")}
    for name in ("boxo_network_remote_bytes_total", "boxo_network_udp_bytes_total", "boxo_network_quic_bytes_total"):
        assert not without.all(name) and "CAP_NET_ADMIN" in reasons[name] and "--no-probe" in reasons[name]
    other = Sidecar(container, agent_program, 7, container.credentials(more=offered)).ready()
    page = other.page_when("the probe udp counts", lambda p: p.sum("boxo_network_udp_bytes_total") is not None)
    assert page.value("boxo_agent_probe_up", probe="udp") == 1
    assert page.sum("boxo_network_quic_bytes_total") == 0, "the stand-in does not speak QUIC"
    os.kill(other.pid(), signal.SIGKILL)
    other.popen.wait()


def test_without_any_capability_the_rest_goes_on(running, pod, agent_program):
    container = pod.containers["boxo-agent"]
    missing, page = lost(running, agent_program, 6, container.credentials(without=container.capabilities))
    print(f"without any: {sorted(missing)}")
    present = {s.name for s in page.samples}
    assert {"boxo_resource_cpu_seconds_total", "boxo_resource_memory_bytes", "boxo_resource_threads",
            "boxo_resource_context_switches_total", "boxo_resource_cpu_wait_seconds_total",
            "boxo_resource_page_faults_total", "boxo_resource_open_fds", "boxo_resource_max_fds",
            "boxo_resource_pressure_seconds_total", "boxo_resource_disk_total_bytes",
            "boxo_agent_events_received_total"} <= present


def test_under_the_nodes_own_user_two_capabilities_suffice(running, pod, agent_program):
    kubo = pod.containers["kubo"]
    credentials = (f"--reuid={kubo.uid} --regid={kubo.gid} --clear-groups --no-new-privs --bounding-set=-all,+bpf,+perfmon "
                   "--inh-caps=-all,+bpf,+perfmon --ambient-caps=-all,+bpf,+perfmon")
    missing, _ = lost(running, agent_program, 5, credentials)
    assert missing == set()


def test_the_node_restarts(running, pod, node_program):
    sidecar, node = running
    before = sidecar.page()
    os.kill(node.pid, signal.SIGKILL)
    sidecar.page_when("the node is gone", lambda p: p.value("boxo_agent_target_up") == 0)
    again = Node(pod.containers["kubo"], node_program).wait()
    page = sidecar.page_when("the node is back", lambda p: p.value("boxo_agent_target_up") == 1 and
                             (p.value("boxo_resource_memory_usage_bytes") or 0) > int(again.known["memory"]))
    assert page.value("boxo_agent_target_restarts_total") > before.value("boxo_agent_target_restarts_total")
    assert page.sum("boxo_resource_cpu_seconds_total") >= before.sum("boxo_resource_cpu_seconds_total")
    assert page.value("boxo_bitswap_requests_total") == 7


def test_the_agent_restarts_after_a_kill(running, pod, agent_program):
    sidecar, _ = running
    os.kill(sidecar.pid(), signal.SIGKILL)
    sidecar.popen.wait()
    assert (pod.volumes["events"] / "events.sock").is_socket(), "the stale socket is what this is about"
    again = Sidecar(pod.containers["boxo-agent"], agent_program).ready()
    again.page_when("the node is found", lambda p: p.value("boxo_agent_target_up") == 1)
