"""Landing to bronze: every row as text, as it was delivered, with the batch, file and line that it came from.

Each file is one commit, which also records the file and its fingerprint. Lines that cannot be parsed go to quarantine,
in a similar commit just before. Therefore a file is in bronze either completely or not at all, and only once, however
often the pipeline runs.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TypeVar

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.lake import Lake, TableRef, delta_log
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import commits, lineage, missing_columns, quarantine
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.formats import READING_SETTINGS
from lakehouse_utils.pipeline.landing import Landing, LandingFile, printable
from lakehouse_utils.pipeline.log_states import LogStates
from lakehouse_utils.pipeline.parsing import BrokenRecord, Part, limits, read
from lakehouse_utils.pipeline.parsing.column_names import refuse_too_many_columns
from lakehouse_utils.pipeline.sources import Source

_READING = "reading"  # the app id under which bronze's log records the digest of the settings for reading files
APPEND_ONLY = {"delta.appendOnly": "true"}
_WORKERS = 2  # each holds one block in memory; Arrow uses all cores for a block anyway

_Result = TypeVar("_Result")


@dataclass
class Uploaded:
    """Parquet files in the folders of bronze and quarantine that no commit has added yet, and what is in them.

    `read`, `rows` and `broken` count records; `columns` are the names of bronze's columns, in the file's order.
    `fingerprint` is that of the raw file's content (see `landing.py`).
    """

    read: int = 0
    rows: int = 0
    broken: int = 0
    files: list[AddAction] = field(default_factory=list)
    broken_files: list[AddAction] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    fingerprint: int = 0

    def add(self, other: "Uploaded") -> None:
        """Add what was uploaded for a later part of the same file. Raises UnreadableFileError for too many columns."""
        self.read += other.read
        self.rows += other.rows
        self.broken += other.broken
        self.files += other.files
        self.broken_files += other.broken_files
        self.columns |= other.columns
        refuse_too_many_columns(self.columns)


class LoadedFiles:
    """What bronze's log says about the files that are loaded: the fingerprint of each, under its path."""

    def __init__(self, landing: Landing, recorded: Callable[[str], int | None]) -> None:
        self._landing = landing
        self._recorded = recorded
        self.to_record: dict[str, int] = {}  # what makes the next comparison of a file cheap, or possible

    def has(self, file: LandingFile) -> bool:
        """Whether bronze has this content of this path. Raises UnreadableFileError and MachineError.

        The content of a file is read only if neither an unchanged ETag nor a hint of an earlier run says what it is.
        """
        loaded, etag = self._recorded(_app_id(file.path)), self._landing.etag_fingerprint(file)
        if loaded is None:
            return False
        if etag is not None and etag == self._recorded(_etag_app_id(file)):
            return True
        if etag is not None and loaded == self._landing.earlier_fingerprint(file):
            return True
        fingerprint = self._landing.fingerprint(file)
        if loaded == fingerprint:
            if etag is not None:
                self.to_record[_etag_app_id(file)] = etag
            return True
        if loaded != self._landing.earlier_fingerprint(file):
            return False
        self.to_record[_app_id(file.path)] = fingerprint
        return True


def _app_id(path: str) -> str:
    """The name under which the tables' logs record the fingerprint of the loaded file."""
    return f"landing:{path}"


def redelivered_app_id(path: str) -> str:
    """The name under which bronze's log records that it has rows of more than one delivery of a file."""
    return f"redelivered:{path}"


def _etag_app_id(file: LandingFile) -> str:
    """The name under which bronze's log records the fingerprint of the ETag of the loaded object."""
    return f"etag:{file.path}"


@dataclass
class Attempts:
    """What the attempts to load files into one table have done so far; a further attempt adds to it.

    `unconfirmed` are the files, by path, whose commit failed: if only its answer was lost, it may have succeeded.
    """

    counts: TableCounts = field(default_factory=TableCounts)
    unconfirmed: dict[str, Uploaded] = field(default_factory=dict)

    def count(self, uploaded: Uploaded) -> None:
        """Count the records of a file that is loaded now."""
        self.counts.read += uploaded.read
        self.counts.added += uploaded.rows
        self.counts.quarantined += uploaded.broken

    def confirm(self, table: DeltaTable, recorded: Callable[[str], int | None]) -> None:
        """Count the unconfirmed files whose commit succeeded after all. Another job may have loaded the same files."""
        live = set(pa.table(table.get_add_actions(flatten=True))["path"].to_pylist())
        for path, uploaded in self.unconfirmed.items():
            is_loaded = recorded(_app_id(path)) == uploaded.fingerprint
            if is_loaded and live.issuperset(add.path for add in uploaded.files):
                self.count(uploaded)
        self.unconfirmed.clear()


