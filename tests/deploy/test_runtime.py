# SPDX-License-Identifier: MIT OR Apache-2.0
"""The pod of sidecar.yaml under a real container runtime, runc, with the system call filter that `RuntimeDefault` means:
the agent's probes are allowed there because the manifest names their capabilities."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest

import pod as pods
from pod import live


class RuncContainer:
    """A container of the pod as runc runs it."""

    def __init__(self, container, program, args, profile, name):
        self.pod, self.name = container.pod, name
        bundle = self.pod.directory / name
        self.root = bundle / "rootfs"
        self.root.mkdir(parents=True)
        for link in ("bin", "sbin", "lib", "lib64"):
            (self.root / link).symlink_to(f"usr/{link}")
        (self.root / "app").mkdir()
        shutil.copy(program[0], self.root / "app" / program[1])
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
        file = bundle / "config.json"
        config = json.loads(file.read_text())
        self.configure(config, container, args, profile)
        file.write_text(json.dumps(config))
        self.log = self.pod.directory / f"{name}.log"
        with open(self.log, "w") as log:
            self.popen = subprocess.Popen(["runc", "run", "--bundle", bundle, name], stdin=subprocess.PIPE, text=True,
                                          stdout=subprocess.PIPE if program[1] == "ipfs" else log, stderr=log)

    def configure(self, config, container, args, profile):
        capabilities = [f"CAP_{c}" for c in container.capabilities]
        config["process"].update(
            terminal=False, args=args, noNewPrivileges=container.no_new_privileges, env=["PATH=/app:/usr/bin"],
            user={"uid": container.uid, "gid": container.gid,
                  "additionalGids": [self.pod.spec["securityContext"]["fsGroup"]]},
            capabilities={kind: capabilities for kind in ("bounding", "effective", "permitted")})
        config["root"]["readonly"] = container.read_only_root
        config.pop("hostname", None)
        shared = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}
        namespaces = [n for n in config["linux"]["namespaces"] if n["type"] not in ("cgroup", *shared)]
        config["linux"]["namespaces"] = namespaces + [{"type": "cgroup"}] + [
            {"type": kind, "path": f"/proc/{self.pod.sandbox_pid}/ns/{file}"} for kind, file in shared.items()]
        config["linux"]["seccomp"] = profile
        config["linux"]["cgroupsPath"] = f"/{self.pod.group}/{self.name}"
        config["mounts"] += [{"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}] + [
            {"destination": v["mountPath"], "type": "bind", "source": str(self.pod.volumes[v["name"]]),
             "options": ["rbind", "ro" if v.get("readOnly") else "rw"]} for v in container.spec["volumeMounts"]]

    def tell(self, line):
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline().strip()

    def pid(self):
        state = subprocess.run(["runc", "state", self.name], capture_output=True, text=True, check=True).stdout
        return json.loads(state)["pid"]

    def stop(self):
        subprocess.run(["runc", "delete", "--force", self.name], check=False, capture_output=True)
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe:
                pipe.close()


@pytest.fixture(scope="module")
def runc(pod):
    if not shutil.which("runc"):
        pytest.skip("no runc here (Debian's package runc)")
    started = []

    def run(*args):
        started.append(RuncContainer(*args))
        return started[-1]

    yield run
    for container in started:
        container.stop()


def seccomp(manifest_program, capabilities):
    return json.loads(subprocess.run([manifest_program, "-seccomp", ",".join(capabilities)], capture_output=True, text=True,
                                     check=True).stdout)


@pytest.fixture(scope="module")
def node(runc, pod, manifest_program, node_program):
    kubo = pod.containers["kubo"]
    container = runc(kubo, (node_program, "ipfs"), ["ipfs", "daemon", "/data/ipfs", "/run/boxo-agent/events.sock"],
                     seccomp(manifest_program, kubo.capabilities), f"kubo{os.getpid()}")
    assert container.popen.stdout.readline().startswith("READY"), container.log.read_text()
    return container


def start_agent(runc, pod, agent_program, profile, port):
    spec = pod.containers["boxo-agent"]
    args = [a.replace("9559", str(port)).replace("events.sock", f"events{port}.sock" if port != 9559 else "events.sock")
            for a in spec.spec["args"]]
    agent = runc(spec, (agent_program, "boxo-agent"), ["boxo-agent", *args, "--interval=500ms"], profile,
                 f"agent{port}-{os.getpid()}")

    def page():
        assert agent.popen.poll() is None, agent.log.read_text()
        status, text = pod.get(port, "/metrics")
        p = live.Page(text) if status == 200 else None
        return p if p and p.value("boxo_agent_target_up") == 1 else None

    agent.page = lambda: live.wait_until("the agent watches the node", page, 60)
    agent.page()
    return agent


def probes(page):
    """(the default probes, those of them that are up, reasons)."""
    reasons = {s.labels["probe"]: s.labels["reason"] for s in page.all("boxo_agent_probe_info")}
    default = {p for p, reason in reasons.items() if "only with" not in reason}
    return default, {s.labels["probe"] for s in page.all("boxo_agent_probe_up") if s.value == 1}, reasons


def test_probes_attach_under_the_default_filter(runc, pod, node, manifest_program, agent_program):
    profile = seccomp(manifest_program, pod.containers["boxo-agent"].capabilities)
    agent = start_agent(runc, pod, agent_program, profile, 9559)
    assert "Seccomp:\t2" in pathlib.Path(f"/proc/{agent.pid()}/status").read_text()
    default, up, reasons = probes(agent.page())
    assert default and up == default, reasons
    assert node.tell("send bitswap.requests:5|c") == "sent"
    assert node.tell("write") == "written"

    def told():
        page = agent.page()
        return (page.value("boxo_bitswap_requests_total") == 5 and (page.sum("boxo_resource_runqueue_latency_seconds_count") or 0) > 0 and
                (page.value("boxo_resource_disk_write_bytes_total") or 0) > 0 and page)

    page = live.wait_until("the event, its running and its writing are told", told, 60)
    assert page.value("boxo_network_sockets", protocol="tcp", state="listening") == 1


def test_a_filter_without_the_capabilities_refuses_them_and_the_rest_goes_on(runc, pod, node, manifest_program,
                                                                             agent_program):
    agent = start_agent(runc, pod, agent_program, seccomp(manifest_program, []), 9560)
    page = agent.page()
    default, up, reasons = probes(page)
    assert not up and all("seccomp" in reasons[p] for p in default), reasons
    assert page.sum("boxo_resource_cpu_seconds_total") > 0
