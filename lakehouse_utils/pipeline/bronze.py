"""Landing to bronze: every row as it came, as text, with the batch, file and line that it came from.

A file is one commit, which also records the file and its fingerprint. Lines that don't parse go to quarantine, in a
commit of the same kind just before. So a file is in bronze whole or not at all, once, however often this runs.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
from deltalake import Schema, Transaction
from deltalake.transaction import AddAction

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.delta_log import progress, progress_by_app_id
from lakehouse_utils.pipeline import commits
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.landing import Landing, LandingFile
from lakehouse_utils.pipeline.parsing.formats import LINE, Part, read, refuse_too_many, text_table
from lakehouse_utils.pipeline.sources import Source

_ORIGIN = [
    pa.field("_batch", pa.string()),
    pa.field("_source_file", pa.string()),
    pa.field("_source_line", pa.int64()),
    pa.field("_ingested_at", pa.timestamp("us", "UTC")),
]
_REASON = [pa.field("layer", pa.string()), pa.field("reason", pa.string()), pa.field("raw", pa.string())]
_APPEND_ONLY = {"delta.appendOnly": "true"}
_WORKERS = 2  # each holds a block; Arrow uses all cores within one anyway


@dataclass
class Uploaded:
    """Parquet files in the table's folder that no commit names yet, and what is in them."""

    read: int = 0
    rows: int = 0
    broken: int = 0
    files: list[AddAction] = field(default_factory=list)
    broken_files: list[AddAction] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)


def refresh(
    run: RunContext, landing: Landing, source: Source, arrived: list[LandingFile], counts: TableCounts | None = None
) -> tuple[TableCounts, list[str]]:
    """Bring `bronze/<table>` up to what has arrived: every file that isn't there yet, in order.

    Returns the counts over all new files, and a sentence for each
    file that could not be read at all; such a file is noted in quarantine and doesn't stop the others. `counts` are
    those of an attempt that an error ended: what it committed stays in them.
    """
    lake, advance = run.lake, run.progress.on_advance
    bronze = lake.table("bronze", source.name)
    table = bronze.open()
    loaded = progress_by_app_id(bronze, table)
    counts, refused = TableCounts() if counts is None else counts, []

    def refuse(file: LandingFile, fingerprint: int, error: UnreadableFileError) -> None:
        refused.append(f"{file.path}: {error}")
        note = partial(_put_broken, lake, file, source, [(None, "", str(error))], datetime.now(UTC))
        quarantine(lake, source, f"refused:{file.path}", fingerprint, lambda: [note()])

    new = {}
    for file in arrived:
        try:
            fingerprint = landing.fingerprint(file)
        except UnreadableFileError as error:
            refuse(file, 0, error)
            continue
        if loaded(_app_id(file)) == fingerprint:
            advance(file.size)
        else:
            new[file] = fingerprint
    uploads = run.engine.upload_files(upload, landing, source, list(new), advance) if new else []
    for (file, fingerprint), uploaded in zip(new.items(), uploads, strict=True):
        try:
            if isinstance(uploaded, UnreadableFileError):
                raise uploaded
            if landing.fingerprint(file) != fingerprint:
                raise UnreadableFileError("the file changed while it was read; the next run takes it as it is then")
        except UnreadableFileError as error:
            refuse(file, fingerprint, error)
            continue
        if uploaded.broken_files:
            quarantine(lake, source, _app_id(file), fingerprint, lambda files=uploaded.broken_files: files)
        table = _commit(bronze, table, source, file, fingerprint, uploaded)
        counts.read += uploaded.read
        counts.added += uploaded.rows
        counts.quarantined += uploaded.broken
    counts.version = table.version() if table else None
    return counts, refused


def quarantine(lake: Lake, source: Source, app_id: str, version: int, upload: Callable[[], list[AddAction]]) -> None:
    """Append the bad rows that `upload` puts in place to `quarantine/<table>`, once for `version` under `app_id`."""
    ref = lake.table("quarantine", source.name)
    table = ref.open()
    if progress(table, app_id) != version:
        schema = pa.schema([*_ORIGIN, *_REASON])
        commits.append(ref, table, schema, upload(), Transaction(app_id, version))


