# SPDX-License-Identifier: MIT OR Apache-2.0
"""What runs on each kernel: `inside.py OUT CGROUP [--lockdown] [--quick] -- [PYTEST ARGUMENT...]`, as root, in the machine or (CGROUP "as-is") on the
running kernel. Leaves in OUT what this kernel has (kernel.json), what the agent says of it (check.txt) and the tests'
results (junit.xml); its status is that of the tests."""
import contextlib
import json
import os
import pathlib
import platform
import re
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BOXO_BUILD", ROOT / "build"))
CGROUP = pathlib.Path("/sys/fs/cgroup")
V1 = ["cpu,cpuacct", "blkio", "memory", "pids", "cpuset", "devices", "freezer"]


def mount(kind, where, options="", source=None):
    where.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", kind, *(["-o", options] if options else []), source or kind, where], check=True)


def cgroup_v2():
    mount("cgroup2", CGROUP)
    for name in (CGROUP / "cgroup.controllers").read_text().split():
        (CGROUP / "cgroup.subtree_control").write_text(f"+{name}")


def cgroup_v1():
    """As systemd lays it out, with the v2 hierarchy beside it that holds no controller (hybrid)."""
    mount("tmpfs", CGROUP)
    for controllers in V1:
        try:
            mount("cgroup", CGROUP / controllers, controllers)
        except subprocess.CalledProcessError:
            print(f"inside: no cgroup v1 {controllers} in this kernel", flush=True)
            (CGROUP / controllers).rmdir()
    for alias in ("cpu", "cpuacct"):
        (CGROUP / alias).symlink_to("cpu,cpuacct")
    mount("cgroup2", CGROUP / "unified")


def facts():
    """What of this kernel decides what can work."""
    def text(path):
        try:
            return pathlib.Path(path).read_text().strip()
        except OSError:
            return ""
    return {
        "release": platform.release(),
        "version": platform.version(),
        "btf": os.path.exists("/sys/kernel/btf/vmlinux"),
        "kprobes": os.path.exists("/sys/kernel/tracing/kprobe_events"),
        "lockdown": text("/sys/kernel/security/lockdown"),
        "psi": os.path.exists("/proc/pressure/cpu"),
        "delay accounting": text("/proc/sys/kernel/task_delayacct"),
        "cgroup": "v2" if (CGROUP / "cgroup.controllers").exists() else "v1",
    }


def lockdown(level):
    """Raises the kernel's lockdown level; there is no way back but a reboot."""
    try:
        pathlib.Path("/sys/kernel/security/lockdown").write_text(level)
        return True
    except OSError as e:
        print(f"inside: no lockdown={level} here: {e}", flush=True)
        return False


def in_own_cgroup(pid):
    """Puts the process into a cgroup with limits, so that there is something to tell of it. The directories made."""
    limits = {"memory.max": "256M", "cpu.max": "50000 100000", "pids.max": "100",
              "memory.limit_in_bytes": "256M", "cpu.cfs_quota_us": "50000"}
    v2 = (CGROUP / "cgroup.controllers").exists()
    made = []
    for hierarchy in [CGROUP] if v2 else [CGROUP / c for c in V1 if (CGROUP / c).is_dir() and c != "cpuset"]:
        group = hierarchy / "boxo-example"
        group.mkdir(exist_ok=True)
        for name, value in limits.items():
            if (group / name).exists():
                (group / name).write_text(value)
        (group / "cgroup.procs").write_text(str(pid))
        made.append(group)
    return made


