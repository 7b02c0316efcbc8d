"""A lease in the lake: if two programs should not do the same work at the same time, it decides which of them does it.

The lease is one object, `_pipeline/<name>.lease`, and each change of it is a conditional write: `If-None-Match: *`
creates it, and `If-Match` renews it, releases it, or takes it over after it has expired. So of all programs that try,
only one gets it. It is never deleted; its content says which program held it last.

Only the clock of the S3 server decides whether it has expired, so programs whose clocks differ do no harm. A lease
saves work, but it is not a guarantee: a program that was paused for longer than its lease goes on working when it wakes
up. So the work must be correct even if two programs do it.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import translate_errors

DURATION_S = 600.0  # how long other programs have to wait if the holder crashes
_RENEWALS_PER_DURATION = 4
_MAX_ATTEMPTS = 10
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_GONE = ("NoSuchKey", "404")


class LeaseHeldError(LakehouseError):
    """Another program holds the lease. `holder` says which one, such as `process 12 on host`, if it is known."""

    def __init__(self, uri: str, holder: str, seconds_left: float) -> None:
        super().__init__(
            f"{holder} holds the lease {uri}. If that program is no longer running, the lease expires in"
            f" {seconds_left:.0f} s: wait until then, or delete the object."
        )
        self.holder = holder


class Lease:
    """A lease that this program holds, as far as it knows: `is_lost` says whether another program has taken it over."""

    def __init__(self, lake: Lake, name: str, duration_s: float) -> None:
        self.lake = lake
        self.uri = lake.uri("_pipeline", f"{name}.lease")
        self._key = lake.key("_pipeline", f"{name}.lease")
        self._duration_s = duration_s
        self._id = str(uuid.uuid4())
        self._started = datetime.now(UTC)
        self._etag = ""
        self._lost = threading.Event()

    @property
    def is_lost(self) -> bool:
        """Whether another program has taken the lease over, because it was not renewed in time."""
        return self._lost.is_set()

    def acquire(self) -> None:
        """Get the lease. Raises LeaseHeldError if another program holds it, and StorageError."""
        with translate_errors(f"get the lease {self.uri}", self.lake):
            for _ in range(_MAX_ATTEMPTS):
                if self._put(IfNoneMatch="*"):
                    return
                state = _State.read(self.lake, self._key)
                if state is None:
                    continue
                if state.id == self._id:  # the answer to an earlier attempt of the client was lost
                    self._etag = state.etag
                    return
                if state.seconds_left > 0:
                    raise LeaseHeldError(self.uri, state.holder, state.seconds_left)
                if self._put(IfMatch=state.etag):
                    return
        raise LeaseHeldError(self.uri, "another program", self._duration_s)

    def renew(self) -> None:
        """Extend the lease by its duration from now. Raises what boto3 raises."""
        if not self._put(IfMatch=self._etag):
            state = _State.read(self.lake, self._key)
            if state is None or state.id != self._id:
                self._lost.set()
            else:  # only the answer was lost
                self._etag = state.etag

    def release(self) -> None:
        """Let the next program get the lease at once. If that fails, the lease expires by itself."""
        if not self.is_lost:
            with contextlib.suppress(ClientError, BotoCoreError, LakehouseError):
                self._put(released=True, IfMatch=self._etag)

    def keep(self, stop: threading.Event) -> None:
        """Renew the lease until `stop` is set or it is lost. A renewal that fails is tried again at the next one."""
        while not self.is_lost and not stop.wait(self._duration_s / _RENEWALS_PER_DURATION):
            with contextlib.suppress(ClientError, BotoCoreError, LakehouseError):
                self.renew()

    def _put(self, *, released: bool = False, **condition: Any) -> bool:
        """Write the lease. Returns False if the condition was not met."""
        now = datetime.now(UTC)
        content = {
            "id": self._id,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "started": self._started.isoformat(),
            "renewed": now.isoformat(),
            "expires": (now if released else now + timedelta(seconds=self._duration_s)).isoformat(),  # for people
            "duration_s": 0.0 if released else self._duration_s,
        }
        body = json.dumps(content, indent=2).encode()
        try:
            answer = self.lake.s3.put_object(Bucket=self.lake.bucket, Key=self._key, Body=body, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in (*_REFUSED, *_GONE):
                return False
            raise
        self._etag = answer["ETag"]
        return True


@dataclass(frozen=True)
class _State:
    """A lease as it is in the lake."""

    id: str
    holder: str
    etag: str
    seconds_left: float

    @classmethod
    def read(cls, lake: Lake, key: str) -> Self | None:
        try:
            answer = lake.s3.get_object(Bucket=lake.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                return None
            raise
        try:
            content = json.loads(answer["Body"].read())
            name, duration_s = str(content["id"]), min(float(content["duration_s"]), DURATION_S)
            holder = f"process {content['process']} on {content['host']}"
        except (ValueError, KeyError, TypeError):  # not an object of this module: it expires after the usual duration
            name, duration_s, holder = "", DURATION_S, "another program"
        server_time = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age_s = (server_time - answer["LastModified"]).total_seconds()
        return cls(
            name, holder, answer["ETag"], duration_s and duration_s + 1 - age_s
        )  # both times are in whole seconds


@contextmanager
def hold(lake: Lake, name: str, duration_s: float = DURATION_S) -> Iterator[Lease]:
    """Hold the lease `name` of a lake in the `with` block, and renew it in the background.

    Raises LeaseHeldError if another program holds it, and StorageError.
    """
    lease, stop = Lease(lake, name, duration_s), threading.Event()
    lease.acquire()
    thread = threading.Thread(target=lease.keep, args=(stop,), daemon=True, name=f"lease {name}")
    thread.start()
    try:
        yield lease
    finally:
        stop.set()
        thread.join()
        lease.release()
