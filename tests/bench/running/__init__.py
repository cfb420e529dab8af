# SPDX-License-Identifier: MIT OR Apache-2.0
"""An agent for a benchmark: started, found, measured, ended.

    with agent("--pid", os.getpid(), *sys.argv[1:]) as a:
        page = a.page()
        print(value(page, "boxo_agent_memory_bytes"), a.memory("VmRSS"))
"""
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("BOXO_BUILD", ROOT / "build"))


def value(page, name):
    return float(re.search(rf"^{name} (\S+)", page, re.M)[1])


class Agent:
    def __init__(self, pid, url, events):
        self.pid, self.url, self.events = pid, url, events
        host, port = url.removeprefix("http://").rsplit(":", 1)
        self.address = host, int(port)

    def page(self):
        return urllib.request.urlopen(self.url + "/metrics").read().decode()

    def memory(self, *keys):
        """These lines of /proc/PID/status, in KiB."""
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return {key: int(re.search(rf"{key}:\s+(\d+)", text)[1]) for key in keys}

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def agent(*arguments, interval="1s"):
    """On a free port, with an event socket of its own; ends with the block."""
    with tempfile.TemporaryDirectory(prefix="ba") as folder, open(f"{folder}/log", "w+") as log:
        argv = [BUILD / "agent" / "boxo-agent", "--listen", "127.0.0.1:0", "--interval", interval, "--events", f"{folder}/e", *arguments]
        process = subprocess.Popen([str(word) for word in argv], stdout=log, stderr=log)
        try:
            while not (url := re.search(r"http://[^\s/]+:\d+", pathlib.Path(log.name).read_text())):
                if process.poll() is not None:
                    sys.exit(f"the agent does not run: {pathlib.Path(log.name).read_text().strip()}")
                time.sleep(.1)
            started = Agent(process.pid, url[0], f"{folder}/e")
            while not started.page():  # the first collection
                time.sleep(.1)
            yield started
        finally:
            process.terminate()
            process.wait()
