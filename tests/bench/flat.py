#!/usr/bin/python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""The agent's memory and descriptors over 10,000 ticks (17 minutes), with all default probes, beside a target whose
threads, children and sockets come and go, scraped once a second. Prints one JSON object; fails above 16 MiB, or if the
last thousand ticks need more than the second thousand. Arguments are the agent's; TICKS=1000 in the environment is a
shorter run."""
import json
import os
import pathlib
import subprocess
import sys
import time

from running import agent, value

TICKS, INTERVAL, LIMIT_KIB = int(os.environ.get("TICKS", 10_000)), 0.1, 16 * 1024
TARGET = """
import os, socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
n = 0
while True:
    threads = [threading.Thread(target=time.sleep, args=(0.3,)) for _ in range(n % 20)]
    for t in threads: t.start()
    if os.fork() == 0: os._exit(0)
    os.wait()
    pairs = []
    for _ in range(n % 30):
        c = socket.create_connection(server.getsockname()); pairs += [c, server.accept()[0]]; c.send(b"x" * 1000)
    with open("/var/tmp/boxo-flat-%d" % os.getpid(), "wb") as f: f.write(b"x" * 65536); f.flush(); os.fsync(f.fileno())
    for t in threads: t.join()
    for s in pairs: s.close()
    n += 1
"""


target = subprocess.Popen([sys.executable, "-c", TARGET], stdin=subprocess.DEVNULL)
rows = []  # tick, resident, anonymous, descriptors
try:
    with agent("--pid", target.pid, *sys.argv[1:], interval=f"{INTERVAL * 1000:.0f}ms") as a:
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < TICKS * INTERVAL:
            page = a.page()
            m = a.memory("VmRSS", "RssAnon")
            rows.append((now / INTERVAL, m["VmRSS"], m["RssAnon"], len(os.listdir(f"/proc/{a.pid}/fd"))))
            if len(rows) % 60 == 0:
                print(f"{rows[-1][0]:.0f} ticks: {m['VmRSS']} KiB", file=sys.stderr, flush=True)
            time.sleep(1)
        used, peak = a.cpu_seconds(), a.memory("VmHWM")["VmHWM"]
finally:
    target.kill()
    target.wait()
    pathlib.Path(f"/var/tmp/boxo-flat-{target.pid}").unlink(missing_ok=True)


def most(low, high, column):
    return max(row[column] for row in rows if low * TICKS <= row[0] <= high * TICKS)


early, late = most(0.1, 0.2, 2), most(0.9, 1, 2)
resident = most(0.01, 1, 1)
missed = value(page, "boxo_agent_missed_collections_total")
print(json.dumps({
    "ticks": TICKS, "missed_ticks": missed, "peak_kib_while_loading": peak, "most_resident_kib": resident,
    "anonymous_kib_second_tenth": early, "anonymous_kib_last_tenth": late,
    "descriptors_second_tenth": most(0.1, 0.2, 3), "descriptors_last_tenth": most(0.9, 1, 3),
    "cpu_ms_per_tick": round(1000 * used / TICKS, 3)}, indent=1))
sys.exit(resident > LIMIT_KIB or late > early + 128)
