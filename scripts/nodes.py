# SPDX-License-Identifier: MIT OR Apache-2.0
"""Real kubo daemons on the loopback interface, for the demo and the live tests.

A node has a repository of its own in the directory given, listens on free loopback ports only, knows no bootstrap
peer, no DHT and no discovery, and dies with the process that started it.
"""
import http.client
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.parse


class NodeError(Exception):
    pass


def with_parent(*argv):
    """The command whose process ends when its parent does, however that ends."""
    return ["setpriv", "--pdeathsig", "TERM", "--", *map(str, argv)]


class Node:
    """One kubo daemon. `transport` is the only one it has: "tcp" or "quic"."""

    def __init__(self, ipfs, repo, transport="tcp", env=None):
        self.ipfs, self.repo, self.transport = str(ipfs), pathlib.Path(repo), transport
        # kubo reads a dozen variables that would change what it does; it gets none of the caller's but these.
        self.env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(self.repo), "IPFS_PATH": str(self.repo),
                    "IPFS_TELEMETRY": "off", **(env or {})}
        self.log_path = self.repo.with_name(self.repo.name + ".log")
        self.popen = None

    @property
    def pid(self):
        return self.popen.pid

    def init(self):
        self.repo.mkdir(parents=True)
        done = subprocess.run([self.ipfs, "init", "--profile=test", "--empty-repo"], env=self.env, capture_output=True, text=True)
        if done.returncode != 0:
            raise NodeError(f"ipfs init: {done.stderr.strip()}")
        path = self.repo / "config"
        config = json.loads(path.read_text())
        address = {"tcp": "/ip4/127.0.0.1/tcp/0", "quic": "/ip4/127.0.0.1/udp/0/quic-v1"}[self.transport]
        others = ["Relay", "WebTransport", "WebRTCDirect", "Websocket", "QUIC" if self.transport == "tcp" else "TCP"]
        config["Bootstrap"] = []
        config["Routing"] = {"Type": "none"}
        config["Provide"] = {"Enabled": False}
        config["Addresses"].update(API="/ip4/127.0.0.1/tcp/0", Gateway="/ip4/127.0.0.1/tcp/0", Swarm=[address])
        config["Swarm"]["Transports"] = {"Network": dict.fromkeys(others, False)}
        path.write_text(json.dumps(config, indent=2))

    def launch(self, prefix=()):
        """Starts the daemon; `wait_ready` tells when it answers."""
        if not self.repo.exists():
            self.init()
        (self.repo / "api").unlink(missing_ok=True)
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(with_parent(*prefix, *with_parent(self.ipfs, "daemon", "--migrate=false")),
                                          env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          start_new_session=True)

    def wait_ready(self, timeout=180):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.popen.poll() is not None:
                raise NodeError(f"kubo ended with {self.popen.returncode}: {self.log()[-500:]}")
            try:
                self.id = self.rpc("id")["ID"]
                self.address = f"{self.rpc('swarm/addrs/local')['Strings'][0]}/p2p/{self.id}"
                return self
            except (OSError, http.client.HTTPException, NodeError, IndexError, TypeError):
                time.sleep(0.05)
        raise NodeError(f"kubo does not answer within {timeout} s: {self.log()[-500:]}")

    def start(self, prefix=()):
        self.launch(prefix)
        return self.wait_ready()

    def signal(self, number):
        if self.popen and self.popen.poll() is None:
            self.popen.send_signal(number)

    def stop(self, timeout=10):
        """Ends the daemon; by force if it does not end by itself. True if it did."""
        if not self.popen:
            return True
        self.signal(signal.SIGTERM)
        try:
            self.popen.wait(timeout)
            return True
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            return False

    def log(self):
        return self.log_path.read_text(errors="replace")

    def _url(self, name):
        """http://ADDR:PORT of what the daemon wrote its address of into the file `name`."""
        text = (self.repo / name).read_text().strip()
        if text.startswith("http"):
            return text
        _, _, host, _, port = text.split("/")[:5]
        return f"http://{host}:{port}"

    @property
    def api(self):
        return self._url("api")

    @property
    def gateway(self):
        return self._url("gateway")

    def request(self, method, path, body=None, headers=None, timeout=120):
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.api).netloc, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise NodeError(f"{path}: {response.status} {data[:300].decode(errors='replace')}")
        return data

    def rpc(self, name, *args, body=None, headers=None, **options):
        """A call of kubo's RPC interface; the last JSON value of the answer, None if it is empty."""
        query = urllib.parse.urlencode([("arg", a) for a in args] + [(k.replace("_", "-"), v) for k, v in options.items()])
        lines = self.request("POST", f"/api/v0/{name}?{query}", body, headers).decode().split("\n")
        lines = [line for line in lines if line.strip()]
        return json.loads(lines[-1]) if lines else None

    def connect(self, other):
        self.rpc("swarm/connect", other.address)

    def add(self, data):
        """Stores and pins the bytes as one file and returns its CID."""
        mark = "boxo-agent-part"
        body = b"".join([f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'.encode(), data,
                         f"\r\n--{mark}--\r\n".encode()])
        return self.rpc("add", body=body, headers={"Content-Type": f"multipart/form-data; boundary={mark}"}, quieter="true")["Hash"]

    def fetch(self, cid):
        """Gets every block of the file that is not here yet, and pins it."""
        self.rpc("pin/add", cid, timeout="90s")

    def cat(self, cid):
        return self.request("POST", f"/api/v0/cat?arg={cid}")

    def unpin(self, cid):
        self.rpc("pin/rm", cid)

    def gc(self):
        self.rpc("repo/gc", quiet="true")

    def bitswap_stat(self):
        return self.rpc("bitswap/stat")

    def bandwidth(self):
        """libp2p's own count of bytes in and out, waited for until it stands: it is brought up to date once a second."""
        last = None
        while True:
            now = self.rpc("stats/bw")
            now = now["TotalIn"], now["TotalOut"]
            if now == last:
                return now
            last = now
            time.sleep(1.2)

    def metrics(self):
        return self.request("GET", "/debug/metrics/prometheus").decode()