def refresh(
    run: RunContext, landing: Landing, source: Source, files: list[LandingFile], attempts: Attempts | None = None
) -> tuple[TableCounts, list[str]]:
    """Load each of `files` that `bronze/<table>` does not have yet, in order.

    Returns the counts over all new files, and a sentence for each file that cannot be read at all; such a file is
    recorded in quarantine and does not stop the others. `attempts` is what earlier attempts that failed have done.
    Raises MachineError if this machine cannot go on, with a full disk for example.
    """
    ref = run.lake.table("bronze", source.name)
    attempts = attempts or Attempts()
    counts = attempts.counts
    refused: list[str] = []
    refused_files: set[LandingFile] = set()

    def refuse(file: LandingFile, error: UnreadableFileError) -> None:
        refused.append(f"{printable(file.path)}: {error}")
        refused_files.add(file)
        quarantine.append_refused_file(run.logs, source, file, _fingerprints(landing, file), error)

    recorded = commits.transactions_after_restores(run.logs, ref).get
    in_quarantine = quarantine.transactions(run.logs, source).get
    if attempts.unconfirmed and (table := run.logs.open(ref)) is not None:
        attempts.confirm(table, recorded)
    loaded = LoadedFiles(landing, recorded)
    _note_other_reading(run, source, recorded, loaded)
    new: list[LandingFile] = []
    lost_broken_records: list[LandingFile] = []
    for file in files:
        try:
            is_loaded = loaded.has(file)
        except UnreadableFileError as error:
            refuse(file, error)
            continue
        if not is_loaded:
            new.append(file)
        elif in_quarantine(_app_id(file.path)) == commits.TAKEN_BACK:
            lost_broken_records.append(file)
        else:
            run.progress.on_advance(file.size_bytes)
    if loaded.to_record and (table := run.logs.open(ref)) is not None:
        commits.require_not_restored(run.logs, ref)
        with translate_errors(f"commit to {ref.label}", run.lake):
            commits.record(table, CommitRecord(loaded.to_record))
        run.logs.committed(ref, table)

    uploads = run.engine.upload_files(upload, landing, source, new, run.progress.on_advance) if new else []
    for file, uploaded in zip(new, uploads, strict=True):
        if isinstance(uploaded, UnreadableFileError):
            refuse(file, uploaded)
            continue
        was_loaded = recorded(_app_id(file.path)) not in (None, commits.TAKEN_BACK)
        if was_loaded or in_quarantine(quarantine.refused_app_id(file)) is not None:
            quarantine.resolve(run.logs, source, file, _app_id(file.path), uploaded.fingerprint)
        _quarantine_broken(run, source, file, uploaded)
        attempts.unconfirmed[file.path] = uploaded
        transactions = _transactions(landing, file, uploaded) | {_READING: _reading_digest(source)}
        if was_loaded:
            transactions[redelivered_app_id(file.path)] = 1
        _commit(run.logs, ref, source, uploaded, transactions)
        attempts.count(attempts.unconfirmed.pop(file.path))
        _note_missing_columns(run, source, file, uploaded, counts)
    _quarantine_again(run, landing, source, lost_broken_records, counts)
    state = run.logs.of(ref)
    counts.version = state.version if state else None
    counts.last_batch = max((file.batch for file in files if file not in refused_files), default=None)
    landing.save_hints()
    return counts, refused


def _note_other_reading(
    run: RunContext, source: Source, recorded: Callable[[str], int | None], loaded: LoadedFiles
) -> None:
    """Say once that files which bronze has were read with other settings."""
    digest = _reading_digest(source)
    if recorded(_READING) not in (None, digest, commits.TAKEN_BACK):
        loaded.to_record[_READING] = digest
        run.progress.on_note(
            f"the settings for reading the files of {source.name} have changed. Rows that are already in"
            f" bronze.{source.name} stay as they are; to read their files again, use --rebuild bronze.{source.name}"
        )


def _reading_digest(source: Source) -> int:
    """A number that changes when the description would give other rows of the same files in bronze."""
    formats = [source.format, *map(source.format.override, source.formats)]
    settings = [format_.model_dump(include=set(READING_SETTINGS)) for format_ in formats]
    patterns = [entry.files for entry in source.formats]
    headers = {name: column.headers for name, column in source.columns.items() if column.headers}
    return delta_log.digest(json.dumps([settings, patterns, headers], sort_keys=True))


