"""The proxy of the tests: it passes HTTP requests on to an S3 server, and a test may see each one before that.

    def before(method: str, path: str) -> None:
        if method == "PUT":
            raise Dropped                       # the client's connection ends, and the server never sees the request

    with proxy_to(server.endpoint, before) as endpoint:
        ...                                     # use `endpoint` in place of server.endpoint

Requests keep their signatures, because the Host header is the client's. `s3_gateway` builds on the same handler.
"""

import http.client
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_BLOCK_BYTES = 1 << 20
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "proxy-connection"}


class Dropped(Exception):
    """Raised by a test's `before`: do not pass the request on, and close the client's connection."""


class ForwardingHandler(BaseHTTPRequestHandler):
    """Passes each request on to `upstream`, block by block. A subclass may decide before, and change headers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise the body of an answer waits until the client confirms its headers
    upstream: str  # host:port

    def answer_request(self) -> None:
        """Answer one request, of any method."""
        self.forward()

    def handle_method(self) -> None:
        self.unread_bytes = int(self.headers.get("Content-Length") or 0)
        try:
            self.answer_request()
        except Dropped:
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_method

    def request_headers(self) -> dict[str, str]:
        """The headers for the server."""
        return {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}

    def response_headers(self, headers: dict[str, str]) -> dict[str, str]:
        """The headers for the client, from those of the server."""
        return headers

    def forward(self) -> int:
        """Pass the request on, and its answer back; returns the status of the answer."""
        headers = self.request_headers()
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            has_host = any(name.lower() == "host" for name in headers)
            connection.putrequest(self.command, self.path, skip_host=has_host, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            for block in self.body_blocks():
                connection.send(block)
            if self.unread_bytes:  # the client hung up, and the server would wait for the rest
                raise Dropped
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            has_no_length = answer.length is None and self.command != "HEAD"
            data = answer.read() if has_no_length else b""
            if has_no_length:
                headers["Content-Length"] = str(len(data))
            self.start_response(answer.status, self.response_headers(headers))
            self.wfile.write(data)
            while block := answer.read(_BLOCK_BYTES):
                self.wfile.write(block)
            return answer.status
        finally:
            connection.close()

    def start_response(self, status: int, headers: dict[str, str]) -> None:
        """Send the status and these headers to the client, and no others."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def body_blocks(self) -> Iterator[bytes]:
        """What is left of the request's body. It must be read: otherwise it would be taken for the next request."""
        while self.unread_bytes and (block := self.rfile.read(min(self.unread_bytes, _BLOCK_BYTES))):
            self.unread_bytes -= len(block)
            yield block

    def log_message(self, *_: object) -> None:
        pass


class ProxyServer(ThreadingHTTPServer):
    """A server that prints no traceback where a client hangs up."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


@contextmanager
def proxy_to(endpoint: str, before: Callable[[str, str], None]) -> Iterator[str]:
    """A proxy to the server at `endpoint`, in threads of this process; yields its own endpoint.

    `before(method, path)` is called before each request is passed on, and may raise Dropped.
    """

    class Handler(ForwardingHandler):
        upstream = urlsplit(endpoint).netloc

        def answer_request(self) -> None:
            before(self.command, self.path)
            self.forward()

    with ProxyServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
