# SPDX-License-Identifier: MIT OR Apache-2.0
"""What runs on each kernel: `inside.py OUT CGROUP [--lockdown] [--quick] -- [PYTEST ARGUMENT...]`, as root, in the machine or (CGROUP "as-is") on the
running kernel. Leaves in OUT what this kernel has (kernel.json), what the agent says of it (check.txt) and the tests'
results (junit.xml); its status is that of the tests."""
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import platform
import signal
import socket
import struct
import subprocess
import sys
import tempfile
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


def hierarchies():
    """Where the groups of controllers are made: of version 1 a host mounts several controllers together, or each by itself."""
    if (CGROUP / "cgroup.controllers").exists():
        return [CGROUP]
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    # A group of cpuset takes nobody in before it is given CPUs; those with a name have no controller.
    return [pathlib.Path(where) for _, where, kind, options, *_ in mounts
            if kind == "cgroup" and "name=" not in options and "cpuset" not in options.split(",")]


def in_own_cgroup(pid, disk):
    """Puts the process into a cgroup with limits, so that there is something to tell of it. The directories made."""
    limits = {"memory.max": "256M", "cpu.max": "50000 100000", "pids.max": "100",
              "memory.limit_in_bytes": "256M", "cpu.cfs_quota_us": "50000"}
    if disk:
        # Version 1 counts only where there is a limit: one that nobody meets.
        limits["blkio.throttle.write_bps_device"] = f"{disk} {1 << 40}"
    made = []
    for hierarchy in hierarchies():
        group = hierarchy / "boxo-example"
        group.mkdir(exist_ok=True)
        for name, value in limits.items():
            if (group / name).exists():
                (group / name).write_text(value)
        (group / "cgroup.procs").write_text(str(pid))
        made.append(group)
    return made


def own_network():
    """This process gets a network namespace of its own with the loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


@contextlib.contextmanager
def example():
    """A process of root's that has a bit of everything: a cgroup and a network namespace of its own, sockets, I/O."""
    ready, done = os.pipe()
    go, away = os.pipe()
    device = os.stat(WHERE).st_dev
    disk = f"{os.major(device)}:{os.minor(device)}" if os.major(device) else ""
    pid = os.fork()
    if pid == 0:
        own_network()
        listener = socket.create_server(("127.0.0.1", 0))
        peer = socket.create_connection(listener.getsockname())
        os.write(done, b"x")
        os.read(go, 1)
        # A file's pages are written for the cgroup that it was made in.
        with tempfile.TemporaryFile(dir=WHERE) as file:
            file.write(b"x" * (1 << 20))
            file.flush()
            os.fsync(file.fileno())
        os.write(done, b"x")
        while True:
            peer.send(b"x" * 1000)
            time.sleep(1)
    os.close(done)  # so that its end is seen
    groups = []
    try:
        if not os.read(ready, 1):
            raise RuntimeError("the example process has ended")
        groups = in_own_cgroup(pid, disk)
        os.write(away, b"x")
        os.read(ready, 1)
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for group in groups:
            group.rmdir()
        for fd in (ready, go, away):
            os.close(fd)


WHERE = "/var/tmp"  # in tests/vm/run's machines on a disk, which an overlay is not
ON_REQUEST = ["--probe", "syscalls", "--probe", "filecalls"]  # the probes that are off by default


def check(out, case, pid, prefix=()):
    """What the agent says of this kernel under these circumstances, with all probes, also those that are off by default."""
    command = [*prefix, BUILD / "agent" / "boxo-agent", "--check", "--events", "/dev/shm/boxo-example.sock", "--pid", str(pid),
               "--data-dir", WHERE, *ON_REQUEST]
    try:
        r = subprocess.run(command, capture_output=True, text=True, timeout=600)
        (out / f"check {case}").write_text(r.stdout)
        if r.returncode:
            print(f"inside: --check ({case}) ended with {r.returncode}: {r.stderr}", flush=True)
    except subprocess.TimeoutExpired:
        print(f"inside: --check ({case}) did not end", flush=True)


NO_BTF = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]


