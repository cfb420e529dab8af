#!/usr/bin/python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""1,000 scrapes per second for 10 s, over four connections: prints one JSON object, fails if the rate was not reached or
a tick was left out. Arguments are the agent's."""
import json
import os
import re
import resource
import socket
import sys
import threading
import time

from running import agent, value

SECONDS, RATE, CONNECTIONS = 10, 1000, 4


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


with agent("--pid", os.getpid(), *sys.argv[1:]) as a:
    time.sleep(2)
    first = Client(*a.address)
    missed, used = value(first.page(), "boxo_agent_missed_collections_total"), a.cpu_seconds()
    times, begin = [], time.monotonic()

    def scrapes(number):
        client = Client(*a.address)
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
    page, used = first.page(), a.cpu_seconds() - used
    missed = value(page, "boxo_agent_missed_collections_total") - missed
times.sort()
rate = len(times) / seconds
print(json.dumps({
    "scrapes": len(times), "per_second": round(rate), "missed_ticks": missed, "page_bytes": len(page),
    "median_ms": round(1000 * times[len(times) // 2], 3), "p99_ms": round(1000 * times[len(times) * 99 // 100], 3),
    "agent_cpu_ms_per_scrape": round(1000 * used / len(times), 3),
    "scraper_cpu_seconds": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime, 2)}, indent=1))
sys.exit(missed > 0 or rate < 0.98 * RATE)
