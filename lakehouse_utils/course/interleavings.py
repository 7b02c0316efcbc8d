"""Runs two writers of a Delta table in every order of their S3 requests, by holding each request in a proxy.

    outcomes = interleavings.explore(lake, append, "race", "ledger")

`append(writer)` gets a SmallWriter, whose methods send one request each, and returns when it has committed. Both
writers run in their own threads, on a fresh copy of the table. The proxy passes one request on at a time: the order
is a choice at each step, and `explore` goes through all choices. After a lost reply, the server has done what it was
asked, but the writer's connection ends without an answer.

`hold_commits` is for a writer in another process: it stops the writer between its data files and its commit.
"""

import json
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.config import Config
from deltalake import DeltaTable

from lakehouse_utils.course import request_log
from lakehouse_utils.course._recording_proxy import Answer, ForwardingHandler, ForwardingServer
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

WRITERS = ("A", "B")
_PATIENCE_S = 30.0


class SmallWriter:
    """Appends one row, with the writer's name, to the table in a folder; each method sends one request with boto3."""

    def __init__(self, s3: "S3Client", lake: Lake, folder: str, name: str) -> None:
        self.name = name
        self._s3, self._lake, self._folder = s3, lake, folder

    def next_version(self) -> int:
        """List the log, and return the version after the newest one."""
        log = self._s3.list_objects_v2(Bucket=self._lake.bucket, Prefix=f"{self._folder}/_delta_log/")
        return len(log.get("Contents", []))

    def upload_row(self) -> bytes:
        """Upload a new Parquet file with one row. Returns the content of a commit that adds it to the table."""
        path, parquet = f"{self.name}-{uuid.uuid4()}.parquet", pa.BufferOutputStream()
        pq.write_table(pa.table({"writer": [self.name]}), parquet)
        body = parquet.getvalue().to_pybytes()
        self._s3.put_object(Bucket=self._lake.bucket, Key=f"{self._folder}/{path}", Body=body)
        add = {"path": path, "partitionValues": {}, "size": len(body), "modificationTime": 0, "dataChange": True}
        return json.dumps({"add": add}).encode()

    def put_commit(self, version: int, commit: bytes) -> None:
        """Create the commit of a version, if it is absent.

        Raises botocore's ClientError with the code PreconditionFailed if it exists, and HTTPClientError if no reply
        arrives.
        """
        self._s3.put_object(Bucket=self._lake.bucket, Key=self._key(version), Body=commit, IfNoneMatch="*")

    def read_commit(self, version: int) -> bytes | None:
        """Return the stored commit of a version; None if it is not stored."""
        try:
            return self._s3.get_object(Bucket=self._lake.bucket, Key=self._key(version))["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None

    def _key(self, version: int) -> str:
        return f"{self._folder}/_delta_log/{version:020}.json"


Append = Callable[[SmallWriter], object]


@dataclass(frozen=True)
class Choice:
    """One step: whose request the proxy passes on, and whether its reply is lost."""

    writer: str
    lost: bool = False


@dataclass
class Run:
    """What happened in one order: one row per request in `requests`, the writers' errors, the table's address."""

    uri: str
    rows: str = ""  # the writers' names in the table, sorted: "AB" is one row of each
    choices: list[Choice] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    errors: dict[str, BaseException] = field(default_factory=dict)

    @property
    def order(self) -> str:
        """The order in short, such as "A:LIST B:LIST A:PUT ..."; ! marks a lost reply."""
        return " ".join(f"{row['writer']}:{row['request']}{'!' * row['lost']}" for row in self.requests)

    def table(self) -> pd.DataFrame:
        """One row per request, in order: writer, request, object, condition, answer (what the server said)."""
        columns = ["writer", "request", "object", "condition", "answer"]
        rows = [row | {"answer": f"{row['answer']}{', lost' * row['lost']}"} for row in self.requests]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.set_axis(pd.RangeIndex(1, len(frame) + 1, name="step"))


def explore(
    lake: Lake,
    append: Append,
    *names: str,
    writers: Sequence[str] = WRITERS,
    put_if_absent: bool = True,
    lost_replies: int = 0,
) -> list[Run]:
    """Run `append` once for each of `writers`, in every order of their requests; returns one Run per order.

    Each order works on its own copy of the table `lake.uri(*names)`. Without `put_if_absent`, the condition
    If-None-Match is removed from the writers' requests, as if the store did not know it. With `lost_replies`, up to
    that number of replies to PUTs into the log are lost in a run, in every possible place.
    Raises LakehouseError if the lake is reached by TLS: the proxy cannot read it.
    """
    _require_http(lake)
    prefix = lake.key(*names, "")
    bodies = {
        entry["Key"].removeprefix(prefix): lake.s3.get_object(Bucket=lake.bucket, Key=entry["Key"])["Body"].read()
        for entry in lake.objects(prefix)
    }
    runs: list[Run] = []
    pending: list[list[Choice]] = [[]]
    copies = f"{prefix.rstrip('/')}-{secrets.token_hex(4)}"
    with _proxies(lake, writers, put_if_absent=put_if_absent) as proxies:
        while pending:
            planned = pending.pop()
            folder = f"{copies}/{len(runs):04}"
            for name, body in bodies.items():
                lake.s3.put_object(Bucket=lake.bucket, Key=f"{folder}/{name}", Body=body)
            run = Run(f"s3://{lake.bucket}/{folder}")
            gate = _Gate(run, proxies)
            threads = []
            for name, proxy in proxies.items():
                proxy.gate = gate
                writer = SmallWriter(proxy.s3, lake, folder, name)
                threads.append(threading.Thread(target=_write, args=(gate, append, writer), daemon=True))
                threads[-1].start()
            alternatives = _follow(gate, planned, lost_replies)
            for thread in threads:
                thread.join()
            table = DeltaTable(run.uri, storage_options=lake.storage_options)
            run.rows = "".join(sorted(table.to_pyarrow_table(columns=["writer"])["writer"].to_pylist()))
            runs.append(run)
            pending += [[*run.choices[:step], choice] for step, choice in reversed(alternatives)]
    return runs


def _follow(gate: "_Gate", planned: Sequence[Choice], lost_replies: int) -> list[tuple[int, Choice]]:
    """Follow `planned`, then always the first choice. Returns the choices that were not taken after `planned`."""
    run, alternatives = gate.run, list[tuple[int, Choice]]()
    while held := gate.wait_for_all():
        may_lose = sum(choice.lost for choice in run.choices) < lost_replies
        choices = [Choice(name) for name in held]
        choices += [Choice(name, lost=True) for name, is_commit in held.items() if may_lose and is_commit]
        step = len(run.choices)
        choice = planned[step] if step < len(planned) else choices[0]
        if step >= len(planned):
            alternatives += [(step, other) for other in choices if other != choice]
        run.choices.append(choice)
        gate.pass_on(choice)
    return alternatives


def _write(gate: "_Gate", append: Append, writer: SmallWriter) -> None:
    try:
        append(writer)
    except Exception as error:  # noqa: BLE001 - the outcome of a writer
        gate.run.errors[writer.name] = error
    finally:
        gate.finish(writer.name)


class _Gate:
    """Where requests wait until it is their turn."""

    def __init__(self, run: Run, writers: Iterable[str]) -> None:
        self.run = run
        self._changed = threading.Condition()
        self._state: dict[str, str] = dict.fromkeys(writers, "running")
        self._is_commit: dict[str, bool] = {}
        self._turn: Choice | None = None

    def wait_for_all(self) -> dict[str, bool]:
        """Wait until no writer is running. Returns whether the held request of each writer is a PUT into the log."""
        with self._changed:
            self._wait(lambda: self._turn is None and "running" not in self._state.values())
            return {name: self._is_commit[name] for name, state in self._state.items() if state == "held"}

    def pass_on(self, choice: Choice) -> None:
        """Let the held request of a writer go on."""
        with self._changed:
            self._turn = choice
            self._state[choice.writer] = "running"
            self._changed.notify_all()

    def hold(self, name: str, *, is_commit: bool) -> Choice:
        """Called for each request of a writer: returns when it is its turn."""
        with self._changed:
            self._state[name], self._is_commit[name] = "held", is_commit
            self._changed.notify_all()
            self._wait(lambda: self._turn is not None and self._turn.writer == name)
            choice, self._turn = self._turn, None
            if choice is None:
                raise AssertionError("the wait above ended without a turn")
            return choice

    def finish(self, name: str) -> None:
        """Called when a writer has returned."""
        with self._changed:
            self._state[name] = "finished"
            self._changed.notify_all()

    def _wait(self, is_true: Callable[[], bool]) -> None:
        if not self._changed.wait_for(is_true, _PATIENCE_S):
            raise LakehouseError(f"A writer sent no request for {_PATIENCE_S:.0f} s. Does it wait for the other one?")


class _Proxy(ForwardingServer):
    """The proxy of one writer: each request waits at the gate, and goes to the server unchanged."""

    gate: "_Gate | _GateForCommits"
    s3: "S3Client"

    def __init__(self, name: str, upstream: str) -> None:
        super().__init__(upstream, _Handler)
        self.name = name


class _Handler(ForwardingHandler):
    upstream_timeout_s = _PATIENCE_S
    server: _Proxy

    def exchange(self, body: bytes) -> Answer | None:
        proxy = self.server
        is_commit = self.command == "PUT" and "/_delta_log/" in self.path
        choice = proxy.gate.hold(proxy.name, is_commit=is_commit)
        answer = super().exchange(body)
        if answer:
            described = request_log.describe(self.record(answer[0]))
            row = dict(zip(("request", "object", "condition", "answer"), described, strict=True))
            proxy.gate.run.requests.append({"writer": proxy.name, **row, "lost": choice.lost})
        return None if choice.lost else answer


class HeldCommits:
    """An address for a writer whose commits are held: everything else that it sends goes to the server."""

    def __init__(self, endpoint: str, after: int = 0) -> None:
        self.endpoint = endpoint
        self._passing, self._lock = after, threading.Lock()
        self._arrived, self._ended = threading.Event(), threading.Event()
        self._is_released = False

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send the requests of a process to the proxy."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ENDPOINT_URL_S3": self.endpoint}

    def wait(self) -> None:
        """Return when a commit has arrived at the proxy. Raises LakehouseError if none comes."""
        if not self._arrived.wait(_PATIENCE_S):
            raise LakehouseError(f"No commit arrived within {_PATIENCE_S:.0f} s. Did the writer fail?")

    def release(self) -> None:
        """Pass the held commits on, and all later ones."""
        self._is_released = True
        self._ended.set()

    def _drop(self) -> None:
        self._ended.set()

    def _hold(self) -> None:
        with self._lock:
            self._passing -= 1
            if self._passing >= 0:
                return
        self._arrived.set()
        self._ended.wait()
        if not self._is_released:
            raise ConnectionError("the commit is dropped")


