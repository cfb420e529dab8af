# SPDX-License-Identifier: MIT OR Apache-2.0
"""The manifests, decoded strictly by the Kubernetes API's own types, and what in them has to fit together."""
import pathlib
import re

import pytest

import pod as pods

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"


def containers(spec):
    return spec["initContainers"] + spec["containers"]


def agent_of(spec):
    return next(c for c in spec["initContainers"] if c["name"] == "boxo-agent")


@pytest.mark.parametrize("file", sorted(p.name for p in KUBERNETES.glob("*.yaml")))
def test_decodes_strictly(manifest_program, file):
    assert pods.decode(manifest_program, KUBERNETES / file)


@pytest.mark.parametrize("file,field,wrong,named", [
    ("sidecar.yaml", "shareProcessNamespace:", "shareProcessNamespaces:", "shareProcessNamespaces"),
    ("sidecar.yaml", "readOnlyRootFilesystem:", "readonlyRootFilesystem:", "readonlyRootFilesystem"),
    ("sidecar.yaml", "publishNotReadyAddresses:", "publishNotReadyAdresses:", "publishNotReadyAdresses"),
    ("sidecar.yaml", "kind: StatefulSet", "kind: StatefulSets", "StatefulSets"),
    ("sidecar.yaml", "privileged: false", "privileged: maybe", "privileged"),
    ("podmonitor.yaml", "podMetricsEndpoints:", "podMetricEndpoints:", "podMetricEndpoints"),
])
def test_a_misspelt_field_is_refused(manifest_program, tmp_path, file, field, wrong, named):
    text = (KUBERNETES / file).read_text()
    assert field in text
    (tmp_path / file).write_text(text.replace(field, wrong, 1))
    with pytest.raises(ValueError, match=named):
        pods.decode(manifest_program, tmp_path / file)


def test_a_field_given_twice_is_refused(manifest_program, tmp_path):
    text = (KUBERNETES / "sidecar.yaml").read_text()
    (tmp_path / "twice.yaml").write_text(text.replace("replicas: 1", "replicas: 1\n  replicas: 2", 1))
    with pytest.raises(ValueError, match="replicas"):
        pods.decode(manifest_program, tmp_path / "twice.yaml")


def test_the_agent_is_a_native_sidecar_with_named_capabilities(pod_spec):
    agent = agent_of(pod_spec)
    assert agent["restartPolicy"] == "Always"
    security = agent["securityContext"]
    assert security["privileged"] is False and security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"] and security["capabilities"]["add"]
    assert not {"SYS_ADMIN", "ALL"} & set(security["capabilities"]["add"])
    assert pod_spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    # eBPF needs the machine's first user namespace; no container may be given the machine's namespaces.
    assert "hostUsers" not in pod_spec
    assert not {"hostPID", "hostNetwork", "hostIPC"} & set(pod_spec)


def test_every_capability_is_explained(pod_spec):
    lines = (KUBERNETES / "sidecar.yaml").read_text().splitlines()
    for capability in agent_of(pod_spec)["securityContext"]["capabilities"]["add"]:
        at = next(i for i, line in enumerate(lines) if line.strip() == f"- {capability}")
        assert lines[at - 1].strip().startswith("#"), f"{capability} without a reason above it"


def test_what_is_offered_is_one_sign_away(manifest_program, pod_spec, tmp_path):
    text = (KUBERNETES / "sidecar.yaml").read_text()
    offered = pods.offered(KUBERNETES / "sidecar.yaml")
    assert offered == ["NET_ADMIN"] and not set(offered) & set(agent_of(pod_spec)["securityContext"]["capabilities"]["add"])
    (tmp_path / "sidecar.yaml").write_text(re.sub(r"^( +)# - (NET_ADMIN)$", r"\1- \2", text, flags=re.M))
    stateful = next(o for o in pods.decode(manifest_program, tmp_path / "sidecar.yaml") if o["kind"] == "StatefulSet")
    given = agent_of(stateful["spec"]["template"]["spec"])["securityContext"]["capabilities"]["add"]
    assert set(offered) < set(given)


def test_names_inside_the_manifest_fit_together(sidecar, pod_spec):
    stateful = sidecar["StatefulSet"]["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"].items() <= labels.items()
    assert sidecar["Service"]["spec"]["selector"].items() <= labels.items()
    assert stateful["serviceName"] == sidecar["Service"]["metadata"]["name"]
    volumes = {v["name"] for v in pod_spec["volumes"]} | {c["metadata"]["name"] for c in stateful["volumeClaimTemplates"]}
    ports = {p["name"]: p["containerPort"] for c in containers(pod_spec) for p in c.get("ports", [])}
    for container in containers(pod_spec):
        assert {m["name"] for m in container["volumeMounts"]} <= volumes
    for port in sidecar["Service"]["spec"]["ports"]:
        assert port["targetPort"] in ports and len(port["targetPort"]) <= 15
    assert 5001 not in [p["port"] for p in sidecar["Service"]["spec"]["ports"]], "the RPC API administers the node"


def test_the_agents_options_fit_its_pod(sidecar, pod_spec):
    agent = agent_of(pod_spec)
    options = dict(a.removeprefix("--").split("=", 1) for a in agent["args"])
    address, port = options["listen"].rsplit(":", 1)
    named = {p["name"]: p["containerPort"] for p in agent["ports"]}
    assert address == "0.0.0.0" and named["agent"] == int(port)
    annotations = sidecar["StatefulSet"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == port and annotations["prometheus.io/path"] == "/metrics"
    assert {agent[p]["httpGet"]["path"]: agent[p]["httpGet"]["port"] for p in ("readinessProbe", "livenessProbe")} \
        == {"/-/ready": "agent", "/-/healthy": "agent"}
    mounts = {m["name"]: m for m in agent["volumeMounts"]}
    assert options["events"].startswith(mounts["events"]["mountPath"] + "/")
    assert mounts["data"]["readOnly"] is True and mounts["data"]["mountPath"] == options["data-dir"]


def test_the_pod_monitor_finds_the_pod(manifest_program, sidecar, pod_spec):
    monitor, = pods.decode(manifest_program, KUBERNETES / "podmonitor.yaml")
    labels = sidecar["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = [p["name"] for c in containers(pod_spec) for p in c.get("ports", [])]
    assert [e["port"] for e in monitor["spec"]["podMetricsEndpoints"]] == ["agent"] and "agent" in ports


def test_kubo_is_the_version_that_the_project_is_tested_with(pod_spec):
    pinned = re.search(r"github\.com/ipfs/kubo (v[\d.]+)", (ROOT / "clients/go/kubo/go.mod").read_text()).group(1)
    kubo = next(c for c in pod_spec["containers"] if c["name"] == "kubo")
    assert kubo["image"] == f"ipfs/kubo:{pinned}"
    version = re.search(r"version : '([^']+)'", (ROOT / "meson.build").read_text()).group(1)
    assert agent_of(pod_spec)["image"] == f"boxo-agent:{version}"
