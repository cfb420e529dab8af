# SPDX-License-Identifier: MIT OR Apache-2.0
"""A machine: one kernel of kernels.py under qemu, in software (works wherever a process may run), for one job."""
import os
import pathlib
import selectors
import shutil
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_blk", "crc32c_generic", "ext4", "loop"]
# Loaded when somebody needs them, as on a real system: what answers sock_diag, file systems, networks to test with.
ON_DEMAND = ["tcp_diag", "udp_diag", "inet_diag", "unix_diag", "netlink_diag", "veth", "dummy", "sch_netem", "xfs", "btrfs", "dm_mod"]
# mitigations, the watchdogs and memory cleared twice cost time that software emulation has not; the clock is the host's own
# counter. A string instruction is fast on a processor, and slow where each of its steps is emulated: without these features
# (112 is "rep is good") the kernel copies and clears memory by plain loops.
CPU = "max,la57=off,-erms,-fsrm"
CMDLINE = ("console=ttyS0 quiet rootfstype=ramfs panic=-1 oops=panic mitigations=off no_timer_check tsc=reliable clocksource=tsc "
           "nowatchdog rcupdate.rcu_cpu_stall_suppress=1 init_on_alloc=0 clearcpuid=112 psi=1 delayacct")
TROUBLE = ("BUG:", "Oops", "general protection", "Kernel panic", "KASAN", "refcount_t")


def _newc(entries):
    """A cpio archive in the kernel's own format: entries are (name, mode, modification time, bytes)."""
    out = bytearray()
    for i, (name, mode, mtime, data) in enumerate([*entries, ("TRAILER!!!", 0, 0, b"")]):
        name = name.encode()
        fields = [i + 1, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + name + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def initramfs(kernel, busybox):
    first, (wanted, later) = kernel.closure(MODULES), kernel.on_demand(ON_DEMAND)
    entries = [(d, 0o040755, 0, b"") for d in ("bin", "sbin", "dev", "modules", "hot")]
    entries += [("bin/busybox", 0o100755, 0, busybox.read_bytes()), ("init", 0o100755, 0, (HERE / "init.sh").read_bytes()),
                ("sbin/modprobe", 0o100755, 0, (HERE / "modprobe.sh").read_bytes())]
    entries += [(f"modules/{name}.ko", 0o100644, 0, data) for name, data in {**later, **dict(first)}.items()]
    entries += [("modules/first", 0o100644, 0, "".join(f"{name}\n" for name, _ in first).encode()),
                ("modules/wanted", 0o100644, 0, "".join(f"{a} {' '.join(m)}\n" for a, m in wanted.items()).encode())]
    return _newc(entries)


class Run:
    """What a job left: its exit status (None: the machine ended without one, `trouble` says how), what it printed, the
    kernel's messages, and `out`, the directory that it saw as /out."""

    def __init__(self, out):
        self.out, self.status, self.text, self.console, self.trouble, self.seconds = out, None, "", "", "", 0.0


def archive(entries):
    """What `run` takes as `hot`; made once, used by many machines."""
    return _newc(entries)


def run(kernel, busybox, job, *, out, timeout, hot=b"", cmdline="", memory="1536M", line=None, cpus=2):
    """Boots `kernel`, runs the shell script `job` as root in the host's file system, and waits for the end, at most
    `timeout` seconds. `line(text)` is called with every line that the job prints."""
    result = Run(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "job").write_text(job)
    tmp = out.with_name(f".{out.name}")  # a runner that is killed leaves it behind, until the next one
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir()
    try:
        (tmp / "initramfs").write_bytes(initramfs(kernel, busybox) + hot)
        with open(tmp / "disk", "wb") as f:
            f.truncate(1 << 30)
        subprocess.run(["mkfs.ext4", "-q", "-F", tmp / "disk"], check=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/sbin:/usr/sbin"})
        share = "local,security_model=none,multidevs=remap"
        # One host thread for all virtual CPUs: less work in all, and QEMU's other mode sometimes lets a CPU run into a
        # breakpoint of the kernel's code patching that is no longer there.
        # It ends with its runner, however that ends.
        argv = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", CPU, "-smp", str(cpus), "-m", memory,
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-net", "none",
                "-kernel", kernel.image, "-initrd", tmp / "initramfs", "-append", f"{CMDLINE} {cmdline}",
                "-virtfs", f"{share},path=/,mount_tag=host,readonly=on", "-virtfs", f"{share},path={out},mount_tag=out",
                "-drive", f"file={tmp}/disk,format=raw,if=virtio,cache=unsafe",
                "-serial", f"file:{out}/console", "-serial", "stdio"]
        start = time.monotonic()
        qemu = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)
        try:
            result.text = _follow(qemu, start + timeout, line)
            if qemu.poll() is None:
                last = (result.text.strip() or "nothing").splitlines()[-1]
                result.trouble = f"not finished within {timeout} s; the last it said: {last}"
        finally:
            qemu.kill()
            qemu.wait()
            qemu.stdout.close()
        result.seconds = time.monotonic() - start
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    result.console = (out / "console").read_text(errors="replace") if (out / "console").exists() else ""
    if (out / "status").exists():
        result.status = int((out / "status").read_text() or -1)
    bad = [x.strip() for x in result.console.splitlines() if any(t in x for t in TROUBLE)]
    if bad:
        result.trouble = "the kernel reports: " + bad[0]
    elif result.status is None and not result.trouble:
        last = (result.console + result.text).strip().splitlines()[-1:]
        result.trouble = f"the machine ended before the job: {last}"
    return result


def _follow(qemu, deadline, line):
    """What qemu prints until it ends or the deadline comes."""
    text, rest = [], b""
    os.set_blocking(qemu.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(qemu.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                break
            data = qemu.stdout.read()
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for x in lines:
                text.append(x.decode(errors="replace").rstrip("\r"))
                if line:
                    line(text[-1])
    if not (left <= 0):
        try:
            qemu.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
    return "\n".join([*text, rest.decode(errors="replace")])
