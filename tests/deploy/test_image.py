# SPDX-License-Identifier: MIT OR Apache-2.0
"""The agent's image: its Dockerfile lists the packages of exactly the libraries that the built program asks for."""
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
# In every Debian image: the C library, and what libstdc++6 depends on.
IN_EVERY_IMAGE = {"libc6", "libgcc-s1"}


def packages_of_libraries(program):
    sections = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
    found = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    packages = set()
    for library in re.findall(r"\(NEEDED\).*\[(.+)\]", sections):
        if not (path := re.search(rf"^\s*{re.escape(library)} => (\S+)", found, re.M)):
            continue  # the loader
        folder, name = path.group(1).rsplit("/", 2)[1:]
        owners = subprocess.run(["dpkg-query", "--search", f"*/{folder}/{name}"], capture_output=True, text=True,
                                check=True).stdout
        packages.add(owners.split(":")[0])
    return packages


def test_runtime_packages(agent_program):
    runtime = DOCKERFILE.split("\nFROM ")[2]
    listed = set(re.search(r"--no-install-recommends((?: \\\n\s+[a-z]\S+)+)", runtime).group(1).replace("\\", " ").split())
    assert listed == packages_of_libraries(agent_program) - IN_EVERY_IMAGE


def test_the_build_is_the_projects_own():
    assert "RUN scripts/build" in DOCKERFILE, "one list of build packages: that of scripts/lib.sh"
    for copied in re.findall(r"/src/(\S+)", DOCKERFILE):
        assert copied == "build/agent/boxo-agent" or (ROOT / copied).exists(), copied


def test_the_version_is_the_projects():
    version = re.search(r"version : '([^']+)'", (ROOT / "meson.build").read_text()).group(1)
    assert f"boxo-agent:{version}" in DOCKERFILE


def test_what_is_left_out_of_the_context_is_not_needed():
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().split()
    assert "build*" in ignored, "a build directory of the machine would be taken for the image's"
    tracked = subprocess.run(["git", "ls-files", "build*"], cwd=ROOT, capture_output=True, text=True).stdout
    assert tracked == ""
