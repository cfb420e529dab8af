# SPDX-License-Identifier: MIT OR Apache-2.0
"""demo.py AGENT KUBO KUBO-WITH-EVENTS [AGENT-ARGUMENT...]: the agent beside the second of two kubo nodes that exchange
blocks. The first is kubo as it is, the second the one that tells the agent what it does.

Everything it starts ends with it, also when it is killed; what it writes is in one temporary directory, which it
removes (one that a killed demo left is removed by the next).
"""
import fcntl
import http.client
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import nodes

PREFIX = "boxo-demo-"
FILES_KEPT = 4            # on each node, before it collects garbage
LARGEST_FILE = 8 << 20    # so a node holds at most some 40 MiB
PAUSE = 0.5


class Screen:
    """Lines and, on a terminal, one status line below them."""

    def __init__(self):
        self.tty, self.lock, self.status_text = sys.stderr.isatty(), threading.Lock(), ""

    def say(self, text):
        with self.lock:
            sys.stderr.write(("\r\033[K" if self.status_text else "") + text + "\n" + self.status_text)
            sys.stderr.flush()

    def status(self, text):
        if not self.tty:
            return
        with self.lock:
            self.status_text = text[:shutil.get_terminal_size().columns - 1]
            sys.stderr.write("\r\033[K" + self.status_text)
            sys.stderr.flush()

    def end_status(self):
        with self.lock:
            if self.status_text:
                sys.stderr.write("\n")
            self.status_text = ""


