#!/usr/bin/python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""How much memory the agent needs with 1,000 custom series, 100 peers and full windows at a million events per second,
scraped once a second: prints one JSON object, fails above 24 MiB."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BOXO_BUILD", ROOT / "build"))
SECONDS, RATE, LIMIT_KIB = 10, 1_000_000, 24 * 1024


def memory(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return {key: int(re.search(rf"{key}:\s+(\d+)", text).group(1)) for key in ("VmRSS", "RssAnon", "RssFile")}


with tempfile.TemporaryDirectory(prefix="ba") as folder:
    log = open(f"{folder}/log", "w+")
    agent = subprocess.Popen([BUILD / "agent" / "boxo-agent", "--pid", str(os.getpid()), "--listen", "127.0.0.1:0", "--interval", "1s",
                              "--events", f"{folder}/e", *sys.argv[1:]], stdout=log, stderr=log)
    try:
        url = None
        while not url:
            time.sleep(.1)
            log.seek(0)
            url = re.search(r"http://[^\s/]+:\d+", log.read())
        time.sleep(1.5)
        idle = memory(agent.pid)
        sender = subprocess.Popen([BUILD / "tests" / "bench" / "events_bench", "--send", f"{folder}/e", "--case", "1000",
                                   "--lines", str(SECONDS * RATE), "--rate", str(RATE)], stdout=subprocess.PIPE, text=True)
        most = 0
        while sender.poll() is None:
            urllib.request.urlopen(url.group(0) + "/metrics").read()
            for _ in range(10):
                time.sleep(.1)
                most = max(most, memory(agent.pid)["VmRSS"])
        sent = json.loads(sender.stdout.read())
        time.sleep(2)
        page = urllib.request.urlopen(url.group(0) + "/metrics").read().decode()
        busy = memory(agent.pid)
    finally:
        agent.terminate()
        agent.wait()
received = float(re.search(r"^boxo_agent_events_received_total (\S+)", page, re.M).group(1))
cpu = float(re.search(r"^boxo_agent_events_cpu_seconds_total (\S+)", page, re.M).group(1))
print(json.dumps({
    "sent": sent, "received": received, "events_cpu_seconds": cpu, "page_bytes": len(page), "page_lines": page.count("\n"),
    "custom_series": len(set(re.findall(r'^boxo_load_(?:\w+?)(?:_bucket|_sum|_count)?\{[^}]*route="(\w+)"', page, re.M))) * 4,
    "most_resident_kib": most,
    "peers": len(re.findall(r"^boxo_network_peer_bytes_sent_total", page, re.M)), "idle_kib": idle, "busy_kib": busy}, indent=1))
sys.exit(received != sent["lines"] or most > LIMIT_KIB)
