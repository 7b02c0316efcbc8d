"""The state of the logs of a lake's tables, kept from one run to the next, so that a run reads only what is new.

A run needs little of a table that has no new input: its version, the application transactions, the build record and the
schema. That is its log state. A later state follows from an earlier one and the commits in between, so the states of
all tables are kept in one object of the lake, `_pipeline/log_states.json.gz`.

A stored state is never used without a check. One listing per table, from the commit file of the state's version on,
shows whether that file is still the same (by its ETag) and which commits follow. If the file differs, or the object is
missing, damaged or in another format, the log is read from its last checkpoint on. Two runs may replace each other's
object: then the next run reads a few more commits.
"""

import gzip
import json
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, Self

import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.interrupts import uninterrupted
from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.compatibility import Table
from lakehouse_utils.lake.credentials import Credentials
from lakehouse_utils.lake.delta_log import Commit, DeltaLog, LogSnapshot
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import build_record
from lakehouse_utils.pipeline.build_record import BuildRecord, InputChange, Position

KEY = ("_pipeline", "log_states.json.gz")
_FORMAT = 1  # of the object; one of another format is ignored
_PARALLEL_TABLES = 8
_MAX_COMMITS = 50  # a state that is further behind is read from the last checkpoint, if that is newer
# The errors that an inconsistent log can cause.
_DAMAGES = (LakehouseError, pa.ArrowException, LookupError, RuntimeError, StopIteration, TypeError, ValueError)


@dataclass(frozen=True)
class LogState:
    """What the log of a table says as of `version`.

    `etag` is that of the commit file; empty if the log has none. `unchanged_since` are positions after which the
    table's rows have not changed.
    """

    version: int
    etag: str
    snapshot: LogSnapshot
    record: BuildRecord
    unchanged_since: list[Position]

    @classmethod
    def parse(cls, fields: Any) -> Self | None:  # noqa: ANN401 - any JSON
        """The state that `as_json` returned; None if `fields` is anything else."""
        try:
            record, snapshot = BuildRecord(**fields["record"]), LogSnapshot(**fields["snapshot"])
            if record.head is not None:
                record = BuildRecord(**{**fields["record"], "head": Position(**fields["record"]["head"])})
            numbers = [fields["version"], *snapshot.transactions.values(), *record.transactions.values()]
            texts = [fields["etag"], snapshot.schema, *snapshot.transactions]
            numbers += [record.restored_to] if record.restored_to is not None else []
            texts += [record.foreign_change] if record.foreign_change is not None else []
            positions = [Position(int(version), int(digest)) for version, digest in fields["unchanged_since"]]
        except (KeyError, TypeError, AttributeError, ValueError):
            return None
        is_valid = all(type(number) is int for number in numbers) and all(isinstance(text, str) for text in texts)
        return cls(fields["version"], fields["etag"], snapshot, record, positions) if is_valid else None

    def as_json(self) -> dict[str, Any]:
        """The state for the object in the lake."""
        record = self.record
        return {
            "version": self.version,
            "etag": self.etag,
            "snapshot": {"transactions": self.snapshot.transactions, "schema": self.snapshot.schema},
            "record": {
                "head": asdict(record.head) if record.head else None,
                "transactions": dict(record.transactions),
                "foreign_change": record.foreign_change,
                "restored_to": record.restored_to,
            },
            "unchanged_since": [[position.version, position.digest] for position in self.unchanged_since],
        }