# Of these files the tests that hang on the kernel: each probe against known numbers, the kernel's accounts of a process,
# cgroups, namespaces, what it lets be done. With [CASE]: of a parametrized test only that one. Beside each test the probes
# that it is about: it gets no others, since loading one more takes a fifth of a second and more where everything is emulated.
# ALL are loaded together where that is what is tested.
ALL, NONE = None, ""
NEAR = {
    "test_cgroups.py": dict.fromkeys([
        "test_cgroup_memory_and_cpu_limits", "test_out_of_memory_kills", "test_a_cgroup_sums_its_processes",
        "test_cpu_time_of_a_cgroup", "test_pressure_of_a_cgroup_and_of_the_host", "test_what_a_cgroup_is_charged_for",
        "test_hits_of_the_limit_of_a_group_above",
        "test_io_of_a_cgroup_by_device",
    ], NONE),
    "test_children.py": dict.fromkeys([
        "test_counted_whole[with threads and more than once-ignored]", "test_counted_whole[with threads and more than once-orphans]",
        "test_those_that_were_seen[ignored]", "test_those_that_were_seen[orphans]",
    ], "endings"),
    "test_ended_threads.py": dict.fromkeys([
        "test_switches[between two collections-threads]", "test_switches[between two collections-ignored]",
        "test_the_wait_for_a_cpu",
    ], "readers"),
    "test_kernel.py": {
        "test_sleeps_yields_fsyncs_reads_threads_and_connects_are_counted": ALL,
        "test_children_that_live_between_two_ticks_are_counted": "sched tasks",
        "test_the_agent_in_another_pid_namespace": "sched",
        "test_system_calls_only_when_asked_for": "syscalls",
        "test_cap_bpf_and_cap_perfmon_are_enough": ALL,
    },
    "test_disk.py": {
        "test_what_the_kernel_writes_back_for_the_cgroup[--pid]": "blockio",
        "test_write_amplification_of_small_appends": "blockio files fsync filecalls",
        "test_write_amplification_of_the_data_directory": "blockio files",
        "test_a_data_directory_on_a_device_on_top_of_another": "blockio filecalls",
        "test_reads_through_an_empty_and_a_full_page_cache": "blockio pagecache files filecalls",
        "test_reads_ahead[xfs]": "pagecache",
        "test_page_faults_that_wait_for_the_disk": "sched pagecache",
        "test_reclaim_in_a_small_cgroup": "throttling",
        "test_writers_held_back_by_dirty_pages": "throttling sched",
        "test_slowed_down_above_memory_high": "sched",
        "test_memory_that_is_swapped_out_is_no_data": "blockio",
        "test_out_of_memory_kills": "tasks",
        "test_signals": "tasks",
    },
    "test_filesystems.py": dict.fromkeys([f"test_calls_and_bytes[{kind}]" for kind in ("ext4", "xfs", "btrfs")], "files fsync"),
    "test_latency.py": {
        "test_block_requests_that_wait": "blockio", "test_block_requests_one_by_one": "blockio", "test_system_calls": "syscalls",
    },
    "test_sched.py": dict.fromkeys([
        "test_the_wait_for_a_cpu_is_what_the_kernel_accounts", "test_waits_for_a_pipe", "test_reads_from_a_slow_disk",
        "test_waits_in_fsync", *(f"test_waits_of_known_length[{call}]" for call in ("futex-futex", "poll-poll", "socket-socket",
                                                                                    "wait-child", "uring-io_uring")),
    ], "sched"),
    "test_tcp.py": {
        "test_two_share_a_port[target]": "tcp",
        "test_a_listener_that_begins_before_or_after_the_agent[before-listen]": "tcp",
        "test_a_listener_that_begins_before_or_after_the_agent[after-multipath]": "tcp",
        "test_resets_by_both_sides": "tcp",
        "test_dials_that_nobody_answers_are_no_loss[probe]": "tcp readers",
        "test_bytes_of_connections_that_live_between_two_ticks[TCP-iterators]": "tcp readers",
        "test_bytes_of_connections_that_live_between_two_ticks[TCP-sock_diag]": "tcp",
        "test_bytes_of_connections_that_live_between_two_ticks[MPTCP-iterators]": "tcp readers",
        "test_what_a_connection_has_after_it_was_last_read[iterators]": "tcp readers",
        "test_what_a_connection_has_after_it_was_last_read[sock_diag]": "tcp",
        "test_retransmitted_segments_as_the_sockets_count_them": "tcp",
        "test_a_multipath_connection_counts_once[multipath at both ends]": "tcp",
    },
    "test_tcp_dials.py": dict.fromkeys([
        *(f"test_a_router_answers_that_it_cannot[{answer}]" for answer in ("host", "prohibited", "network", "IPv6 prohibited")),
        "test_nobody_answers", "test_the_target_gives_up", "test_no_free_port", "test_no_route",
        "test_a_reset_after_both_have_dialled",
    ], "tcp"),
    "test_network.py": {
        "test_datagrams_to_and_from_several_remotes[IPv4]": "udp",
        "test_what_counts_as_quic": "udp",
        "test_drops_by_reason": "udp",
        "test_tcp_by_remote[listen]": "udp",
    },
    "test_network_cgroups.py": dict.fromkeys([
        "test_a_child_in_another_group_from_before_the_agent[beside]", "test_a_child_that_is_moved",
        "test_a_child_that_begins_in_another_group", "test_the_main_process_is_moved_and_its_group_removed",
        "test_a_socket_made_in_another_group[the group is removed]",
        "test_with_a_pid_a_child_that_is_moved_later_makes_the_metrics_absent",
    ], "udp"),
    "test_host.py": dict.fromkeys([
        "test_context_switches[direct]", "test_cpu_of_the_process_and_of_its_children[direct]", "test_memory_by_kind[direct]",
        "test_disk_bytes[direct]", "test_sockets_and_bytes[direct]", "test_retransmits_and_loss[direct]", "test_udp_drops[direct]",
        "test_sockets_in_another_network_namespace", "test_another_network_namespace_without_the_privilege_to_enter_it",
        "test_what_another_user_may_not_read_is_absent_with_the_mend", "test_interfaces_and_protocols_of_a_network_namespace",
    ], NONE),
    "test_target.py": dict.fromkeys([
        "test_a_cgroup_with_all_that_is_in_it[v2-absolute]", "test_a_cgroup_with_all_that_is_in_it[v1 memory-absolute]",
        "test_the_limit_is_the_targets_though_the_agent_sees_only_its_own_group[--pid]",
    ], "tasks"),
    "test_privileges.py": {
        "test_file_capabilities_are_enough_and_no_more_than_needed_are_kept[four]": "sched udp",
        "test_cap_sys_resource_is_needed_before_5_11_only": NONE,
        "test_without_any_capability_what_is_missing_says_so": ALL,
    },
    "test_bad_circumstances.py": {"test_without_tracefs": ALL, "test_without_btf": ALL, "test_in_32_mib": ALL},
    "test_scale.py": {
        "test_nothing_is_counted_twice_when_descriptors_run_out[bpf]": "readers",
        "test_iterators_tell_what_proc_and_sock_diag_tell[direct]": "readers tcp",
        "test_iterators_tell_what_proc_and_sock_diag_tell[pid_namespace]": "readers tcp",
    },
    "test_waits.py": {
        "test_waits_that_go_on[agent-sched]": "sched readers", "test_waits_that_go_on[waits-without]": "sched readers",
        "test_stopped": "sched readers", "test_stopped_in_a_sleep": "sched readers",
    },
}
# With cgroup v1 what reads cgroups; the rest is the same with v2.
NEAR_V1 = {"test_what_the_kernel_writes_back_for_the_cgroup[--pid]", "test_reclaim_in_a_small_cgroup", "test_out_of_memory_kills",
           *NEAR["test_target.py"], *NEAR["test_cgroups.py"]}


