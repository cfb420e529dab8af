# SPDX-License-Identifier: MIT OR Apache-2.0
"""Debian's stock kernels, fetched once and kept unpacked in .cache/kernels.

apt does the fetching and checks the signatures, but with a configuration of its own below the cache: the machine's
package sources are neither read nor changed, and nothing is installed.
"""
import fcntl
import lzma
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "kernels"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR, SECURITY = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"

# name: (suite, the mirror it lies on). Several of one version, because backports change behaviour without changing it.
KERNELS = {
    "5.10": ("bullseye-security", SECURITY),
    "5.10-release": ("bullseye", MIRROR),
    "6.1": ("bookworm", MIRROR),
    "6.12": ("trixie", MIRROR),
    "6.12-backports": ("bookworm-backports", MIRROR),
}
STANDARD = ["5.10", "6.1", "6.12"]


class Unavailable(Exception):
    """A kernel that cannot be had here; the text says why."""


class Kernel:
    """An unpacked kernel package: `image` to boot, `modules` by name with what they need first."""

    def __init__(self, directory):
        self.directory = directory
        self.modules = next(directory.glob("**/lib/modules"))  # trixie has it below usr
        self.release = next(self.modules.iterdir()).name
        self.image = directory / f"boot/vmlinuz-{self.release}"
        self._files = {}
        for f in self.modules.rglob("*.ko*"):
            self._files[f.name.split(".ko")[0].replace("-", "_")] = f

    def module(self, name):
        """The module's uncompressed file; None if it is built in or not there."""
        f = self._files.get(name)
        if f is None:
            return None
        return lzma.decompress(f.read_bytes()) if f.suffix == ".xz" else f.read_bytes()

    def closure(self, names):
        """[(name, file)] of these modules and all they need, in loading order."""
        out = {}

        def visit(name):
            if name in out or (data := self.module(name)) is None:
                return
            needs = re.search(rb"\0depends=([\w,-]*)\0", data)
            for other in needs.group(1).decode().split(",") if needs else []:
                if other:
                    visit(other.replace("-", "_"))
            out[name] = data

        for name in names:
            visit(name)
        return list(out.items())

    def on_demand(self, names):
        """What the kernel may ask modprobe for -> the modules to load, for these modules; and their files."""
        wanted, files = {}, {}
        for name in names:
            closure = self.closure([name])
            if not closure or closure[-1][0] != name:
                continue
            files.update(closure)
            aliases = re.findall(rb"(?<=\0)alias=([^\0*]+)(?=\0)", closure[-1][1])
            for alias in [name, *(a.decode() for a in aliases)]:
                wanted.setdefault(alias, []).extend(n for n, _ in closure)
        return wanted, files


def _apt(tool, *args, **kwargs):
    apt = CACHE / "apt"
    options = {
        "Dir::Etc::sourcelist": apt / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": apt, "Dir::State::lists": apt / "lists", "Dir::State::status": "/dev/null",
        "Dir::Cache": apt, "APT::Architecture": "amd64", "APT::Sandbox::User": "root",
        "Acquire::Languages": "none", "Acquire::Retries": "2", "Acquire::http::Timeout": "30",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    }
    command = [tool, *(x for k, v in options.items() for x in ("-o", f"{k}={v}")), *args]
    return subprocess.run(command, check=True, text=True, stdin=subprocess.DEVNULL, **kwargs)


def _update(say):
    """Fetches the package lists, once per run."""
    apt = CACHE / "apt"
    for d in ("lists/partial", "archives/partial"):
        (apt / d).mkdir(parents=True, exist_ok=True)
    suites = dict.fromkeys(KERNELS.values())
    text = "".join(f"deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n" for suite, mirror in suites)
    (apt / "sources.list").write_text(text)
    say("package lists of " + ", ".join(s for s, _ in suites))
    # A suite that has left the mirror must not take the others with it: apt keeps what it could fetch.
    try:
        _apt("apt-get", "update", "-qq", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=180)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as e:
        say(f"some package lists are missing: {(e.stderr or '').strip()[-200:]}")


def _prune(directory):
    """Drops what no machine here can use: most drivers, 9 parts in 10 of a kernel package."""
    keep = {"block", "virtio", "char", "net", "md"}
    for d in directory.glob("**/kernel/drivers/*"):
        if d.name not in keep:
            shutil.rmtree(d) if d.is_dir() else d.unlink()
    for d in (*directory.glob("**/kernel/drivers/net/*/"), *directory.glob("**/kernel/sound"), directory / "usr/share"):
        shutil.rmtree(d, ignore_errors=True)


def _fetch(package, suite, into, say):
    """Unpacks `package` as `suite` has it into the directory `into`, which appears only when it is complete."""
    where = into.with_suffix(".part")
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    try:
        if package == "linux-image-amd64":
            shown = _apt("apt-cache", "show", f"{package}/{suite}", stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL).stdout
            package = re.search(r"^Depends: (linux-image-\S+-amd64)\b", shown, re.M).group(1)
        say(f"{package} of {suite}")
        _apt("apt-get", "download", "-qq", f"{package}/{suite}", cwd=where, stdout=subprocess.DEVNULL,
             stderr=subprocess.DEVNULL, timeout=600)
        deb = next(where.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", deb, where], check=True)
        deb.unlink()
        _prune(where)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, AttributeError, StopIteration) as e:
        shutil.rmtree(where, ignore_errors=True)
        raise Unavailable(f"{package} of {suite} cannot be downloaded") from e
    shutil.rmtree(into, ignore_errors=True)
    where.rename(into)


class Store:
    """The cache. One process at a time fetches; the others wait and then find it there."""

    def __init__(self, say, fresh=False):
        self._say, self._fresh, self._updated = say, fresh, False

    def _get(self, package, suite, directory):
        CACHE.mkdir(parents=True, exist_ok=True)
        with open(CACHE / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if directory.is_dir() and not self._fresh:
                return
            if not self._updated:
                _update(self._say)
                self._updated = True
            _fetch(package, suite, directory, self._say)

    def kernel(self, name):
        self._get("linux-image-amd64", KERNELS[name][0], CACHE / name)
        return Kernel(CACHE / name)

    def busybox(self):
        """A statically linked busybox: the first program in the machine, before the host's root is mounted."""
        self._get("busybox-static", "bookworm", CACHE / "busybox")
        return CACHE / "busybox/bin/busybox"