def _quarantine_broken(run: RunContext, source: Source, file: LandingFile, uploaded: Uploaded) -> None:
    if uploaded.broken_files:
        upload_broken = partial(_already_uploaded, uploaded.broken_files)
        quarantine.append(run.logs, source, CommitRecord({_app_id(file.path): uploaded.fingerprint}), upload_broken)


def _quarantine_again(
    run: RunContext, landing: Landing, source: Source, files: list[LandingFile], counts: TableCounts
) -> None:
    """Put the broken records of files into quarantine that a RESTORE took out of it. Bronze has the other rows."""
    if not files:
        return
    uploads = run.engine.upload_files(upload_broken_records, landing, source, files, run.progress.on_advance)
    for file, uploaded in zip(files, uploads, strict=True):
        if isinstance(uploaded, UnreadableFileError):  # it was readable when it was loaded
            run.progress.on_note(
                f"{printable(file.path)}: its broken records are no longer in quarantine, because a RESTORE removed"
                f" them, and they cannot be added again: {uploaded}"
            )
            continue
        _quarantine_broken(run, source, file, uploaded)
        counts.quarantined += uploaded.broken


def require_readable(landing: Landing, source: Source, file: LandingFile) -> None:
    """Raise UnreadableFileError if the start of a raw file cannot be read as it is described."""
    with landing.open(file) as opened:
        for part in islice(read(opened.stream, file, source), 1):
            for _ in part():
                pass


def _fingerprints(landing: Landing, file: LandingFile) -> list[int]:
    """What identifies this delivery of a file that cannot be loaded, and perhaps not even be read."""
    earlier = None
    try:
        earlier = landing.earlier_fingerprint(file)
        return [landing.fingerprint(file) if landing.etag_fingerprint(file) is None else earlier, earlier]
    except UnreadableFileError:
        return [0 if earlier is None else earlier]


def _note_missing_columns(
    run: RunContext, source: Source, file: LandingFile, uploaded: Uploaded, counts: TableCounts
) -> None:
    sentence = missing_columns.describe(source, file.path, uploaded.columns) if uploaded.rows else None
    if sentence:
        counts.missing_columns.append(sentence)
        run.progress.on_note(sentence)


def _already_uploaded(files: list[AddAction]) -> list[AddAction]:
    return files


def _commit(logs: LogStates, ref: TableRef, source: Source, uploaded: Uploaded, transactions: dict[str, int]) -> None:
    columns = schema(source, uploaded.columns)
    if logs.of(ref) is None:
        logs.committed(ref, commits.create(ref, Schema.from_arrow(columns), APPEND_ONLY))
    commits.append(logs, ref, columns, uploaded.files, CommitRecord(transactions))


def schema(source: Source, columns: Iterable[str] = ()) -> pa.Schema:
    """The columns of a bronze table: the described ones, further `columns` of the raw files, and the lineage."""
    names = dict.fromkeys([*source.columns, *columns])
    return pa.schema([*(pa.field(name, pa.string()) for name in names), *lineage.BRONZE_FIELDS])


def _transactions(landing: Landing, file: LandingFile, uploaded: Uploaded) -> dict[str, int]:
    """What the commit of a file records about it."""
    etag = landing.etag_fingerprint(file)
    hint = {} if etag is None else {_etag_app_id(file): etag}
    return {_app_id(file.path): uploaded.fingerprint} | hint


def upload(
    lake: Lake, landing: Landing, source: Source, file: LandingFile, on_advance: Callable[[int], None]
) -> Uploaded:
    """Upload the rows of one file, and its broken records, for later commits to add.

    An engine may call it in another process. `on_advance` receives the number of bytes of the raw file that have been
    processed since the last call. Raises UnreadableFileError.
    """
    return _FileUpload(lake, source, file).run(landing, on_advance)


def upload_broken_records(
    lake: Lake, landing: Landing, source: Source, file: LandingFile, on_advance: Callable[[int], None]
) -> Uploaded:
    """Like `upload`, but without the rows."""
    return _FileUpload(lake, source, file, with_rows=False).run(landing, on_advance)


