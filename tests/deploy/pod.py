# SPDX-License-Identifier: MIT OR Apache-2.0
"""A pod as the manifest describes it, made of namespaces, cgroups and setpriv: what a kubelet and a container runtime
do with the fields that deploy/kubernetes/sidecar.yaml uses. Nothing about the pod is written here a second time: users,
groups, capabilities, volumes and limits come from the manifest."""
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("live_conftest", HERE.parent / "live/conftest.py")
live = importlib.util.module_from_spec(_spec)  # Page and wait_until, as the live tests have them
_spec.loader.exec_module(live)
CGROUPS = pathlib.Path("/sys/fs/cgroup")
CAPABILITIES = {  # the bits of /proc/PID/status that the tests name
    "CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21,
    "SYS_RESOURCE": 24, "PERFMON": 38, "BPF": 39,
}


def need_root():
    if os.geteuid() != 0:
        live.pytest.skip("namespaces and capabilities as in a pod need root")


def mask(names):
    return sum(1 << CAPABILITIES[n] for n in names)


def decode(manifest_program, *files):
    """The objects of manifest files, decoded strictly by tests/deploy/manifest."""
    r = subprocess.run([manifest_program, *map(str, files)], capture_output=True, text=True)
    if r.returncode:
        raise ValueError(r.stderr.strip())
    return [json.loads(line) for line in r.stdout.splitlines()]


def offered(manifest):
    """The capabilities that the manifest has as a comment to take the sign away from."""
    return re.findall(r"^ +# - ([A-Z_]+)$", pathlib.Path(manifest).read_text(), re.M)


def quantity(text):
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", str(text)).groups()
    return int(number) * {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}[unit]


