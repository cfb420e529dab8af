# SPDX-License-Identifier: MIT OR Apache-2.0
"""The units under systemd itself, booted in namespaces of its own: user, capabilities, sandbox and sockets are systemd's,
the node is another user's process."""
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

import pod as pods
from pod import live

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NODE_USER = 1000


class Machine:
    """A booted systemd."""

    def __init__(self, directory, files):
        self.directory, self.group = directory, f"boxo-boot-{os.getpid()}"
        for place, source in files.items():
            target = directory / "upper" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source) if isinstance(source, str) else shutil.copy(source, target)
        self.hierarchies = pods.hierarchies()
        for hierarchy in self.hierarchies:
            (hierarchy / self.group).mkdir()
            for inherited in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / inherited).exists():
                    (hierarchy / self.group / inherited).write_text((hierarchy / inherited).read_text())
        self.log = open(directory / "boot.log", "w")
        self.unshare = subprocess.Popen([HERE / "boot.sh", directory, self.group, "basic.target"], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)
        self.init = live.wait_until("systemd runs", self.find_init, 120)
        live.wait_until("systemd is up", lambda: self.run("systemctl", "is-active", "basic.target", check=False)[0] == 0, 120)

    def find_init(self):
        assert self.unshare.poll() is None, (self.directory / "boot.log").read_text()
        for child in pathlib.Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children").read_text().split():
            if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        return None

    def command(self, *argv):
        return ["nsenter", "--target", str(self.init), "--all", *map(str, argv)]

    def run(self, *argv, check=True):
        r = subprocess.run(self.command(*argv), capture_output=True, text=True, timeout=120)
        assert not check or r.returncode == 0, f"{argv}: {r.stdout}{r.stderr}"
        return r.returncode, r.stdout

    def page(self):
        status, text = self.run("curl", "--silent", "--fail", "--max-time", "5", "http://127.0.0.1:9559/metrics", check=False)
        return live.Page(text) if status == 0 else None

    def page_when(self, what, condition, timeout=60):
        return live.wait_until(what, lambda: (p := self.page()) and condition(p) and p, timeout, 0.1)

    def stop(self):
        os.kill(self.init, signal.SIGKILL)
        self.unshare.wait()
        self.log.close()
        for hierarchy in self.hierarchies:
            pods.remove_groups(hierarchy / self.group)


@pytest.fixture(scope="module")
def machine(tmp_path_factory, agent_program, node_program):
    pods.need_root()
    systemd = ROOT / "deploy/systemd"
    if not pathlib.Path("/lib/systemd/systemd").exists():
        pytest.skip("no systemd here")
    m = Machine(tmp_path_factory.mktemp("boot"), {
        "usr/bin/boxo-agent": agent_program,
        "usr/bin/ipfs": node_program,
        "etc/systemd/system/boxo-agent.service": systemd / "boxo-agent.service",
        "etc/systemd/system/boxo-agent.socket": systemd / "boxo-agent.socket",
        "usr/lib/sysusers.d/boxo-agent.conf": systemd / "boxo-agent.sysusers.conf",
        "etc/default/boxo-agent": 'BOXO_AGENT_OPTIONS="--comm ipfs --interval 500ms"\n',
    })
    m.run("systemd-sysusers")
    m.run("mkdir", "-p", "/srv/ipfs")
    m.run("chown", f"{NODE_USER}:{NODE_USER}", "/srv/ipfs")
    # As an operator starts it; its user is in the group, so that it may send events.
    m.run("systemctl", "start", "boxo-agent.socket", "boxo-agent.service")
    group = m.run("getent", "group", "boxo-agent")[1].split(":")[2]
    m.node = subprocess.Popen(
        m.command("setpriv", f"--reuid={NODE_USER}", f"--regid={NODE_USER}", f"--groups={group}", "--inh-caps=-all",
                  "ipfs", "daemon", "/srv/ipfs", "/run/boxo-agent/events.sock"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    m.known = dict(re.findall(r"(\w+)=(\d+)", m.node.stdout.readline()))
    yield m
    m.stop()
    m.node.wait()


def tell(machine, line):
    machine.node.stdin.write(line + "\n")
    machine.node.stdin.flush()
    return machine.node.stdout.readline().strip()


def test_the_service_runs_with_its_own_user_and_the_named_capabilities(machine):
    pid = machine.run("systemctl", "show", "--property=MainPID", "--value", "boxo-agent")[1].strip()
    status = machine.run("cat", f"/proc/{pid}/status")[1]
    user = machine.run("id", "--user", "boxo-agent")[1].strip()
    assert re.search(rf"^Uid:\t{user}\t{user}\t{user}\t{user}$", status, re.M)
    granted = pods.mask(["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"])
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(re.search(rf"{name}:\s+(\w+)", status).group(1), 16) == granted, name
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status


def test_it_sees_another_users_process_through_the_sandbox(machine):
    page = machine.page_when("the node is found", lambda p: (p.value("boxo_resource_memory_usage_bytes") or 0) >
                             int(machine.known["memory"]))
    assert page.value("boxo_agent_target_up") == 1
    assert page.sum("boxo_resource_threads") == int(machine.known["threads"])
    # The file system is a tmpfs here: bytes that were written, not bytes that reached a device.
    assert page.value("boxo_resource_io_bytes_total", operation="write") >= int(machine.known["written"])
    assert page.value("boxo_network_sockets", protocol="tcp", state="established") == int(machine.known["tcp"])
    assert page.value("boxo_resource_disk_total_bytes") > 0


def test_ebpf_probes_load_under_its_system_call_filter(machine):
    def waited(page):  # an idle node never waits for a CPU: it answers, so it ran
        assert tell(machine, "send boxo_test.nudge:1|c") == "sent"
        return page.sum("boxo_resource_runqueue_latency_seconds_count")
    page = machine.page_when("run-queue latency", waited)
    reasons = {s.labels["probe"]: s.labels["reason"] for s in page.all("boxo_agent_probe_info")}
    up = {s.labels["probe"]: s.value for s in page.all("boxo_agent_probe_up")}
    assert up and all(value == 1 for probe, value in up.items() if "only with" not in reasons[probe]), reasons


def test_no_event_is_lost_while_it_restarts(machine):
    assert tell(machine, "send bitswap.requests:1|c") == "sent"
    machine.page_when("the event", lambda p: p.value("boxo_bitswap_requests_total") == 1)
    machine.run("systemctl", "kill", "--signal=SIGKILL", "boxo-agent.service")
    for _ in range(3):
        assert tell(machine, "send bitswap.requests:1|c") == "sent"
    # on-failure: systemd starts it again, and the events waited in systemd's socket.
    page = machine.page_when("the events that waited", lambda p: p.value("boxo_bitswap_requests_total") == 3)
    assert page.sum("boxo_agent_events_rejected_total") == 0


def test_stopping_it_leaves_the_socket_and_another_user_may_not_send(machine):
    machine.run("systemctl", "stop", "boxo-agent.service")
    assert machine.run("stat", "--format=%F %a %U:%G", "/run/boxo-agent/events.sock")[1].strip() \
        == "socket 660 boxo-agent:boxo-agent"
    send = 'import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"a:1|c", "/run/boxo-agent/events.sock")'
    assert machine.run("setpriv", "--reuid=2000", "--regid=2000", "--clear-groups", "/usr/bin/python3", "-c", send,
                       check=False)[0] != 0
