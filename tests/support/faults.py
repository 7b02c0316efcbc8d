"""An S3 server that misbehaves: some requests get no answer, a cut-off answer, or an error that passes.

with faults.proxy(server.endpoint, rate=0.05, seed=1) as proxy:
    ...                                     # use proxy.endpoint in place of server.endpoint
proxy.counts                                # {"none": 2400, "reset": 23, ...}
"""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from support.s3_proxy import Dropped, ForwardingHandler, ProxyServer

KINDS = ("reset", "answer lost", "cut off", "SlowDown", "InternalError")
_STATUS = {"SlowDown": 503, "InternalError": 500}


class FaultyProxy:
    """Where to send requests, and what happened to them."""

    def __init__(self, rate: float, seed: int) -> None:
        self.endpoint = ""
        self.rate = rate
        self.kinds = KINDS
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def draw(self) -> str:
        """What happens to the next request: one of KINDS, or none."""
        with self._lock:
            kind = self._random.choice(self.kinds) if self._random.random() < self.rate else "none"
            self.counts[kind] += 1
            return kind


class _Lost:
    """In place of the client's connection: drops what is written."""

    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        pass


class _CutOff:
    """In place of the client's connection: passes on the headers and half of the first block of the body."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._in_headers = True

    def write(self, data: bytes) -> int:
        if self._in_headers:
            self._in_headers = not data.endswith(b"\r\n\r\n")
            return self._connection.write(data)
        self._connection.write(data[: len(data) // 2])
        self._connection.flush()
        raise Dropped

    def flush(self) -> None:
        self._connection.flush()


@contextmanager
def proxy(endpoint: str, rate: float, seed: int, path: str = "") -> Iterator[FaultyProxy]:
    """A proxy to the server at `endpoint` that makes a fault of every `1 / rate`-th request, at random.

    Only requests whose URL contains `path` are counted, and can be faults.
    """
    faulty = FaultyProxy(rate, seed)

    class Handler(ForwardingHandler):
        upstream = urlsplit(endpoint).netloc

        def answer_request(self) -> None:
            kind = faulty.draw() if path in self.path else "none"
            if kind == "none":
                self.forward()
            elif kind == "reset":
                raise Dropped
            elif kind in _STATUS:
                self._refuse(kind)
            else:
                connection = self.wfile
                self.wfile = _Lost() if kind == "answer lost" else _CutOff(connection)
                try:
                    self.forward()
                finally:
                    self.wfile = connection
                    self.close_connection = True

        def _refuse(self, code: str) -> None:
            for _ in self.body_blocks():
                pass
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Try again.</Message></Error>".encode()
            self.start_response(_STATUS[code], {"Content-Type": "application/xml", "Content-Length": str(len(body))})
            if self.command != "HEAD":
                self.wfile.write(body)

    with ProxyServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        faulty.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield faulty
        finally:
            server.shutdown()