@contextlib.contextmanager
def example():
    """A process of root's that has a bit of everything: a cgroup of its own, sockets."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        listener = socket.create_server(("127.0.0.1", 0))
        peer = socket.create_connection(listener.getsockname())
        os.write(done, b"x")
        while True:
            peer.send(b"x" * 1000)
            time.sleep(1)
    os.read(ready, 1)
    groups = in_own_cgroup(pid)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for group in groups:
            group.rmdir()


def check(out, case, pid, prefix=()):
    """What the agent says of this kernel under these circumstances, with all probes, also those that are off by default."""
    command = [*prefix, BUILD / "agent" / "boxo-agent", "--check", "--events", "/dev/shm/boxo-example.sock", "--pid", str(pid)]
    try:
        r = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if more := re.findall(r" only with --probe (\S+)", r.stdout.partition("Not exported")[0]):
            r = subprocess.run([*command, *(x for m in more for x in ("--probe", m))], capture_output=True, text=True, timeout=120)
        (out / f"check {case}").write_text(r.stdout)
        if r.returncode:
            print(f"inside: --check ({case}) ended with {r.returncode}: {r.stderr}", flush=True)
    except subprocess.TimeoutExpired:
        print(f"inside: --check ({case}) did not end", flush=True)


NO_BTF = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]


# Of these files the tests that hang on the kernel: each probe against known numbers, the kernel's accounts of a process,
# cgroups, namespaces, what it lets be done. With [CASE]: of a parametrized test only that one. An agent with all its probes
# takes seconds to begin where everything is emulated; a file that is not here is run whole.
NEAR = {
    "test_kernel.py": {
        "test_sleeps_yields_fsyncs_reads_threads_and_connects_are_counted", "test_children_that_live_between_two_ticks_are_counted",
        "test_the_agent_in_another_pid_namespace", "test_system_calls_only_when_asked_for",
        "test_cap_bpf_and_cap_perfmon_are_enough",
    },
    "test_disk.py": {
        "test_what_the_kernel_writes_back_for_the_cgroup[--pid]", "test_write_amplification_of_small_appends",
        "test_reads_through_an_empty_and_a_full_page_cache", "test_page_faults_that_wait_for_the_disk",
        "test_reclaim_in_a_small_cgroup", "test_writers_held_back_by_dirty_pages", "test_out_of_memory_kills", "test_signals",
    },
    "test_network.py": {
        "test_two_share_a_port[target]", "test_a_listener_that_begins_before_or_after_the_agent[before-listen]",
        "test_a_listener_that_begins_before_or_after_the_agent[after-multipath]", "test_resets_by_both_sides",
        "test_retransmitted_segments_as_the_sockets_count_them", "test_datagrams_to_and_from_several_remotes[IPv4]",
        "test_what_counts_as_quic", "test_drops_by_reason", "test_tcp_by_remote[listen]",
    },
    "test_host.py": {
        "test_context_switches[direct]", "test_cpu_of_the_process_and_of_its_children[direct]", "test_memory_by_kind[direct]",
        "test_disk_bytes[direct]", "test_sockets_and_bytes[direct]", "test_retransmits_and_loss[direct]", "test_udp_drops[direct]",
        "test_sockets_in_another_network_namespace", "test_another_network_namespace_without_the_privilege_to_enter_it",
        "test_what_another_user_may_not_read_is_absent_with_the_mend",
    },
    "test_target.py": {
        "test_a_cgroup_with_all_that_is_in_it[v2-absolute]", "test_a_cgroup_with_all_that_is_in_it[v1 memory-absolute]",
        "test_the_limit_is_the_targets_though_the_agent_sees_only_its_own_group[--pid]",
    },
    "test_bad_circumstances.py": {
        "test_without_tracefs", "test_without_btf", "test_a_program_that_the_verifier_refuses", "test_in_32_mib",
    },
    "test_scale.py": {"test_nothing_is_counted_twice_when_descriptors_run_out[bpf]"},
}


class Quick:
    """Of the files of NEAR only those tests."""

    def pytest_collection_modifyitems(self, config, items):
        def wanted(item):
            return item.path.name not in NEAR or item.name in NEAR[item.path.name]
        config.hook.pytest_deselected(items=[i for i in items if not wanted(i)])
        items[:] = [i for i in items if wanted(i)]


def main(out, cgroup, *arguments):
    flags, arguments = arguments[:arguments.index("--")], arguments[arguments.index("--") + 1:]
    out = pathlib.Path(out)
    {"v1": cgroup_v1, "v2": cgroup_v2, "as-is": lambda: None}[cgroup]()
    (out / "kernel.json").write_text(json.dumps(facts()))
    with example() as pid:
        check(out, "as root", pid)
        check(out, "without BTF", pid, NO_BTF)
        check(out, "without privileges", pid, NOBODY)
    # Not as a subprocess: starting Python costs seconds where everything is emulated.
    import pytest
    os.chdir(ROOT)

    def test(name, *more):
        return int(pytest.main(["-p", "no:cacheprovider", "-v", "--color=no", f"--junitxml={out}/{name}.xml", *more],
                               [Quick()] if "--quick" in flags else []))

    status = test("junit", *arguments)
    if cgroup == "v2" and "--lockdown" in flags:
        for level in ("integrity", "confidentiality"):
            if lockdown(level):
                with example() as pid:
                    check(out, f"lockdown={level}", pid)
                status = test(f"junit-{level}", "tests/vm/test_lockdown.py", "-k", level) or status
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