@contextmanager
def hold_commits(lake: Lake, after: int = 0) -> Iterator[HeldCommits]:
    """A proxy that holds each PUT into a Delta log; use its `endpoint` in place of lake.endpoint.

    The first `after` of them are passed on. At the end, commits that were not released are dropped.
    Raises LakehouseError if the lake is reached by TLS.
    """
    _require_http(lake)
    with _Proxy("A", urlsplit(lake.endpoint).netloc) as proxy:
        held = HeldCommits(f"http://127.0.0.1:{proxy.server_port}", after)
        proxy.gate = _GateForCommits(held)
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield held
        finally:
            held._drop()  # noqa: SLF001 - the class and this function are one
            proxy.shutdown()


class _GateForCommits:
    """Lets everything pass at once, except PUTs into a log."""

    def __init__(self, held: HeldCommits) -> None:
        self.run = Run("")
        self._held = held

    def hold(self, name: str, *, is_commit: bool) -> Choice:
        """Return when the request may go on. Raises ConnectionError to drop it."""
        if is_commit:
            self._held._hold()  # noqa: SLF001 - the two classes are one
        return Choice(name)


def _require_http(lake: Lake) -> None:
    if not lake.endpoint.startswith("http://"):
        raise LakehouseError("Requests over TLS cannot be held. Use the embedded server: LAKE = ''.")


@contextmanager
def _proxies(lake: Lake, writers: Sequence[str], *, put_if_absent: bool) -> Iterator[dict[str, _Proxy]]:
    """A proxy and a boto3 client per writer. The clients send each request once: retries are the writer's work."""
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(_Proxy(name, urlsplit(lake.endpoint).netloc)) for name in writers}
        for proxy in proxies.values():
            endpoint = f"http://127.0.0.1:{proxy.server_port}"
            proxy.s3 = lake.session.client("s3", endpoint_url=endpoint, region_name=lake.region, config=config)
            if not put_if_absent:
                proxy.s3.meta.events.register("before-sign.s3.PutObject", _without_condition)
            threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(proxy.shutdown)
        yield proxies


def _without_condition(request: Any, **_: object) -> None:  # noqa: ANN401 - botocore's AWSRequest has no stub here
    del request.headers["If-None-Match"]
