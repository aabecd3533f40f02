"""A real S3 server on loopback, and a proxy before it that delays, cuts, corrupts, refuses and disappears."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest  # benchmarks use this module, too, and need none

ACCESS_KEY, SECRET_KEY = "lienzo-test-access", "lienzo-test-secret"
RCLONE = Path(sys.executable).with_name("rclone")
BLOCK = 1 << 16
QUEUE_S = 0.005  # that the link goes on by itself


@dataclass
class Fault:
    """What the proxy does to requests, from now on."""

    status: int = 0  # it answers this in place of the server
    delay_s: float = 0.0  # before it answers
    cut_after: int = -1  # bytes of the body, then the connection is closed; -1: never
    corrupt_at: int = -1  # the byte of the object that is changed; -1: none
    bytes_per_s: float = 0.0  # of all connections together; 0: as fast as it can
    times: int = -1  # so many requests, then no more; -1: all
    only: str = ""  # only requests whose path contains this
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")


@dataclass
class Bucket:
    """An S3 server with one bucket, reached through the proxy."""

    folder: Path  # what the server serves; a folder in it is a bucket
    port: int
    proxy: Proxy
    url: str = "s3://pictures"

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a test in this process reach it, and nothing else; it has no faults and has seen no requests."""
        self.proxy.fault = Fault()
        self.proxy.requests.clear()
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    @property
    def root(self) -> Path:
        """The folder of the bucket."""
        return self.folder / "pictures"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.port}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }


class Proxy:
    """Forwards requests to the server, with faults."""

    def __init__(self, target: int) -> None:
        self.target, self.fault = target, Fault()
        self.requests: list[tuple[str, str, int]] = []  # method, path, bytes of the answer
        self.lock, self.link_free_at = threading.Lock(), 0.0
        self.port = free_port()
        self.server: Any = None
        self.appear()

    def appear(self) -> None:
        """Listen."""
        self.server = QuietServer(("127.0.0.1", self.port), make_handler(self))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def disappear(self) -> None:
        """Close all connections, and refuse new ones."""
        self.server.shutdown()
        self.server.server_close()
        self.server.close_connections()

    def applies(self, method: str, path: str) -> Fault:
        """Return what to do to a request."""
        with self.lock:
            fault = self.fault
            if not fault.times or fault.only not in path or method not in fault.methods:
                return Fault(bytes_per_s=fault.bytes_per_s)
            # A corruption counts where it happens: not every answer has that byte.
            fault.times -= fault.times > 0 and fault.corrupt_at < 0
            return fault

    def pace(self, size: int, bytes_per_s: float) -> None:
        """Wait until the link has carried so many bytes."""
        with self.lock:
            # What waits for the link goes on while this process does not run, as in the queue of a network card.
            self.link_free_at = max(self.link_free_at, time.monotonic() - QUEUE_S) + size / bytes_per_s
            until = self.link_free_at
        time.sleep(max(0.0, until - time.monotonic()))

    def bytes_read(self) -> int:
        """Return the bytes of all answers so far."""
        return sum(size for *_, size in self.requests)


class QuietServer(ThreadingHTTPServer):
    """A server that closes its connections on request, and prints no tracebacks of clients that went away."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing."""


def make_handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    """Return the handler of requests of a proxy."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two packets, and the second would wait 40 ms

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

        def forward(self) -> None:
            """Answer a request as the server does, or not."""
            fault = proxy.applies(self.command, self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            time.sleep(fault.delay_s)
            if fault.status:
                proxy.requests.append((self.command, self.path, 0))
                self.send_response(fault.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            server = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=60)
            with closing(server):
                self.pass_on(server, body, fault)

        def pass_on(self, server: http.client.HTTPConnection, body: bytes, fault: Fault) -> None:
            """Ask the server, and send its answer on."""
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                server.putheader(name, value)
            server.endheaders(body or None)
            with closing(server.getresponse()) as answer:
                self.relay(answer, fault)

        def relay(self, answer: http.client.HTTPResponse, fault: Fault) -> None:
            """Send an answer of the server on."""
            # rclone says 200 where S3 says 206.
            self.send_response(206 if answer.status == 200 and answer.getheader("Content-Range") else answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            whole = answer.length is None and self.command != "HEAD"
            content = answer.read() if whole else b""
            if whole:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            ranged = answer.getheader("Content-Range", "bytes 0-").partition(" ")[2].partition("-")[0]
            sent = 0
            blocks = iter([content] if whole else iter(lambda: answer.read(BLOCK), b""))
            following = next(blocks, b"")
            while block := following:
                following = next(blocks, b"")
                at = fault.corrupt_at - int(ranged) - sent
                if fault.corrupt_at >= 0 and fault.times and 0 <= at < len(block):
                    fault.times -= 1
                    block = block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]
                if 0 <= fault.cut_after <= sent + len(block):
                    self.wfile.write(block[: fault.cut_after - sent])
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                if fault.bytes_per_s:
                    proxy.pace(len(block), fault.bytes_per_s)
                sent += len(block)
                if not following:  # before its client goes on, which may forget all requests so far
                    proxy.requests.append((self.command, self.path, sent))
                self.wfile.write(block)
            if not sent:
                proxy.requests.append((self.command, self.path, 0))

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    return Handler


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve_bucket(folder: Path, etags: str = "MD5", keys: bool = True) -> Iterator[Bucket]:
    """Serve a folder whose subfolder `pictures` is a bucket.

    Args:
        folder: its parent is for the server's log.
        etags: what they are made of; empty: there are none, as huge files are slow to hash.
        keys: whether requests have to be signed.
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    port = free_port()
    command: list[str | Path] = [RCLONE, "serve", "s3", folder, "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"] if keys else []
    # It looks into its folder again after 20 ms: tests change files there.
    command += ["--vfs-cache-mode", "off", "--vfs-read-wait", "0s", "--dir-cache-time", "20ms", "--etag-hash", etags]
    log = (folder.parent / f"{folder.name}-rclone.log").open("wb")
    with log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_for_port(port, lambda: server.poll() is None)
            proxy = Proxy(port)
            yield Bucket(folder, port, proxy)
            proxy.disappear()
        finally:
            server.kill()


def wait_for_port(port: int, alive: Callable[[], bool]) -> None:
    """Wait until somebody listens."""
    for _ in range(500):
        assert alive(), "the server has ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nobody listens on {port}")
