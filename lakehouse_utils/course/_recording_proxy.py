"""An HTTP proxy that passes each request on unchanged and writes it to its standard output, one JSON line per request.

    python -I _recording_proxy.py HOST:PORT

`request_log.record` starts it, as a file and not with -m, because importing the package would take seconds. Its first
line is the port that it listens on, on the loopback address only. It ends when its standard input ends, so it does not
outlive the process that started it.

`interleavings` holds requests with the same handler. This file imports the standard library only.
"""

import json
import os
import sys
import threading
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

Answer = tuple[int, dict[str, str], bytes]  # status, headers, body

# About one connection, and the proxy has two of them: to the client and to the server.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class ForwardingServer(ThreadingHTTPServer):
    """Listens on a free port of the loopback address; its handler passes requests on to `upstream`, "host:port"."""

    daemon_threads = True

    def __init__(self, upstream: str, handler: "type[ForwardingHandler]") -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.upstream = upstream

    def handle_error(self, *_: Any) -> None:
        """Report an error in one line, without a traceback."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):  # a client that hangs up is not an error
            sys.stderr.write(f"A request could not be passed on: {error!r}\n")


class ForwardingHandler(BaseHTTPRequestHandler):
    """Passes each request on to the server unchanged, and the answer back. Override `exchange` to do more."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise the body of an answer waits until the client confirms its headers
    upstream_timeout_s: ClassVar[float | None] = None
    server: ForwardingServer

    def exchange(self, body: bytes) -> Answer | None:
        """Return the server's answer to this request, or None to end the connection without an answer.

        The answer has the status 502 if the server does not answer.
        """
        connection = HTTPConnection(self.server.upstream, timeout=self.upstream_timeout_s)
        try:
            # With the client's own Host header, which is part of what it signed.
            connection.request(self.command, self.path, body, _end_to_end(self.headers.items()))
            answer = connection.getresponse()
            return answer.status, _end_to_end(answer.getheaders()), answer.read()
        except (OSError, HTTPException):
            return 502, {}, b""
        finally:
            connection.close()

    def record(self, status: int) -> dict[str, Any]:
        """Return what `request_log.describe` needs to know about this request and its answer."""
        return {
            "method": self.command,
            "path": self.path,
            "range": self.headers.get("Range"),
            "if_none_match": self.headers.get("If-None-Match"),
            "status": status,
        }

    def _pass_on(self) -> None:
        text = self.headers.get("Content-Length", "0")
        if not text.isdecimal() or not self.path.isascii():
            self.send_error(400)  # from a client that does not use HTTP as S3 does
            self.close_connection = True
            return
        length = int(text)
        body = self.rfile.read(length)
        answer = self.exchange(body) if len(body) == length else None  # None: the client hung up
        if answer is None:
            self.close_connection = True
            return
        status, headers, data = answer
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def _end_to_end(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.title(): value for name, value in headers if name.lower() not in _HOP_BY_HOP}


class _RecordingHandler(ForwardingHandler):
    def exchange(self, body: bytes) -> Answer | None:
        answer = super().exchange(body)
        if answer:
            _write_line(json.dumps(self.record(answer[0])))
        return answer


def _write_line(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # in one call, so that lines from several threads do not mix


def main(upstream: str) -> None:
    """Serve until the standard input ends."""
    server = ForwardingServer(upstream, _RecordingHandler)
    _write_line(str(server.server_port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
