# SPDX-License-Identifier: MIT OR Apache-2.0
"""The systemd unit: verified by systemd itself, its hardening scored, its user made, its program and page there."""
import pathlib
import re
import shutil
import subprocess

import pytest

import pod as pods

ROOT = pathlib.Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "deploy/systemd"
UNIT = SYSTEMD / "boxo-agent.service"
EXPOSURE_AT_MOST = 2.7  # of 10; what is left is explained in the unit


def settings(unit=UNIT):
    """Setting: value of a unit; a setting given several times is joined."""
    found = {}
    for line in unit.read_text().splitlines():
        if re.match(r"[A-Z]\w*=", line):
            name, value = line.split("=", 1)
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


@pytest.fixture
def root(tmp_path):
    """A root directory with systemd's own units and ours."""
    for path in ("usr/bin", "usr/lib/systemd", "etc/systemd/system", "etc/default"):
        (tmp_path / path).mkdir(parents=True)
    units = next(p for p in (pathlib.Path("/usr/lib/systemd/system"), pathlib.Path("/lib/systemd/system")) if p.is_dir())
    shutil.copytree(units, tmp_path / "usr/lib/systemd/system", symlinks=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    shutil.copy("/bin/true", tmp_path / "usr/bin/boxo-agent")
    for unit in (*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.socket")):
        shutil.copy(unit, tmp_path / "etc/systemd/system")
    return tmp_path


def verify(root, unit):
    r = subprocess.run(["systemd-analyze", "verify", "--man=no", f"--root={root}", unit], capture_output=True, text=True)
    # It looks at the units that ours needs, too; only what it says of ours counts.
    return r.returncode, [line for line in r.stderr.splitlines() if "boxo-agent" in line]


@pytest.mark.parametrize("unit", sorted(p.name for p in SYSTEMD.glob("*.service")) +
                         sorted(p.name for p in SYSTEMD.glob("*.socket")))
def test_systemd_finds_no_fault(root, unit):
    assert verify(root, unit) == (0, [])


def test_systemd_would_find_a_fault(root):
    unit = root / "etc/systemd/system/boxo-agent.service"
    unit.write_text(unit.read_text().replace("ProtectSystem=", "ProtectSytem="))
    assert any("ProtectSytem" in line for line in verify(root, "boxo-agent.service")[1])


def test_exposure():
    r = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={int(EXPOSURE_AT_MOST * 10)}",
                        UNIT], capture_output=True, text=True)
    score = float(re.search(r"Overall exposure level for boxo-agent.service: ([\d.]+)", r.stdout).group(1))
    assert score <= EXPOSURE_AT_MOST and r.returncode == 0, r.stdout


def test_user_is_made(tmp_path):
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "boxo-agent.sysusers.conf"], check=True)
    service = settings()
    assert f"{service['User']}:" in (tmp_path / "etc/passwd").read_text()
    assert f"{service['Group']}:" in (tmp_path / "etc/group").read_text()


def test_capabilities_are_those_of_the_pod(pod_spec):
    agent = next(c for c in pod_spec["initContainers"] if c["name"] == "boxo-agent")
    named = {f"CAP_{c}" for c in agent["securityContext"]["capabilities"]["add"]}
    assert set(settings()["AmbientCapabilities"].split()) == set(settings()["CapabilityBoundingSet"].split()) == named


def test_what_is_offered_beside_them_is_that_of_the_pod(root):
    unit = root / "etc/systemd/system/boxo-agent.service"
    commented = re.findall(r"^#(AmbientCapabilities|CapabilityBoundingSet)=(.*)$", unit.read_text(), re.M)
    names = [f"CAP_{c}" for c in pods.offered(ROOT / "deploy/kubernetes/sidecar.yaml")]
    assert names and commented == [("AmbientCapabilities", " ".join(names)), ("CapabilityBoundingSet", " ".join(names))]
    unit.write_text(re.sub(r"^#(AmbientCapabilities|CapabilityBoundingSet)=", r"\1=", unit.read_text(), flags=re.M))
    assert verify(root, "boxo-agent.service") == (0, [])
    assert set(names) < set(settings(unit)["AmbientCapabilities"].split()) == set(settings(unit)["CapabilityBoundingSet"].split())


def test_the_socket_knows_who_sent_what_is_queued():
    found = settings(SYSTEMD / "boxo-agent.socket")
    assert found["PassCredentials"] == "yes"
    assert "ReceiveBuffer" not in found  # changes nothing for Unix sockets


def test_what_would_blind_the_agent_is_not_set():
    service = settings()
    for name in ("ProtectProc", "ProcSubset", "PrivateUsers", "PrivateNetwork", "PrivateTmp", "DynamicUser"):
        assert name not in service
    assert service["ProtectHome"] == "read-only"
    assert (ROOT / "man/boxo-agent.8").exists() and service["Documentation"] == "man:boxo-agent(8)"
