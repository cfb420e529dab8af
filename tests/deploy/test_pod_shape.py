# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the rebuilt pod is: the namespaces, credentials and mounts that the manifest's fields mean."""
import os
import pathlib
import subprocess

import pytest

import pod as pods


class Shell:
    """A shell in a container."""

    def __init__(self, container):
        self.popen = container.start(("/bin/dash", "/app/shell"), ["/app/shell"], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True)
        self.inner = self.run("echo $$")
        self.pid = next(p for (_, inner), p in container.pod.pids().items() if inner == int(self.inner))

    def run(self, command):
        self.popen.stdin.write(f"({command}) 2>&1; echo =end\n")
        self.popen.stdin.flush()
        lines = []
        while (line := self.popen.stdout.readline()) and line != "=end\n":
            lines.append(line)
        return "".join(lines).strip()

    def namespace(self, kind):
        return os.stat(f"/proc/{self.pid}/ns/{kind}").st_ino

    def status(self, name):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return next(line.split(":")[1].split() for line in text.splitlines() if line.startswith(name + ":"))


@pytest.fixture(scope="module")
def shells(pod):
    return {name: Shell(container) for name, container in pod.containers.items()}


def test_namespaces(shells):
    kubo, agent = shells["kubo"], shells["boxo-agent"]
    for kind in ("pid", "net", "ipc", "uts"):
        assert kubo.namespace(kind) == agent.namespace(kind) != os.stat(f"/proc/self/ns/{kind}").st_ino, kind
    for kind in ("mnt", "cgroup"):
        assert len({kubo.namespace(kind), agent.namespace(kind), os.stat(f"/proc/self/ns/{kind}").st_ino}) == 3, kind
    # eBPF's capabilities count in the first user namespace only.
    assert kubo.namespace("user") == agent.namespace("user") == os.stat("/proc/self/ns/user").st_ino


@pytest.mark.parametrize("name", ["boxo-agent", "kubo"])
def test_credentials_are_exactly_those_of_the_manifest(shells, pod, pod_spec, name):
    shell, container = shells[name], pod.containers[name]
    granted = pods.mask(container.capabilities)
    for set_name in ("CapBnd", "CapPrm", "CapEff"):
        held = int(shell.status(set_name)[0], 16)
        expected = granted if container.uid == 0 or set_name == "CapBnd" else 0
        assert held == expected, f"{set_name} {held:#x}"
    for set_name in ("CapInh", "CapAmb"):
        assert int(shell.status(set_name)[0], 16) == 0
    assert shell.status("Uid") == [str(container.uid)] * 4 and shell.status("Gid") == [str(container.gid)] * 4
    assert shell.status("Groups") == [str(pod_spec["securityContext"]["fsGroup"])]
    assert shell.status("NoNewPrivs") == ["1"]


def test_the_agent_sees_the_node_and_not_its_files(shells, pod):
    kubo, agent = shells["kubo"], shells["boxo-agent"]
    assert agent.run(f"cat /proc/{kubo.inner}/comm") == "shell"
    assert kubo.run("echo secret > /data/ipfs/file && echo written") == "written"
    assert agent.run("cat /data/ipfs/file") == "secret"
    assert "Read-only file system" in agent.run("echo x > /data/ipfs/file")
    assert "Read-only file system" in agent.run("touch /file")


def test_the_volume_of_the_event_socket(shells):
    kubo, agent = shells["kubo"], shells["boxo-agent"]
    assert agent.run("echo x > /run/boxo-agent/file && ls -ln /run/boxo-agent/file | cut -d' ' -f4") == "100"
    assert kubo.run("cat /run/boxo-agent/file") == "x"
    assert "Read-only file system" in kubo.run("rm -f /run/boxo-agent/file")
    agent.run("rm /run/boxo-agent/file")


def test_no_host_mount_is_needed_for_type_information(shells):
    assert shells["boxo-agent"].run("head -c 2 /sys/kernel/btf/vmlinux | od -An -tx1").split() == ["9f", "eb"]
