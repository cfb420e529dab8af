# SPDX-License-Identifier: MIT OR Apache-2.0
"""Sends known numbers through datadog's client for Python: many lines a datagram, and waiting for a queue that is full.
(By default it sends one line a datagram and drops what does not fit at once.)"""
import sys

from datadog.dogstatsd import DogStatsd

statsd = DogStatsd(socket_path=sys.argv[1], constant_tags=["client:python"], disable_buffering=False, socket_timeout=5)
for n in range(10000):
    statsd.increment("bitswap.requests")
    if n % 10 == 0:
        statsd.timing("bitswap.response_time", n % 100, tags=["result:ok"])
        statsd.distribution("myapp.size", n)
statsd.gauge("blockstore.total_blocks", 1000)
statsd.increment("network.bytes_sent", 4096, tags=["peer:12D3KooWPython"])
statsd.set("myapp.users", "someone")
statsd.event("title", "text")
statsd.service_check("myapp.up", DogStatsd.OK)
statsd.flush()