class _RememberingLog(DeltaLog):
    """A log that reads each commit only once: those after a covered position are often those after a state, too."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._commits: dict[int, Commit] = {}

    def commit(self, version: int) -> Commit:
        """See DeltaLog."""
        if version not in self._commits:
            self._commits[version] = super().commit(version)
        return self._commits[version]

    def remembered_up_to(self, head: int) -> list[Commit]:
        """The commits up to `head`, in order, as far back as they have been read without a gap."""
        first = head + 1
        while first - 1 in self._commits:
            first -= 1
        return [self._commits[version] for version in range(first, head + 1)]


class _Unknown:
    """The state of a table whose log has not been read; None is that of a table that does not exist."""


_UNKNOWN = _Unknown()


@dataclass(frozen=True)
class _Handle:
    table: Table
    credentials: Credentials


class LogStates:
    """The log states of one run. Logs and open tables are kept, and read or opened again only if something is new.

    Code that commits to a table must call `committed`. After a failure, `expire` makes the run read the logs again.
    Several threads may use it, because a step only starts when those that commit to its inputs have ended.
    Methods raise StorageError if a log cannot be read, and DamagedTableError if it is inconsistent.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._refs: dict[str, TableRef] = {}  # all tables of the run, by label
        self._stored: dict[str, Any] = {}  # what the object in the lake says
        self._parsed: dict[str, LogState | None] = {}  # the same, as far as it was needed
        self._listed: dict[str, LogState] = {}  # what was true when the log was last listed
        self._current: dict[str, LogState | None] = {}  # what this run uses: the same, or with later commits
        self._committed: dict[str, int] = {}  # newer versions of these tables, whose commits are read when needed
        self._logs: dict[str, _RememberingLog] = {}
        self._handles: dict[str, _Handle] = {}
        self._lock = Lock()  # of `_committed`: another thread may note a newer version while one is read

    def load(self, refs: Iterable[TableRef]) -> None:
        """Read the states of these tables in parallel. If a log cannot be read, `of` raises the error later."""
        self._stored = self._read_object()
        self._for_each(refs)

    def of(self, ref: TableRef) -> LogState | None:
        """The state of a table; None if the table does not exist."""
        label = ref.label
        self._refs[label] = ref
        # Another thread may call `expire` at any time, so what was looked up once is not looked up again; the version
        # first, because a state without a newer version would hide what this run has committed.
        committed, known = self._committed.get(label, -1), self._current.get(label, _UNKNOWN)
        if isinstance(known, _Unknown):
            with translate_errors(f"read the log of {label}", self.lake):
                state = self._verified(ref, self._listed.get(label) or self._stored_state(label))
            self._current[label] = state
            if state is not None:
                self._listed[label] = state
        else:
            state = known
        if state is None or state.version < committed:
            with translate_errors(f"read the log of {label}", self.lake):
                if state is None:
                    state = self._read(ref) if committed >= 0 else None
                else:
                    try:
                        state = self._after(ref, state, range(state.version + 1, committed + 1))
                    except _DAMAGES:  # perhaps a clean-up has just removed these commits
                        state = self._read(ref)
            self._current[label] = state
        with self._lock:
            if self._committed.get(label, -1) <= (state.version if state else committed):
                self._committed.pop(label, None)
        return state

    def transactions(self, ref: TableRef) -> dict[str, int]:
        """The last version of each application transaction of a table, by app id."""
        state = self.of(ref)
        return state.snapshot.transactions if state else {}

    def record(self, ref: TableRef) -> BuildRecord:
        """The build record of a table; an empty one if the table does not exist."""
        state = self.of(ref)
        return state.record if state else BuildRecord()

    def changes_since(self, ref: TableRef, covered: Position | None, *, accept_appends: bool = False) -> InputChange:
        """What happened to an input after the position that a table covers: see `build_record.changes_since`.

        The input's log is read again if its state is older than this position: another job may have committed since.
        """
        state = self.of(ref)
        if state is not None and covered is not None and covered.version > state.version:
            self.forget(ref)
            state = self.of(ref)
        record = self.record(ref)
        if state is not None and covered is not None and covered in state.unchanged_since:
            return InputChange(None, commits=state.version - covered.version)
        return build_record.changes_since(ref, record, covered, accept_appends=accept_appends, log=self._log(ref))

    def open(self, ref: TableRef) -> Table | None:
        """The table, opened for this run at the version of its state or later; None if it does not exist.

        It is opened again if the credentials have changed.
        """
        state, credentials = self.of(ref), self.lake.credentials()
        if state is None:
            return None
        handle = self._handles.get(ref.label)
        if handle and handle.credentials == credentials and handle.table.version() == state.version:
            return handle.table
        table = ref.open()
        if table is not None:
            self._handles[ref.label] = _Handle(table, credentials)
            self.committed(ref, table)
        else:
            self.forget(ref)
        return table

    def require_current(self, ref: TableRef, table: DeltaTable | None) -> None:
        """Raise CommitFailedError if the state is no longer that of `table`, which is open.

        A step in another thread may have read the log again, and found a commit of another program. Then a commit that
        is based on the state would record input rows that were not read.
        """
        state = self.of(ref)
        if (table.version() if table else None) != (state.version if state else None):
            raise CommitFailedError(f"Another writer changed {ref.label} first.")

    def committed(self, ref: TableRef, table: DeltaTable) -> None:
        """Take into account that `table`, which is open, may be new, or have a newer version than the state."""
        state, version = self._current.get(ref.label), table.version()
        if state is not None and version < state.version:  # another table in its place
            self.forget(ref)
        elif state is None or version > state.version:
            with self._lock:
                self._committed[ref.label] = max(version, self._committed.get(ref.label, -1))
        if isinstance(table, Table) and ref.label not in self._handles:
            self._handles[ref.label] = _Handle(table, self.lake.credentials())

    def forget(self, ref: TableRef) -> None:
        """Forget the state of a table that was replaced, so that its log is read again."""
        for states in (self._current, self._committed, self._logs, self._handles):
            states.pop(ref.label, None)

    def expire(self) -> None:
        """Read all logs again: a commit that seemed to fail may have succeeded, and other programs may have written."""
        for states in (self._current, self._committed, self._logs, self._handles):
            states.clear()

    def save(self) -> None:
        """Keep the states for the next run, if there are new ones. If that fails, the next run reads more."""
        for label in self._refs:
            # These states have commits that were read without a listing: another program may have replaced the table.
            if label in self._committed or self._current.get(label) is not self._listed.get(label):
                self._current.pop(label, None)
        self._for_each(list(self._refs.values()))
        changed = {label: state for label, state in self._current.items() if state is not self._parsed.get(label)}
        if not changed:
            return
        tables = self._stored | {label: state.as_json() for label, state in changed.items() if state}
        tables = {label: fields for label, fields in tables.items() if self._current.get(label, fields)}
        content = json.dumps({"format": _FORMAT, "tables": tables}, separators=(",", ":")).encode()
        body = gzip.compress(content, compresslevel=1, mtime=0)
        with suppress(ClientError, BotoCoreError, LakehouseError):
            self.lake.s3.put_object(Bucket=self.lake.bucket, Key=self.lake.key(*KEY), Body=body)

    def _log(self, ref: TableRef) -> _RememberingLog:
        log = self._logs.get(ref.label)
        if log is None:
            log = self._logs[ref.label] = _RememberingLog.of_ref(ref)
        return log

    def _read_object(self) -> dict[str, Any]:
        # There may be none yet, it may be damaged, or the server may not answer, which each table's step handles.
        unavailable = (ClientError, BotoCoreError, LakehouseError, OSError)
        with suppress(*unavailable, EOFError, zlib.error, ValueError, LookupError, TypeError):
            answer = self.lake.s3.get_object(Bucket=self.lake.bucket, Key=self.lake.key(*KEY))
            content = json.loads(gzip.decompress(answer["Body"].read()))
            if content["format"] == _FORMAT:
                return dict(content["tables"])
        return {}

    def _stored_state(self, label: str) -> LogState | None:
        if label not in self._parsed:
            self._parsed[label] = LogState.parse(self._stored.get(label))
        return self._parsed[label]

    def _for_each(self, refs: Iterable[TableRef]) -> None:
        """Read the states of these tables in parallel."""
        with uninterrupted(), ThreadPoolExecutor(_PARALLEL_TABLES) as pool:
            list(pool.map(self._try, refs))

    def _try(self, ref: TableRef) -> None:
        with suppress(Exception):  # the step that needs the table gets the error again, and reports it
            self.of(ref)

    def _verified(self, ref: TableRef, earlier: LogState | None) -> LogState | None:
        """The state at the head of the log, computed from an earlier one if that is still correct."""
        if earlier is not None and earlier.etag:
            listing = self._log(ref).listing(earlier.version)
            if listing.etags.get(earlier.version) == earlier.etag:
                later = range(earlier.version + 1, (listing.head or 0) + 1)
                is_far_behind = len(later) > _MAX_COMMITS and any(number in listing.checkpoints for number in later)
                if listing.etags.keys() >= set(later) and not is_far_behind:
                    with suppress(*_DAMAGES):
                        return self._after(ref, earlier, later)
        return self._read(ref)

    def _after(self, ref: TableRef, earlier: LogState, versions: range) -> LogState:
        if not versions:
            return earlier
        log = self._log(ref)
        commits = list(log.commits(versions))
        snapshot, record = earlier.snapshot.after(commits), build_record.advance(ref, log, earlier.record, commits)
        unchanged = build_record.unchanged_since(commits, earlier.unchanged_since)
        return LogState(commits[-1].version, commits[-1].etag, snapshot, record, unchanged)

    def _read(self, ref: TableRef) -> LogState | None:
        """The state, from the last checkpoint on."""
        self._logs.pop(ref.label, None)  # it may remember commits of another table
        log = self._log(ref)
        listing = log.listing()
        if listing.head is None:
            return None
        try:
            snapshot, record = log.snapshot(listing.head, listing), build_record.read_at(ref, log, listing.head)
            etag = log.commit(listing.head).etag if record.head else ""
            unchanged = build_record.unchanged_since(log.remembered_up_to(listing.head))
        except _DAMAGES:
            ref.open()  # delta-rs says what is wrong with the log
            raise
        return LogState(listing.head, etag, snapshot, record, unchanged)
