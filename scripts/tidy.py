# SPDX-License-Identifier: MIT OR Apache-2.0
"""tidy.py BUILD-DIR: clang-tidy over the program's sources, two at a time.

A file that passed is not looked at again until it, a project header that it includes, or .clang-tidy changes:
.cache/tidy holds the hashes of what passed. The last line counts files.
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "tidy"


def commands(build):
    """{source: compile command} of agent/ and collectors/."""
    found = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = (pathlib.Path(entry["directory"]) / entry["file"]).resolve()
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("agent", "collectors") and path.suffix == ".cc":
            found[path] = entry
    return found


def fingerprint(entry):
    """Of everything of the project that this source depends on."""
    argv = [a for a in shlex.split(entry["command"]) if a not in ("-MD", "-c")]
    for option in ("-MQ", "-MF", "-o"):
        if option in argv:
            del argv[argv.index(option):argv.index(option) + 2]
    listed = subprocess.run([x for x in argv if x != "ccache"] + ["-MM", "-MT", "x"], cwd=entry["directory"], capture_output=True, text=True)
    digest = hashlib.sha256((ROOT / ".clang-tidy").read_bytes() + entry["command"].encode())
    for name in listed.stdout.replace("\\\n", " ").split()[1:]:
        path = (pathlib.Path(entry["directory"]) / name).resolve()
        if path.is_relative_to(ROOT):
            digest.update(path.read_bytes())
    return digest.hexdigest() if listed.returncode == 0 else None


def tidy(build, source, entry):
    """(source, what clang-tidy said, whether it passed)"""
    mark = fingerprint(entry)
    if mark and (CACHE / mark).exists():
        return source, "", True
    done = subprocess.run(["clang-tidy", "--quiet", "-p", str(build), str(source)], capture_output=True, text=True)
    if done.returncode == 0 and mark:
        (CACHE / mark).touch()
    return source, done.stdout, done.returncode == 0


def main():
    build = ROOT / sys.argv[1]
    CACHE.mkdir(parents=True, exist_ok=True)
    failed, sources = 0, commands(build)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(tidy, build, source, entry) for source, entry in sorted(sources.items())]
        for n, job in enumerate(concurrent.futures.as_completed(jobs), 1):
            source, said, passed = job.result()
            failed += not passed
            print(f"[{n}/{len(jobs)}] {source.relative_to(ROOT)}{'' if passed else chr(10) + said}", flush=True)
    print(f"{len(sources) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
