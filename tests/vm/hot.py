# SPDX-License-Identifier: MIT OR Apache-2.0
"""The files of the host that every job reads: they go into the machine's memory, as a layer over the host's root file
system. Only for speed: without them a kernel of 2020 takes 10 s to start pytest, because its 9p fetches page by page."""
import os
import pathlib
import subprocess
import sysconfig

PROGRAMS = ["/usr/bin/python3", "/bin/sh", "/bin/bash", "/bin/mount", "/bin/umount", "/bin/cat", "/bin/sleep", "/usr/bin/unshare",
            "/usr/bin/setpriv", "/bin/true"]
PACKAGES = ["pytest", "_pytest", "pluggy", "iniconfig", "packaging", "attr", "py", "prometheus_client"]
UNUSED = {"test", "idlelib", "lib2to3", "tkinter", "ensurepip", "distutils", "turtledemo", "pydoc_data", "dist-packages", "config",
          "sqlite3", "wsgiref", "venv", "multiprocessing", "curses", "dbm"}


def _programs(paths):
    """These programs, the libraries they load, and all symbolic links on the way."""
    text = subprocess.run(["ldd", *paths], capture_output=True, text=True).stdout
    libraries = {w for line in text.splitlines() for w in line.split() if w.startswith("/") and not w.endswith(":")}
    for path in {*paths, *libraries}:
        # Below its real directory: /lib is a link to /usr/lib, and stays one.
        path = pathlib.Path(path)
        while path.exists():
            path = path.parent.resolve() / path.name
            yield path
            if not path.is_symlink():
                break
            path = path.parent / os.readlink(path)


def _tree(directory, skip=()):
    for where, folders, files in os.walk(directory):
        folders[:] = [f for f in folders if f.split("-")[0] not in skip]
        yield from (pathlib.Path(where) / f for f in files)


def files(root, build):
    """[path] of all of them."""
    stdlib = pathlib.Path("/usr/lib") / f"python{sysconfig.get_python_version()}"
    found = set(_programs([*PROGRAMS, str(build / "agent/boxo-agent")]))
    found |= set(_tree(stdlib, UNUSED))
    for package in PACKAGES:
        found |= set(_tree(pathlib.Path("/usr/lib/python3/dist-packages") / package))
    found |= set(_tree(root / "tests/vm")) | set(_tree(root / "tests/live"))
    found |= {p for p in (build / "tests/targets").glob("*") if p.is_file()}
    return sorted(p for p in found if p.is_symlink() or p.is_file())


def entries(root, build, below="hot"):
    """As cpio entries (name, mode, modification time, bytes) below the directory `below`, each directory before what it holds."""
    made = set()

    def directory(path):
        if path in made:
            return
        made.add(path)
        if path != pathlib.Path("/"):
            yield from directory(path.parent)
        yield f"{below}{path}".rstrip("/"), 0o040000 | path.stat().st_mode & 0o7777, 0, b""

    for path in files(root, build):
        yield from directory(path.parent)
        info = path.lstat()
        data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        yield f"{below}{path}", info.st_mode, int(info.st_mtime), data
