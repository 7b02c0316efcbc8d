"""Landing to bronze: every row as text, as it was delivered, with the batch, file and line that it came from.

Each file is one commit, which also records the file and its fingerprint. Lines that cannot be parsed go to quarantine,
in a similar commit just before. Therefore a file is in bronze either completely or not at all, and only once, however
often the pipeline runs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import pyarrow as pa
from deltalake import DeltaTable, Schema, Transaction
from deltalake.transaction import AddAction

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.delta_log import progress_by_app_id
from lakehouse_utils.pipeline import commits, lineage, missing_columns, quarantine
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.landing import CHANGED_WHILE_READ, Landing, LandingFile
from lakehouse_utils.pipeline.parsing import BrokenRecord, Part, limits, read
from lakehouse_utils.pipeline.parsing.column_names import refuse_too_many_columns
from lakehouse_utils.pipeline.sources import Source

_APPEND_ONLY = {"delta.appendOnly": "true"}
_WORKERS = 2  # each holds one block in memory; Arrow uses all cores for a block anyway

_Result = TypeVar("_Result")


@dataclass
class Uploaded:
    """Parquet files in the folders of bronze and quarantine that no commit has added yet, and what is in them.

    `read`, `rows` and `broken` count records; `columns` are the names of bronze's columns, in the file's order.
    """

    read: int = 0
    rows: int = 0
    broken: int = 0
    files: list[AddAction] = field(default_factory=list)
    broken_files: list[AddAction] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)

    def add(self, other: "Uploaded") -> None:
        """Add what was uploaded for a later part of the same file. Raises UnreadableFileError for too many columns."""
        self.read += other.read
        self.rows += other.rows
        self.broken += other.broken
        self.files += other.files
        self.broken_files += other.broken_files
        self.columns |= other.columns
        refuse_too_many_columns(self.columns)


@dataclass(frozen=True)
class _Delivery:
    """One delivery of a file. If the file is delivered again with other content, its fingerprint is different."""

    file: LandingFile
    fingerprint: int = 0

    @property
    def app_id(self) -> str:
        """The name under which the tables' logs record the fingerprint of the loaded file."""
        return f"landing:{self.file.path}"


def refresh(
    run: RunContext, landing: Landing, source: Source, files: list[LandingFile], counts: TableCounts | None = None
) -> tuple[TableCounts, list[str]]:
    """Load each of `files` that `bronze/<table>` does not have yet, in order.

    Returns the counts over all new files, and a sentence for each file that cannot be read at all; such a file is
    recorded in quarantine and does not stop the others. `counts` has the counts of an earlier attempt that failed; this
    attempt adds to them.
    """
    ref = run.lake.table("bronze", source.name)
    table: DeltaTable | None = ref.open()
    counts = TableCounts() if counts is None else counts
    refused: list[str] = []

    def refuse(delivery: _Delivery, error: UnreadableFileError) -> None:
        refused.append(f"{delivery.file.path}: {error}")
        quarantine.append_refused_file(run.lake, source, delivery.file, delivery.fingerprint, error)

    loaded_fingerprint = progress_by_app_id(ref, table)
    new: list[_Delivery] = []
    for file in files:
        try:
            delivery = _Delivery(file, landing.fingerprint(file))
        except UnreadableFileError as error:
            refuse(_Delivery(file), error)
            continue
        if loaded_fingerprint(delivery.app_id) == delivery.fingerprint:
            run.progress.on_advance(file.size_bytes)
        else:
            new.append(delivery)

    new_files = [delivery.file for delivery in new]
    uploads = run.engine.upload_files(upload, landing, source, new_files, run.progress.on_advance) if new else []
    for delivery, uploaded in zip(new, uploads, strict=True):
        try:
            if isinstance(uploaded, UnreadableFileError):
                raise uploaded
            if landing.fingerprint(delivery.file) != delivery.fingerprint:
                raise UnreadableFileError(CHANGED_WHILE_READ)
        except UnreadableFileError as error:
            refuse(delivery, error)
            continue
        if uploaded.broken_files:
            upload_broken = partial(_already_uploaded, uploaded.broken_files)
            quarantine.append(run.lake, source, delivery.app_id, delivery.fingerprint, upload_broken)
        table = _commit(ref, table, source, delivery, uploaded)
        counts.read += uploaded.read
        counts.added += uploaded.rows
        counts.quarantined += uploaded.broken
        _note_missing_columns(run, source, delivery.file, uploaded, counts)
    counts.version = table.version() if table else None
    return counts, refused