def _app_id(file: LandingFile) -> str:
    return f"landing:{file.path}"


def _commit(ref: TableRef, table, source: Source, file: LandingFile, fingerprint: int, uploaded: Uploaded):
    columns = dict.fromkeys([*source.columns, *uploaded.columns])
    schema = pa.schema([*(pa.field(name, pa.string()) for name in columns), *_ORIGIN])
    table = table or commits.create(ref, Schema.from_arrow(schema), _APPEND_ONLY)
    return commits.append(ref, table, schema, uploaded.files, Transaction(_app_id(file), fingerprint))


def upload(lake: Lake, landing: Landing, source: Source, file: LandingFile, advance: Callable[[int], None]) -> Uploaded:
    """Put a file's rows into the table's folder, the good and the broken ones, for a commit to name."""
    now = datetime.now(UTC)
    whole = Uploaded()
    seen = 0
    with landing.open(file) as stream, ThreadPoolExecutor(_WORKERS) as pool:
        parts = (partial(_upload_part, lake, file, source, part, now) for part in read(stream, file, source))
        for part, size in _in_order(pool, parts):
            for name in ("read", "rows", "broken", "files", "broken_files"):
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            whole.columns |= part.columns
            refuse_too_many(whole.columns)
            size = min(size, file.size - seen)  # what was gzipped is longer than the file
            seen += size
            advance(size)
    advance(file.size - seen)
    if whole.read != whole.rows + whole.broken:
        raise AssertionError(f"{file.path}: {whole.read} rows read, {whole.rows} good, {whole.broken} quarantined")
    return whole


def _upload_part(lake: Lake, file: LandingFile, source: Source, parse: Part, now: datetime) -> tuple[Uploaded, int]:
    part, size = Uploaded(), 0
    for block in parse():
        size += block.size
        part.read += block.read
        part.rows += len(block.rows)
        part.broken += len(block.broken)
        part.columns |= dict.fromkeys(name for name in block.rows.column_names if name != LINE)
        refuse_too_many(part.columns)
        if len(block.rows):
            lines = block.rows[LINE]
            stats = {
                "_batch": (file.batch, file.batch),
                "_source_file": (file.path, file.path),
                LINE: (lines[0].as_py(), lines[-1].as_py()),
            }
            rows = _with_origin(block.rows, file, now)
            part.files.append(commits.put_parquet(lake.table("bronze", source.name), rows, stats))
        if block.broken:
            part.broken_files.append(_put_broken(lake, file, source, block.broken, now))
        block = rows = None  # the next one needs its memory
    return part, size


def _put_broken(lake: Lake, file: LandingFile, source: Source, broken: list[tuple], now: datetime) -> AddAction:
    lines, raw, reasons = (list(values) for values in zip(*broken, strict=True))
    rows = text_table({"raw": raw, "reason": reasons}, lines)
    rows = _with_origin(rows, file, now).append_column("layer", _constant("bronze", len(rows)))
    return commits.put_parquet(lake.table("quarantine", source.name), rows, {})


def _with_origin(rows: pa.Table, file: LandingFile, now: datetime) -> pa.Table:
    micros = np.full(len(rows), int(now.timestamp() * 1_000_000), np.int64)
    kind = pa.timestamp("us", "UTC")
    return (
        rows.append_column("_batch", _constant(file.batch, len(rows)))
        .append_column("_source_file", _constant(file.path, len(rows)))
        .append_column("_ingested_at", pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(micros)]))
    )


def _constant(value: str, rows: int) -> pa.Array:
    """A column of `value`, as one word and so many references to it."""
    references = pa.Array.from_buffers(pa.int32(), rows, [None, pa.py_buffer(bytes(4 * rows))])
    return pa.DictionaryArray.from_arrays(references, text_table({"word": [value]}, [0])["word"].chunk(0))


def _in_order(pool: ThreadPoolExecutor, tasks: Iterator[Callable]) -> Iterator:
    """Results of `tasks`, begun only so far ahead that the pool is busy: more would only fill memory."""
    pending: deque[Future] = deque()
    for task in tasks:
        pending.append(pool.submit(task))
        if len(pending) > _WORKERS:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