class Quick:
    """Of the live tests only those of NEAR, each with its probes."""

    def __init__(self, cgroup):
        self.v1 = cgroup == "v1"

    def wanted(self, item):
        near = item.name in NEAR.get(item.path.name, {}) and (not self.v1 or item.name in NEAR_V1)
        return near or item.path.parent.name == "vm"

    def pytest_collection_modifyitems(self, config, items):
        config.hook.pytest_deselected(items=[i for i in items if not self.wanted(i)])
        items[:] = [i for i in items if self.wanted(i)]

    def pytest_runtest_setup(self, item):
        os.environ.pop("BOXO_PROBES", None)
        if (probes := NEAR.get(item.path.name, {}).get(item.name)) is not None:
            os.environ["BOXO_PROBES"] = probes


def main(out, cgroup, *arguments):
    flags, arguments = arguments[:arguments.index("--")], arguments[arguments.index("--") + 1:]
    out = pathlib.Path(out)
    {"v1": cgroup_v1, "v2": cgroup_v2, "as-is": lambda: None}[cgroup]()
    (out / "kernel.json").write_text(json.dumps(facts()))
    with example() as pid:
        check(out, "as root", pid)
        check(out, "without BTF", pid, NO_BTF)
        # In the target's network namespace, as beside a node in a pod: without privileges there is no way to another one.
        check(out, "without privileges", pid, ["nsenter", f"--net=/proc/{pid}/ns/net", *NOBODY])
    # Not as a subprocess: starting Python costs seconds where everything is emulated.
    import pytest
    os.chdir(ROOT)

    def test(name, *more):
        return int(pytest.main(["-p", "no:cacheprovider", "-v", "--color=no", f"--junitxml={out}/{name}.xml", *more],
                               [Quick(cgroup)] if "--quick" in flags else []))

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
