"""Landing to bronze: every row as it came, as text, with the batch, file and line that it came from.

A file is one commit, which also records the file and its fingerprint. Lines that don't parse go to quarantine, in a
commit of the same kind just before. So a file is in bronze whole or not at all, once, however often this runs.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
from deltalake.transaction import AddAction

from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import delta
from lakehouse_utils.pipeline.delta import Counts
from lakehouse_utils.pipeline.landing import LINE, Block, Landing, LandingFile, UnreadableFile, read
from lakehouse_utils.pipeline.sources import Source

_TIMESTAMP = pa.timestamp("us", "UTC")
_ORIGIN = [
    pa.field("_batch", pa.string()),
    pa.field("_source_file", pa.string()),
    pa.field("_source_line", pa.int64()),
    pa.field("_ingested_at", _TIMESTAMP),
]
QUARANTINE = pa.schema(
    [*_ORIGIN, pa.field("layer", pa.string()), pa.field("reason", pa.string()), pa.field("raw", pa.string())]
)
_APPEND_ONLY = {"delta.appendOnly": "true"}
_WORKERS = 2  # each holds a block; Polars uses all cores within one anyway


def load_file(
    lake: Lake, landing: Landing, file: LandingFile, source: Source, watch: Callable[[int], None] = lambda size: None
) -> Counts | None:
    """Append one raw file to `bronze/<table>`; None when this delivery of it is there already.

    `watch` is told of the bytes of rows written. Raises UnreadableFile; then nothing of the file is in bronze, and
    `refuse_file` records it.
    """
    app_id, fingerprint = f"landing:{file.path}", landing.fingerprint(file)
    table = lake.delta("bronze", source.name)
    if delta.progress(table, app_id) == fingerprint:
        return None
    now = datetime.now(UTC)
    written = _Written()
    with landing.open(file) as stream, ThreadPoolExecutor(_WORKERS) as pool:
        tasks = (lambda part=part: _write(lake, file, source, part(), now) for part in read(stream, file, source))
        for part in _in_order(pool, tasks):
            written.add(part)
            watch(part.bytes)
    if landing.fingerprint(file) != fingerprint:
        raise UnreadableFile("the file changed while it was read; the next run takes it as it is then")
    if written.rows + written.broken != written.read:
        raise AssertionError(f"{file.path}: {written.read} read, {written.rows} + {written.broken} written")

    if written.broken_files:
        quarantine(lake, source, written.broken_files, app_id, fingerprint)
    columns = dict.fromkeys([*source.columns, *written.columns])
    schema = pa.schema([*(pa.field(name, pa.string()) for name in columns), *_ORIGIN])
    table = delta.append(lake, table, "bronze", source.name, schema, written.files, app_id, fingerprint, _APPEND_ONLY)
    return Counts(written.read, written.rows, 0, written.broken, table.version())


def refuse_file(lake: Lake, file: LandingFile, source: Source, fingerprint: int, reason: str) -> None:
    """Record in quarantine, once, that a file could not be read at all."""
    action = _put_broken(lake, file, source, [(None, "", reason)], datetime.now(UTC))
    quarantine(lake, source, [action], f"refused:{file.path}", fingerprint)


def quarantine(lake: Lake, source: Source, files: list[AddAction], app_id: str, version: int) -> None:
    """Commit uploaded files of bad rows to `quarantine/<table>`, once for `version` under `app_id`."""
    table = lake.delta("quarantine", source.name)
    if delta.progress(table, app_id) != version:
        delta.append(lake, table, "quarantine", source.name, QUARANTINE, files, app_id, version)


@dataclass
class _Written:
    """Files that are uploaded and not committed yet, and what is in them."""

    read: int = 0
    rows: int = 0
    broken: int = 0
    bytes: int = 0
    files: list = field(default_factory=list)
    broken_files: list = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)

    def add(self, other: "_Written") -> None:
        self.read += other.read
        self.rows += other.rows
        self.broken += other.broken
        self.files += other.files
        self.broken_files += other.broken_files
        self.columns |= other.columns


def _write(lake: Lake, file: LandingFile, source: Source, block: Block, now: datetime) -> _Written:
    written = _Written(read=block.read, rows=len(block.rows), broken=len(block.broken))
    if len(block.rows):
        lines = block.rows[LINE]
        rows = block.rows.with_columns(**_origin(file, now))
        stats = _origin_stats(file, lines[0], lines[-1])
        written.files.append(delta.put_parquet(lake, "bronze", source.name, rows, stats))
        written.columns = dict.fromkeys(name for name in block.rows.columns if name != LINE)
        written.bytes = block.rows.estimated_size()
    if block.broken:
        written.broken_files.append(_put_broken(lake, file, source, block.broken, now))
    return written


def _put_broken(lake: Lake, file: LandingFile, source: Source, broken: list[tuple], now: datetime):
    schema = {LINE: pl.Int64, "raw": pl.String, "reason": pl.String}
    rows = pl.DataFrame(broken, schema=schema, orient="row").with_columns(**_origin(file, now), layer=pl.lit("bronze"))
    return delta.put_parquet(lake, "quarantine", source.name, rows, {})


def _origin(file: LandingFile, now: datetime) -> dict[str, pl.Expr]:
    return {
        "_batch": pl.lit(file.batch),
        "_source_file": pl.lit(file.path),
        "_ingested_at": pl.lit(now).cast(pl.Datetime("us", "UTC")),
    }


def _origin_stats(file: LandingFile, first: int, last: int) -> dict[str, tuple]:
    return {"_batch": (file.batch, file.batch), "_source_file": (file.path, file.path), "_source_line": (first, last)}


def _in_order(pool: ThreadPoolExecutor, tasks: Iterator[Callable]) -> Iterator:
    """Results of `tasks`, begun only so far ahead that the pool is busy: more would only fill memory."""
    pending: deque[Future] = deque()
    for task in tasks:
        pending.append(pool.submit(task))
        if len(pending) > _WORKERS:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
