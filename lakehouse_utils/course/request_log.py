"""Record the requests that a program really sends to S3.

with request_log.record(lake) as log:
    ...  # use log.endpoint in place of lake.endpoint
log.requests
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd

from lakehouse_utils.lake import Lake

_PROXY = Path(__file__).with_name("_recording_proxy.py")


class RequestLog:
    """Where to send requests in place of the lake's endpoint, and what arrived there.

    Over TLS nothing can be recorded: then `is_recording` is False, and `endpoint` is the server's own.
    """

    def __init__(self, endpoint: str, *, is_recording: bool) -> None:
        self.endpoint = endpoint
        self.is_recording = is_recording
        self._records: list[dict[str, Any]] = []

    @property
    def requests(self) -> pd.DataFrame:
        """The requests in the order of their answers, one row per request; complete after the `with` block.

        Columns: request (the HTTP method, or LIST), object (the last part of the key, or the listed folder), condition
        (a byte range, `if absent`, or where a listing starts), answer (the HTTP status; 502 if S3 did not answer).
        """
        rows = [describe(record) for record in self._records]
        return pd.DataFrame(rows, columns=["request", "object", "condition", "answer"])


@contextmanager
def record(lake: Lake) -> Iterator[RequestLog]:
    """Record the requests that are sent to `log.endpoint`, and pass them on to the lake's server unchanged.

    Over TLS the log stays empty, because the proxy does not have the server's certificate.
    """
    if not lake.endpoint.startswith("http://"):
        yield RequestLog(lake.endpoint, is_recording=False)
        return
    # In a separate process, because delta-rs may hold this interpreter's lock while it waits for an answer.
    command = [sys.executable, "-I", str(_PROXY), urlsplit(lake.endpoint).netloc]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy,
        ThreadPoolExecutor(1) as reader,
    ):
        if proxy.stdin is None or proxy.stdout is None:
            raise AssertionError("Popen did not open the pipes")
        log = RequestLog(f"http://127.0.0.1:{int(proxy.stdout.readline())}", is_recording=True)
        records = log._records  # noqa: SLF001 - the class and this function are one
        reading = reader.submit(records.extend, map(json.loads, proxy.stdout))
        try:
            yield log
        finally:
            proxy.stdin.close()  # which ends it
            reading.result()


def describe(record: dict[str, Any]) -> tuple[str, str, str, int]:
    """Return (request, object, condition, answer) of a record of the proxy: see `RequestLog.requests`."""
    query = parse_qs(urlsplit(record["path"]).query)
    if "list-type" in query:
        after = query.get("start-after", [""])[0].rpartition("/")[2]
        folder = query.get("prefix", [""])[0].removesuffix("/").rpartition("/")[2]
        return "LIST", f"{folder}/", after and f"after {after}", record["status"]
    name = re.sub("^part-.*", "part-….parquet", urlsplit(record["path"]).path.rpartition("/")[2])
    condition = record["range"] or ("if absent" if record["if_none_match"] == "*" else "")
    return record["method"], name, condition, record["status"]