def _note_missing_columns(
    run: RunContext, source: Source, file: LandingFile, uploaded: Uploaded, counts: TableCounts
) -> None:
    sentence = missing_columns.describe(source, file.path, uploaded.columns) if uploaded.rows else None
    if sentence:
        counts.missing_columns.append(sentence)
        run.progress.on_note(sentence)


def _already_uploaded(files: list[AddAction]) -> list[AddAction]:
    return files


def _commit(
    ref: TableRef, table: DeltaTable | None, source: Source, delivery: _Delivery, uploaded: Uploaded
) -> DeltaTable:
    columns = dict.fromkeys([*source.columns, *uploaded.columns])
    schema = pa.schema([*(pa.field(name, pa.string()) for name in columns), *lineage.BRONZE_FIELDS])
    table = table or commits.create(ref, Schema.from_arrow(schema), _APPEND_ONLY)
    return commits.append(ref, table, schema, uploaded.files, Transaction(delivery.app_id, delivery.fingerprint))


def upload(
    lake: Lake, landing: Landing, source: Source, file: LandingFile, on_advance: Callable[[int], None]
) -> Uploaded:
    """Upload the rows of one file, and its broken records, for later commits to add.

    An engine may call it in another process. `on_advance` receives the number of bytes of the raw file that have been
    processed since the last call. Raises UnreadableFileError.
    """
    ingested_at = datetime.now(UTC)
    uploaded = Uploaded()
    broken_records = _BrokenRecords(lake, file, source, ingested_at)
    processed_bytes = 0
    with landing.open(file) as stream, ThreadPoolExecutor(_WORKERS) as pool:
        tasks = (partial(_upload_part, lake, file, source, part, ingested_at) for part in read(stream, file, source))
        for uploaded_part, broken, size_bytes in _results_in_order(pool, tasks):
            uploaded.add(uploaded_part)
            broken_records.upload(broken)
            # A decompressed part may be larger than the file.
            size_bytes = min(size_bytes, file.size_bytes - processed_bytes)
            processed_bytes += size_bytes
            on_advance(size_bytes)
    uploaded.broken_files = broken_records.finish(uploaded.broken)
    on_advance(file.size_bytes - processed_bytes)
    if uploaded.read != uploaded.rows + uploaded.broken:
        raise AssertionError(
            f"{file.path}: {uploaded.read} records read, but {uploaded.rows} rows and {uploaded.broken} broken records"
        )
    return uploaded


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


def _upload_part(
    lake: Lake, file: LandingFile, source: Source, parse: Part, now: datetime
) -> tuple[Uploaded, list[BrokenRecord], int]:
    """What was uploaded for one part of a file, its first broken records, and the size of the part in bytes."""
    uploaded, broken, size_bytes = Uploaded(), list[BrokenRecord](), 0
    for block in parse():
        size_bytes += block.size_bytes
        names = [name for name in block.rows.column_names if name != lineage.SOURCE_LINE]
        count = len(block.broken) + block.unlisted
        uploaded.add(Uploaded(block.read, len(block.rows), count, columns=dict.fromkeys(names)))
        if len(block.rows):
            lines = block.rows[lineage.SOURCE_LINE]
            stats = {
                lineage.BATCH: (file.batch, file.batch),
                lineage.SOURCE_FILE: (file.path, file.path),
                lineage.SOURCE_LINE: (lines[0].as_py(), lines[-1].as_py()),
            }
            ref = lake.table("bronze", source.name)
            uploaded.files.append(
                commits.put_parquet(ref, lineage.add_file_columns(block.rows, file.batch, file.path, now), stats)
            )
        broken += block.broken[: limits.MAX_BROKEN_RECORDS + 1 - len(broken)]
        del block  # frees its memory for the next one
    return uploaded, broken, size_bytes


def _results_in_order(pool: ThreadPoolExecutor, tasks: Iterable[Callable[[], _Result]]) -> Iterator[_Result]:
    """The results of `tasks`, in order. Starts only as many tasks as keep the pool busy, to limit memory use."""
    pending: deque[Future[_Result]] = deque()
    for task in tasks:
        pending.append(pool.submit(task))
        if len(pending) > _WORKERS:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
