#!/usr/bin/python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""1,000 scrapes per second for 10 s, over four connections: prints one JSON object, fails if the rate was not reached or
a tick was left out. Arguments are the agent's."""
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BOXO_BUILD", ROOT / "build"))
SECONDS, RATE, CONNECTIONS = 10, 1000, 4


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port))
        self.buffer = bytearray(1 << 20)

    def scrape(self):
        """Length of the page; its text is in the buffer."""
        self.socket.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        have, view = 0, memoryview(self.buffer)
        while (end := self.buffer.find(b"\r\n\r\n", 0, have)) < 0:
            have += self.socket.recv_into(view[have:])
        head = bytes(self.buffer[:end])
        assert head.startswith(b"HTTP/1.1 200"), head
        whole = end + 4 + int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        while have < whole:
            have += self.socket.recv_into(view[have:])
        return whole

    def page(self):
        return bytes(self.buffer[:self.scrape()]).decode()


def value(page, name):
    return float(re.search(rf"^{name} (\S+)", page, re.M)[1])


with tempfile.TemporaryDirectory(prefix="ba") as folder:
    log = open(f"{folder}/log", "w+")
    agent = subprocess.Popen([BUILD / "agent" / "boxo-agent", "--pid", str(os.getpid()), "--listen", "127.0.0.1:0", "--interval", "1s",
                              "--events", f"{folder}/e", *sys.argv[1:]], stdout=log, stderr=log)
    try:
        url = None
        while not url:
            time.sleep(.1)
            log.seek(0)
            url = re.search(r"http://([^\s/]+):(\d+)", log.read())
        time.sleep(2)
        first = Client(url[1], int(url[2]))
        missed, used = value(first.page(), "boxo_agent_missed_collections_total"), cpu_seconds(agent.pid)
        times, begin = [], time.monotonic()

        def scrapes(number):
            client = Client(url[1], int(url[2]))
            for n in range(number, SECONDS * RATE, CONNECTIONS):
                time.sleep(max(0, begin + n / RATE - time.monotonic()))
                start = time.monotonic()
                client.scrape()
                times.append(time.monotonic() - start)

        threads = [threading.Thread(target=scrapes, args=(n,)) for n in range(CONNECTIONS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        seconds = time.monotonic() - begin
        page, used = first.page(), cpu_seconds(agent.pid) - used
        missed = value(page, "boxo_agent_missed_collections_total") - missed
    finally:
        agent.terminate()
        agent.wait()
times.sort()
rate = len(times) / seconds
print(json.dumps({
    "scrapes": len(times), "per_second": round(rate), "missed_ticks": missed, "page_bytes": len(page),
    "median_ms": round(1000 * times[len(times) // 2], 3), "p99_ms": round(1000 * times[len(times) * 99 // 100], 3),
    "agent_cpu_ms_per_scrape": round(1000 * used / len(times), 3),
    "scraper_cpu_seconds": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime, 2)}, indent=1))
sys.exit(missed > 0 or rate < 0.98 * RATE)
