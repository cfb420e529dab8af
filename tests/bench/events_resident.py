#!/usr/bin/python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""How much memory the agent needs with 1,000 custom series, 100 peers and full windows at a million events per second,
scraped once a second: prints one JSON object, fails above 24 MiB."""
import json
import os
import re
import subprocess
import sys
import time

from running import BUILD, agent, value

SECONDS, RATE, LIMIT_KIB = 10, 1_000_000, 24 * 1024
KINDS = "VmRSS", "RssAnon", "RssFile"


with agent("--pid", os.getpid(), *sys.argv[1:]) as a:
    time.sleep(1.5)
    idle = a.memory(*KINDS)
    sender = subprocess.Popen([BUILD / "tests" / "bench" / "events_bench", "--send", a.events, "--case", "1000",
                               "--lines", str(SECONDS * RATE), "--rate", str(RATE)], stdout=subprocess.PIPE, text=True)
    most = 0
    while sender.poll() is None:
        a.page()
        for _ in range(10):
            time.sleep(.1)
            most = max(most, a.memory("VmRSS")["VmRSS"])
    sent = json.loads(sender.stdout.read())
    time.sleep(2)
    page = a.page()
    busy = a.memory(*KINDS)
received = value(page, "boxo_agent_events_received_total")
cpu = value(page, "boxo_agent_events_cpu_seconds_total")
print(json.dumps({
    "sent": sent, "received": received, "events_cpu_seconds": cpu, "page_bytes": len(page), "page_lines": page.count("\n"),
    "custom_series": len(set(re.findall(r'^boxo_load_(?:\w+?)(?:_bucket|_sum|_count)?\{[^}]*route="(\w+)"', page, re.M))) * 4,
    "most_resident_kib": most,
    "peers": len(re.findall(r"^boxo_network_peer_bytes_sent_total", page, re.M)), "idle_kib": idle, "busy_kib": busy}, indent=1))
sys.exit(received != sent["lines"] or most > LIMIT_KIB)