class Workspace:
    """The temporary directory, locked as long as this demo lives."""

    def __init__(self):
        base = pathlib.Path(tempfile.gettempdir())
        for old in base.glob(PREFIX + "*"):
            self._remove_if_left(old)
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
        self.lock = open(self.path / "lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    @staticmethod
    def _remove_if_left(path):
        try:
            if path.stat().st_uid != os.getuid():
                return
            with open(path / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # another demo's, or not a demo's

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()


class Load(threading.Thread):
    """New files on the first node, fetched by the second, read there twice, and in the end removed from both."""

    def __init__(self, source, sink):
        super().__init__(daemon=True)
        self.source, self.sink = source, sink
        self.bytes = self.rounds = 0
        self.error = None

    def run(self):
        random_bytes = random.Random(os.urandom(16)).randbytes
        kept = []
        try:
            while True:
                data = random_bytes(random.randint(LARGEST_FILE // 16, LARGEST_FILE))
                cid = self.source.add(data)
                self.sink.fetch(cid)
                for _ in range(2):
                    if len(self.sink.cat(cid)) != len(data):
                        raise nodes.NodeError(f"{cid} arrived incomplete")
                kept.append(cid)
                self.bytes += len(data)
                self.rounds += 1
                if len(kept) == FILES_KEPT:
                    for node in (self.source, self.sink):
                        for old in kept:
                            node.unpin(old)
                        node.gc()
                    kept.clear()
                time.sleep(PAUSE)
        except Exception as e:  # whatever it is, the main thread ends the demo and says it
            self.error = e


class Agent:
    def __init__(self, program, arguments, node, events, screen):
        options = {"--pid": str(node.pid), "--listen": self._listen(), "--events": events,
                   "--interval": "1s"}
        given = {a.split("=")[0] for a in arguments}
        if given & {"--comm", "--cgroup", "--container", "--"}:
            del options["--pid"]
        argv = [program]
        for name, value in options.items():
            if name not in given:
                argv += [name, value]
        self.screen, self.url, self.seen = screen, None, threading.Event()
        self.popen = subprocess.Popen(nodes.with_parent(*argv, *arguments), stdin=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @staticmethod
    def _listen():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", 9559))
                return "127.0.0.1:9559"
            except OSError:
                return "127.0.0.1:0"

    def _read(self):
        for line in self.popen.stderr:
            self.screen.say(line.rstrip())
            found = re.search(r"http://[^\s/]+:\d+", line)
            if found and not self.url:
                self.url = found.group(0)
                self.seen.set()
        self.seen.set()

    def values(self):
        """The last page as {name: sum over its series}; empty if there is none."""
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=5)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return {}
        finally:
            connection.close()
        sums = {}
        for name, value in re.findall(r"^([a-z_:0-9]+)(?:\{.*\})? (\S+)", text, re.MULTILINE):
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums


def option(arguments, name):
    """What `name VALUE` or `name=VALUE` among the arguments says; None if neither is there."""
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"{name}="):
            return argument[len(name) + 1:]
    return None


def status_line(values, load):
    parts = []
    for text, name, scale in (("cpu {:.0f} %", "boxo_resource_cpu_usage_percent", 1),
                              ("memory {:.0f} MiB", "boxo_resource_memory_usage_bytes", 1 << 20),
                              ("threads {:.0f}", "boxo_resource_threads", 1),
                              ("network {:.1f} MB/s", "boxo_network_bandwidth_bytes_per_second", 1e6),
                              ("disk {:.0f} MB written", "boxo_resource_disk_write_bytes_total", 1e6),
                              ("agent {:.0f} MiB", "boxo_agent_memory_bytes", 1 << 20)):
        if name in values:
            parts.append(text.format(values[name] / scale))
    return f"node 2: {', '.join(parts)} | {load.rounds} files, {load.bytes >> 20} MiB moved"


def watch(screen, pair, agent, load):
    """Until something ends. What the demo's exit status is then."""
    while True:
        for number, node in enumerate(pair, 1):
            if node.popen.poll() is not None:
                screen.say(f"demo: node {number} ended with {node.popen.returncode}; its last words:\n{node.log()[-500:]}")
                return 1
        if agent.popen.poll() is not None:
            agent.reader.join(2)
            screen.say(f"demo: the agent ended with {agent.popen.returncode}")
            return agent.popen.returncode
        if load.error:
            screen.say(f"demo: the exchange of blocks failed: {load.error}")
            return 1
        if screen.tty and agent.url:
            screen.status(status_line(agent.values(), load))
        time.sleep(1)


def interrupted(number, _frame):
    # One is enough: from here on the demo is ending.
    for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(n, signal.SIG_IGN)
    raise KeyboardInterrupt


def end(screen, processes, workspace):
    for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(n, signal.SIG_IGN)
    screen.end_status()
    for p in processes:
        if p.poll() is None:
            p.terminate()
    deadline = time.monotonic() + 4
    for p in processes:
        try:
            p.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
    workspace.remove()


def main():
    program, *kubos = sys.argv[1:4]
    arguments = sys.argv[4:]
    screen, processes = Screen(), []
    for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(n, interrupted)
    workspace = Workspace()
    try:
        screen.say("demo: starting two kubo nodes")
        events = option(arguments, "--events") or str(workspace.path / "events.sock")
        pair = [nodes.Node(kubo, workspace.path / f"node{n}", env={"BOXO_EVENTS_SOCKET": events})
                for n, kubo in enumerate(kubos, 1)]
        for node in pair:
            node.launch()
            processes.append(node.popen)
        for node in pair:
            node.wait_ready()
        pair[1].connect(pair[0])
        agent = Agent(program, arguments, pair[1], events, screen)
        processes.append(agent.popen)
        load = Load(*pair)
        load.start()
        agent.seen.wait(20)
        if agent.url:
            for name, url in (("agent", f"{agent.url}/metrics"),
                              ("node 1", f"{pair[0].api}/debug/metrics/prometheus"),
                              ("node 2", f"{pair[1].api}/debug/metrics/prometheus   (watched, pid {pair[1].pid})")):
                screen.say(f"demo: {name}  {url}")
            screen.say("demo: Ctrl-C ends it")
        return watch(screen, pair, agent, load)
    except KeyboardInterrupt:
        return 0
    except nodes.NodeError as e:
        screen.say(f"demo: {e}")
        return 1
    finally:
        end(screen, processes, workspace)


if __name__ == "__main__":
    sys.exit(main())
