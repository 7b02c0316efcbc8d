"""Hear what a program really asks of S3: every request to the lake's server, passed on and noted.

with record(lake) as log:
    ...  # with log.endpoint in place of lake.endpoint
log.requests
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pandas as pd

from lakehouse_utils.lake import Lake

# A program of its own: delta-rs may hold this one's interpreter while it waits for an answer.
_PASS_ON = """
import json, os, sys
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class PassOn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer's body waits for the client to confirm its head

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = HTTPConnection(sys.argv[1])
        server.request(self.command, self.path, body, dict(self.headers))
        answer = server.getresponse()
        data = answer.read()
        server.close()
        asked = [self.command, self.path, self.headers.get("Range"), self.headers.get("If-None-Match")]
        os.write(1, (json.dumps([*asked, answer.status]) + chr(10)).encode())  # whole lines, from all threads
        self.send_response_only(answer.status)
        headers = {name.title(): value for name, value in answer.getheaders()}
        headers.pop("Transfer-Encoding", None)
        for pair in ({"Content-Length": len(data)} | headers).items():
            self.send_header(*pair)
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def log_message(self, *_):
        pass

listener = ThreadingHTTPServer(("127.0.0.1", 0), PassOn)
os.write(1, f"{listener.server_port}{chr(10)}".encode())
listener.serve_forever()
"""


class RequestLog:
    """Where to send requests instead of to S3, and what was heard there once the `with` is over."""

    def __init__(self, endpoint: str, hears: bool) -> None:
        self.endpoint = endpoint
        self.hears = hears
        self._notes: list[list] = []

    @property
    def requests(self) -> pd.DataFrame:
        """A row a request: what, of which object, on what condition, and the status of the answer."""
        rows = [_in_words(*note) for note in self._notes]
        return pd.DataFrame(rows, columns=["request", "object", "condition", "answer"])


@contextmanager
def record(lake: Lake) -> Iterator[RequestLog]:
    """Pass requests on to the lake's server, as they are, and note them.

    Over TLS `hears` is False and the address the server's own: a signature names the host, which TLS then proves.
    """
    if not lake.endpoint.startswith("http://"):
        yield RequestLog(lake.endpoint, hears=False)
        return
    program = [sys.executable, "-c", _PASS_ON, urlsplit(lake.endpoint).netloc]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process, ThreadPoolExecutor(1) as reader:
        ear = RequestLog(f"http://127.0.0.1:{int(process.stdout.readline())}", hears=True)
        reading = reader.submit(ear._notes.extend, map(json.loads, process.stdout))
        try:
            yield ear
        finally:
            process.terminate()
            reading.result()


def _in_words(method: str, path: str, part: str | None, if_none_match: str | None, status: int) -> tuple:
    query = parse_qs(urlsplit(path).query)
    if "list-type" in query:
        after = query.get("start-after", [""])[0].rpartition("/")[2]
        folder = query.get("prefix", [""])[0].removesuffix("/").rpartition("/")[2]
        return "LIST", f"{folder}/", after and f"after {after}", status
    name = re.sub("^part-.*", "part-….parquet", urlsplit(path).path.rpartition("/")[2])
    return method, name, part or ("if absent" if if_none_match == "*" else ""), status