@dataclass(frozen=True)
class _FileUpload:
    lake: Lake
    source: Source
    file: LandingFile
    with_rows: bool = True
    ingested_at: datetime = field(default_factory=partial(datetime.now, UTC))

    def run(self, landing: Landing, on_advance: Callable[[int], None]) -> Uploaded:
        """See `upload`."""
        file, uploaded, processed_bytes = self.file, Uploaded(), 0
        broken_records = _BrokenRecords(self.lake, file, self.source, self.ingested_at)
        with landing.open(file) as opened, ThreadPoolExecutor(_WORKERS) as pool:
            tasks = (partial(self._upload_part, part) for part in read(opened.stream, file, self.source))
            for uploaded_part, broken, size_bytes in _results_in_order(pool, tasks):
                uploaded.add(uploaded_part)
                broken_records.upload(broken)
                # A decompressed part may be larger than the file.
                size_bytes = min(size_bytes, file.size_bytes - processed_bytes)
                processed_bytes += size_bytes
                on_advance(size_bytes)
            uploaded.fingerprint = opened.fingerprint
        uploaded.broken_files = broken_records.finish(uploaded.broken)
        on_advance(file.size_bytes - processed_bytes)
        if uploaded.read != uploaded.rows + uploaded.broken:
            raise AssertionError(
                f"{file.path}: {uploaded.read} records read, but {uploaded.rows} rows and {uploaded.broken} broken"
                " records"
            )
        return uploaded

    def _upload_part(self, parse: Part) -> tuple[Uploaded, list[BrokenRecord], int]:
        """What was uploaded for one part of a file, its first broken records, and the size of the part in bytes."""
        lake, file = self.lake, self.file
        uploaded, broken, size_bytes = Uploaded(), list[BrokenRecord](), 0
        for block in parse():
            size_bytes += block.size_bytes
            names = [name for name in block.rows.column_names if name != lineage.SOURCE_LINE]
            count = len(block.broken) + block.unlisted
            uploaded.add(Uploaded(block.read, len(block.rows), count, columns=dict.fromkeys(names)))
            if self.with_rows and len(block.rows):
                lines = block.rows[lineage.SOURCE_LINE]
                stats = {
                    lineage.BATCH: (file.batch, file.batch),
                    lineage.SOURCE_FILE: (file.path, file.path),
                    lineage.SOURCE_LINE: (lines[0].as_py(), lines[-1].as_py()),
                }
                rows = lineage.add_file_columns(block.rows, file.batch, file.path, self.ingested_at)
                uploaded.files.append(commits.put_parquet(lake.table("bronze", self.source.name), rows, stats))
            broken += block.broken[: limits.MAX_BROKEN_RECORDS + 1 - len(broken)]
            del block  # frees its memory for the next one
        return uploaded, broken, size_bytes


class _BrokenRecords:
    """Uploads the first broken records of one file to quarantine, and says there how many more there are.

    A file in a wrong format may have millions, and each would take many times as much space as the broken line.
    """

    def __init__(self, lake: Lake, file: LandingFile, source: Source, ingested_at: datetime) -> None:
        self._put = partial(quarantine.upload_broken_records, lake, source, file, ingested_at=ingested_at)
        self._files: list[AddAction] = []
        self._listed = 0
        self._first_unlisted: BrokenRecord | None = None

    def upload(self, records: list[BrokenRecord]) -> None:
        """Upload the next records, as far as the limit permits."""
        listed = records[: limits.MAX_BROKEN_RECORDS - self._listed]
        if listed:
            self._files.append(self._put(listed))
        if len(listed) < len(records) and not self._first_unlisted:
            self._first_unlisted = records[len(listed)]
        self._listed += len(listed)

    def finish(self, count: int) -> list[AddAction]:
        """What was uploaded, with a last record about those of the `count` broken records that are not listed."""
        if self._first_unlisted:
            reason = (
                f"{count - self._listed:,} more lines of the file are broken, this one included; only the first"
                f" {self._listed:,} are listed. This one: {self._first_unlisted.reason}"
            )
            self._files.append(self._put([self._first_unlisted._replace(reason=reason)]))
            self._first_unlisted = None
        return self._files


def _results_in_order(pool: ThreadPoolExecutor, tasks: Iterable[Callable[[], _Result]]) -> Iterator[_Result]:
    """The results of `tasks`, in order. Starts only as many tasks as keep the pool busy, to limit memory use."""
    pending: deque[Future[_Result]] = deque()
    for task in tasks:
        pending.append(pool.submit(task))
        if len(pending) > _WORKERS:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
