"""A bucket server on this machine, and between it and its clients a proxy that fails on request.

The server is gcp-storage-emulator, the clients reach it through $STORAGE_EMULATOR_HOST.
"""

import contextlib
import http.client
import http.server
import json
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

# (number of the request, from 0; method; path with query) -> fault, "" for none. Faults: an HTTP
# status ("503"); "reset" before the request is passed on; "lost": it is carried out, but the
# connection ends without an answer; "cut": half of the body comes; "short": half of the body comes,
# and is said to be all; "slow": after 0.05 s; "stall": half of the body, then nothing for a second.
Faults = Callable[[int, str, str], str]


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on. `requests` has "METHOD path" of each, in the order they came in, `tokens`
    what each was authorised by.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: tuple[str, int]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.faults: Faults = lambda number, method, path: ""
        self.requests: list[str] = []
        self.tokens: list[str] = []
        self.failed = 0
        self._lock = threading.Lock()

    def next_fault(self, method: str, path: str, token: str = "") -> str:
        with self._lock:
            number = len(self.requests)
            self.requests.append(f"{method} {path}")
            self.tokens.append(token)
            fault = self.faults(number, method, path)
            self.failed += bool(fault)
            return fault

    def reset(self) -> None:
        """Forgets what has come; no faults from here on."""
        with self._lock:
            self.requests, self.tokens, self.failed = [], [], 0
            self.faults = lambda number, method, path: ""

    def first(self, *faults: str) -> None:
        """The next requests get these faults, those after them none."""
        self.reset()
        self.faults = lambda number, method, path: faults[number] if number < len(faults) else ""

    def always(self, fault: str) -> None:
        self.reset()
        self.faults = lambda number, method, path: fault

    def share(self, share: float, kinds: tuple[str, ...], seed: int = 0) -> None:
        """This share of the requests fails, with faults drawn from `kinds`."""
        self.reset()
        draw = random.Random(seed)
        self.faults = lambda *_: draw.choice(kinds) if draw.random() < share else ""

    def handle_error(self, request, client_address):
        """A client that has gone is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.next_fault(
            self.command, self.path, self.headers.get("Authorization", "")
        )
        if fault == "slow":
            time.sleep(0.05)
        if fault == "reset":
            self.hang_up()
        elif fault.isdigit():
            words = json.dumps({"error": {"code": int(fault), "message": "injected"}}).encode()
            self.reply(int(fault), [("Content-Type", "application/json")], words)
        else:
            self.passed_on(body, fault)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = answer

    def passed_on(self, body, fault):
        upstream = http.client.HTTPConnection(*self.server.upstream)
        # a server may answer before it has read a long body, and close: what it said counts
        with contextlib.suppress(BrokenPipeError):
            upstream.request(self.command, self.path, body or None, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        hop = ("connection", "content-length", "transfer-encoding", "date", "server")
        headers = [(key, value) for key, value in answer.getheaders() if key.lower() not in hop]
        if fault == "lost":
            self.hang_up()
        else:
            content = content[: len(content) // 2] if fault == "short" else content
            self.reply(answer.status, headers, content, fault if fault in ("cut", "stall") else "")

    def reply(self, status, headers, content, fault=""):
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not fault:
            self.wfile.write(content)
            return
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if fault == "stall":
            time.sleep(1)
        self.hang_up()

    def hang_up(self):
        """Ends the connection with a reset."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def bucket_server(*buckets: str) -> Iterator[Proxy]:
    """A server in this process, with empty buckets in memory, behind a proxy."""
    from gcp_storage_emulator.handlers.buckets import create_bucket
    from gcp_storage_emulator.server import create_server

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=buckets[0])
    for bucket in buckets[1:]:
        create_bucket(bucket, server._storage)
    server.start()
    # it listens with room for five connections; the sixth of a batch would wait a second
    server._api._httpd.socket.listen(128)
    proxy = Proxy(server._api._httpd.server_address)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.stop()


@contextlib.contextmanager
def reached(proxy: Proxy, retry_seconds: float = 20) -> Iterator[None]:
    """gs:// is this server, errors that pass are waited for so long, a stalled answer for 0.4 s."""
    with pytest.MonkeyPatch.context() as patch:
        host, port = proxy.server_address[:2]
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
        patch.setenv("MDMSPEECH_RETRY_SECONDS", str(retry_seconds))
        patch.setenv("MDMSPEECH_STALL_SECONDS", "0.4")
        yield