def hierarchies():
    """The directories of this machine's cgroup hierarchies."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [p for p in CGROUPS.iterdir() if p.is_dir() and not p.is_symlink()]


def remove_groups(group):
    """Removes a group and those below it, once their processes are gone."""
    for path in sorted([group, *(p for p in group.rglob("*") if p.is_dir())], key=lambda p: len(p.parts), reverse=True):
        for _ in range(1000):
            try:
                path.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)


class Container:
    def __init__(self, pod, spec):
        self.pod, self.spec, self.name = pod, spec, spec["name"]
        security = spec.get("securityContext", {})
        caps = security.get("capabilities", {})
        assert caps.get("drop") == ["ALL"], "only containers that drop every capability first are supported here"
        self.capabilities = list(caps.get("add", []))
        self.uid, self.gid = security["runAsUser"], security["runAsGroup"]
        self.no_new_privileges = security.get("allowPrivilegeEscalation") is False
        self.read_only_root = security.get("readOnlyRootFilesystem", False)

    def credentials(self, without=(), more=()):
        # A runtime gives root what is in the bounding set; Kubernetes has no ambient capabilities.
        bounding = ["-all", *(f"+{c.lower()}" for c in [*self.capabilities, *more] if c not in without)]
        return " ".join([
            f"--reuid={self.uid}", f"--regid={self.gid}", f"--groups={self.pod.spec['securityContext']['fsGroup']}",
            "--bounding-set=" + ",".join(bounding), "--inh-caps=-all", "--ambient-caps=-all",
            *(["--no-new-privs"] if self.no_new_privileges else [])])

    def start(self, program, command, instance="0", credentials=None, **popen):
        """Starts `command`; `program` is (file, where it is in the container's image)."""
        root = self.pod.directory / f"{self.name}-{instance}"
        root.mkdir()
        volumes = " ".join(f"{self.pod.volumes[v['name']]}:{v['mountPath']}:{'ro' if v.get('readOnly') else 'rw'}"
                           for v in self.spec["volumeMounts"])
        argv = [HERE / "container.sh", self.pod.sandbox_pid, root, "ro" if self.read_only_root else "rw",
                self.pod.cgroup(self), volumes, credentials or self.credentials(), f"{program[0]}:{program[1]}", *command]
        p = subprocess.Popen(list(map(str, argv)), **popen)
        self.pod.started.append(p)
        return p


class Pod:
    def __init__(self, spec, data_volumes, directory):
        """`spec` is a PodSpec; a claim is a directory of this machine."""
        self.spec, self.directory, self.started = spec, pathlib.Path(directory), []
        self.group = f"boxo-pod-{os.getpid()}"
        assert spec["shareProcessNamespace"] is True
        self.containers = {c["name"]: Container(self, c) for c in spec.get("initContainers", []) + spec["containers"]}
        self.volumes = {}
        for name in [v["name"] for v in spec["volumes"]] + list(data_volumes):
            self.volumes[name] = self.volume(name)
        self.sandbox = subprocess.Popen(
            ["unshare", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"],
            stderr=subprocess.DEVNULL)
        self.sandbox_pid = self.child_of(self.sandbox.pid)
        self.address = self.network()

    def volume(self, name):
        path = self.directory / f"volume-{name}"
        path.mkdir()
        # As the kubelet prepares an emptyDir or a claim for an fsGroup: set-group-id and writable for the group.
        os.chown(path, 0, self.spec["securityContext"]["fsGroup"])
        path.chmod(0o2777)
        return path

    def child_of(self, pid):
        """unshare's child, once it is what it runs."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == "sleep":
                    return int(child)
            time.sleep(0.01)
        raise TimeoutError("the sandbox did not start")

    def network(self):
        """A link from this machine into the pod: probes and scrapes come from outside."""
        subnet, here, there = f"198.18.{os.getpid() % 256}", f"bx{os.getpid()}", f"by{os.getpid()}"
        inside = ["nsenter", "-t", str(self.sandbox_pid), "-n", "ip"]
        for command in (["ip", "link", "add", here, "type", "veth", "peer", "name", there],
                        ["ip", "link", "set", there, "netns", str(self.sandbox_pid)],
                        ["ip", "addr", "add", f"{subnet}.1/30", "dev", here], ["ip", "link", "set", here, "up"],
                        [*inside, "link", "set", "lo", "up"],
                        [*inside, "addr", "add", f"{subnet}.2/30", "dev", there], [*inside, "link", "set", there, "up"]):
            subprocess.run(command, check=True)
        return f"{subnet}.2"

    def cgroup(self, container):
        """The container's group in every hierarchy, with the memory limit of its resources."""
        name = f"{self.group}/{container.name}"
        limit = container.spec.get("resources", {}).get("limits", {}).get("memory")
        for hierarchy in hierarchies():
            group = hierarchy / name
            if group.exists():
                continue
            if hierarchy == CGROUPS:
                group.parent.mkdir(exist_ok=True)
                for g in (hierarchy, group.parent):
                    (g / "cgroup.subtree_control").write_text("+memory +cpu +io +pids")
            group.mkdir(parents=True)
            for inherited in ("cpuset.cpus", "cpuset.mems"):
                for g in (group.parent, group):
                    if (g / inherited).exists():
                        (g / inherited).write_text((hierarchy / inherited).read_text())
            for file in ("memory.limit_in_bytes", "memory.max"):
                if limit and (group / file).exists():
                    (group / file).write_text(str(quantity(limit)))
        return name

    def get(self, port, path):
        """(status, body) of an HTTP GET from outside the pod."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:{port}{path}", timeout=10) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
        except OSError as e:
            return None, str(e)

    def pids(self):
        """Host pid by (name, pid in the pod) of every process in the pod's process namespace."""
        namespace = os.stat(f"/proc/{self.sandbox_pid}/ns/pid").st_ino
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if (entry / "ns/pid").stat().st_ino == namespace:
                    inner = re.search(r"^NSpid:.*\s(\d+)$", (entry / "status").read_text(), re.M).group(1)
                    found[(entry / "comm").read_text().strip(), int(inner)] = int(entry.name)
            except (OSError, AttributeError):
                pass
        return found

    @staticmethod
    def pid_of(popen):
        """The host's pid of the program that Container.start() started: nsenter's child."""
        children = pathlib.Path(f"/proc/{popen.pid}/task/{popen.pid}/children").read_text().split()
        return int(children[0]) if len(children) == 1 else None

    def stop(self):
        # The end of process 1 of the sandbox ends every process in it, and with its network its link.
        os.kill(self.sandbox_pid, signal.SIGKILL)
        self.sandbox.wait()
        for p in self.started:
            p.wait()
            for pipe in (p.stdin, p.stdout):
                if pipe:
                    pipe.close()
        for hierarchy in hierarchies():
            remove_groups(hierarchy / self.group)
        shutil.rmtree(self.directory, ignore_errors=True)
