# SPDX-License-Identifier: MIT OR Apache-2.0
"""Fixtures for the tests of deploy/: the decoder of manifests, the manifest's objects, a pod in its shape."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = pathlib.Path(os.environ.get("BOXO_BUILD", ROOT / "build"))
sys.path.insert(0, str(HERE))

import pod as pods  # noqa: E402


@pytest.fixture(scope="session")
def manifest_program(tmp_path_factory):
    """The Go program that decodes manifests strictly."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if not go:
        pytest.skip("no Go here: manifests are decoded by the Kubernetes API's own Go types")
    program = tmp_path_factory.mktemp("manifest") / "manifest"
    subprocess.run([go, "build", "-o", program, "."], cwd=HERE / "manifest", check=True)
    return program


@pytest.fixture(scope="session")
def sidecar(manifest_program):
    """The objects of sidecar.yaml by kind."""
    objects = pods.decode(manifest_program, ROOT / "deploy/kubernetes/sidecar.yaml")
    return {o["kind"]: o for o in objects}


@pytest.fixture(scope="session")
def pod_spec(sidecar):
    return sidecar["StatefulSet"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def pod(sidecar, pod_spec, tmp_path_factory):
    """An empty pod: its sandbox, volumes and network."""
    pods.need_root()
    claims = [c["metadata"]["name"] for c in sidecar["StatefulSet"]["spec"]["volumeClaimTemplates"]]
    p = pods.Pod(pod_spec, claims, tmp_path_factory.mktemp("pod"))
    yield p
    p.stop()


@pytest.fixture(scope="session")
def node_program():
    program = BUILD / "tests/targets/node"
    assert program.exists(), f"{program} is not built"
    return program


@pytest.fixture(scope="session")
def agent_program():
    program = BUILD / "agent/boxo-agent"
    assert program.exists(), f"{program} is not built"
    return program
