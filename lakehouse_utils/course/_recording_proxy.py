"""An HTTP proxy that passes each request on unchanged and writes it to its standard output, one JSON line per request.

    python -I _recording_proxy.py HOST:PORT

`request_log.record` starts it, as a file and not with -m, because importing the package would take seconds. Its first
line is the port that it listens on, on the loopback address only. It ends when its standard input ends, so it does not
outlive the process that started it.
"""

import json
import os
import sys
import threading
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise the body of an answer waits until the client confirms its headers
    upstream: ClassVar[str]

    def _pass_on(self) -> None:
        text = self.headers.get("Content-Length", "0")
        if not text.isdecimal() or not self.path.isascii():
            self.send_error(400)  # from a client that does not use HTTP as S3 does
            self.close_connection = True
            return
        length = int(text)
        body = self.rfile.read(length)
        if len(body) < length:  # the client hung up
            self.close_connection = True
            return
        try:
            status, headers, data = self._ask_upstream(body)
        except (OSError, HTTPException):
            status, headers, data = 502, {}, b""  # the server is gone
        request = {
            "method": self.command,
            "path": self.path,
            "range": self.headers.get("Range"),
            "if_none_match": self.headers.get("If-None-Match"),
            "status": status,
        }
        _write_line(json.dumps(request))
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def _ask_upstream(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self.upstream)
        try:
            # With the client's own Host header, which is part of what it signed.
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            headers = {name.title(): value for name, value in answer.getheaders()}
            headers.pop("Transfer-Encoding", None)
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError):  # a client that hangs up is not an error
            sys.stderr.write(f"A request could not be recorded: {error!r}\n")


def _write_line(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # in one call, so that lines from several threads do not mix


def main(upstream: str) -> None:
    """Serve until the standard input ends."""
    _Handler.upstream = upstream
    server = _Server(("127.0.0.1", 0), _Handler)
    _write_line(str(server.server_port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
