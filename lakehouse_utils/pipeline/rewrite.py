"""Rewrites small files of a Delta table as fewer larger ones, in a commit that cannot duplicate rows.

delta-rs has `optimize.compact()`, but it commits a compaction that is based on an old version, and accepts a stale
compaction or overwrite after it (see `double_rewrites.py`). Therefore a rewrite in this module

- reads the files of one version, and commits as exactly the next version, by put-if-absent: if any other commit came
  first, it is not committed, and it is not rebased;
- repeats the table's metadata, unchanged, in its commit. Every Delta writer checks whether the metadata changed since
  the version that it read, so stale commits after it are refused, even those of programs that opened the table before;
- compares the rows of the old and the new files, with a checksum over all columns, before it commits.

delta-rs first writes the new files into a local table. So the files, and their statistics in the log, are like those of
any other write with delta-rs.
"""

import json
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
from botocore.exceptions import ClientError
from deltalake import DeltaTable, WriterProperties, write_deltalake

from lakehouse_utils import __version__
from lakehouse_utils.errors import DamagedTableError
from lakehouse_utils.interrupts import uninterrupted
from lakehouse_utils.lake import TableRef
from lakehouse_utils.lake.delta_log import Commit
from lakehouse_utils.pipeline.engines import memory
from lakehouse_utils.pipeline.sql import literal, quoted

OPERATION = "OPTIMIZE"
_ROW_GROUP_ROWS = 1 << 17
_BATCH_ROWS = 1 << 16
_PARALLEL_REQUESTS = 8
_STATISTICS_SETTINGS = ("delta.dataSkippingStatsColumns", "delta.dataSkippingNumIndexedCols")
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_PUT_ATTEMPTS, _PAUSE_S = 10, 0.2  # while S3 answers 409: another request for the same object is in progress


@dataclass(frozen=True)
class LiveFile:
    """A data file of a table: its path below the table's folder, and what the log says about it."""

    path: str
    size_bytes: int
    modified_ms: int
    min_key: Any = None  # of the first column of the sort key, if the log has it


@dataclass(frozen=True)
class Layout:
    """How the new files are written: `sort_key` is empty to keep the rows in the order of the old files."""

    target_bytes: int
    sort_key: tuple[str, ...] = ()
    compression: Literal["SNAPPY", "ZSTD"] = "SNAPPY"


@dataclass(frozen=True)
class Rewritten:
    """A commit that replaced files: its version and the ETag of its commit file, and the number of new files."""

    version: int
    etag: str
    files: int


def rewrite(ref: TableRef, table: DeltaTable, files: Sequence[LiveFile], layout: Layout) -> Rewritten | None:
    """Replace `files`, which are live in `table`, by new files with the same rows; as the next version of the table.

    Returns None if another commit came first; then nothing is left behind. Raises DamagedTableError if the new files
    would not have the same rows, and what boto3, DuckDB and delta-rs raise.
    """
    with tempfile.TemporaryDirectory(prefix="lakehouse-rewrite-") as name:
        folder = Path(name)
        old_paths = _download(ref, files, folder)
        adds = _write(ref, table, old_paths, folder, layout)
        with uninterrupted(), ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
            list(pool.map(partial(_upload, ref, folder / "new"), (add["path"] for add in adds)))
        version, marker = table.version() + 1, str(uuid.uuid4())
        commit = _commit_file(table, files, adds, layout, marker)
    etag = _put_commit(ref, version, commit, marker)
    if etag is None:
        _delete(ref, [add["path"] for add in adds])  # no commit names them, and no other program knows about them
        return None
    return Rewritten(version, etag, len(adds))


# -- rows


def _download(ref: TableRef, files: Sequence[LiveFile], folder: Path) -> list[Path]:
    lake, old = ref.lake, folder / "old"
    old.mkdir()

    def download(number: int, file: LiveFile) -> Path:
        target = old / f"{number:06}.parquet"
        body = lake.s3.get_object(Bucket=lake.bucket, Key=ref.key(file.path))["Body"]
        with target.open("wb") as opened:
            for block in body.iter_chunks(1 << 20):
                opened.write(block)
        return target

    with uninterrupted(), ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        return list(pool.map(download, range(len(files)), files))


def _write(
    ref: TableRef, table: DeltaTable, old_paths: list[Path], folder: Path, layout: Layout
) -> list[dict[str, Any]]:
    """Write the new files into the local table `folder/new`; returns their add actions."""
    temporary = folder / "spill"
    config: dict[str, Any] = {"memory_limit": f"{memory.query_limit_bytes()}B", "temp_directory": str(temporary)}
    settings = table.metadata().configuration
    # By default delta-rs has no statistics after the 32nd column, and then pyarrow finds no rows by such a column.
    configuration = {"delta.dataSkippingNumIndexedCols": "-1"}
    configuration |= {name: settings[name] for name in _STATISTICS_SETTINGS if name in settings}
    new = DeltaTable.create(str(folder / "new"), table.schema(), configuration=configuration)
    with duckdb.connect(config=config) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        connection.register("typed", pa.schema(table.schema().to_arrow()).empty_table())
        columns = ", ".join(quoted(field.name) for field in table.schema().fields)
        old_rows = _rows_of(old_paths, columns)
        order = f" ORDER BY {', '.join(map(quoted, layout.sort_key))}" if layout.sort_key else ""
        rows: pa.RecordBatchReader = connection.sql(old_rows + order).to_arrow_reader(_BATCH_ROWS)
        write_deltalake(
            new,
            rows,
            mode="append",
            target_file_size=layout.target_bytes,
            writer_properties=WriterProperties(compression=layout.compression, max_row_group_size=_ROW_GROUP_ROWS),
        )
        text = (folder / "new" / "_delta_log" / f"{1:020}.json").read_bytes()
        adds = Commit.parse(1, text).of_kind("add")
        new_rows = _rows_of([folder / "new" / add["path"] for add in adds], columns)
        before, after = (_checksum(connection, rows, columns) for rows in (old_rows, new_rows))
    if before != after:
        raise DamagedTableError(
            f"{ref.label} was not compacted, because the new files do not contain the same rows as the old ones"
            f" ({before[0]:,} rows before, {after[0]:,} after). The table is unchanged.",
            table=ref.label,
        )
    return adds


def _rows_of(paths: list[Path], columns: str) -> str:
    """SQL for the rows of Parquet files, in their order, with the columns and types of the table."""
    listed = ", ".join(literal(str(path)) for path in paths)
    files = f" UNION ALL BY NAME FROM read_parquet([{listed}], union_by_name = true)" if paths else ""
    return f"SELECT {columns} FROM (FROM typed{files})"


def _checksum(connection: duckdb.DuckDBPyConnection, rows: str, columns: str) -> tuple[int, int]:
    """The number of rows, and a sum over their hashes that does not depend on their order."""
    result = connection.execute(f"SELECT count(*), coalesce(sum(hash({columns})::HUGEINT), 0) FROM ({rows})").fetchone()
    if result is None:
        raise AssertionError("an aggregate returns one row")
    count, checksum = result
    return int(count), int(checksum)


# -- objects


def _upload(ref: TableRef, folder: Path, path: str) -> None:
    lake = ref.lake
    with (folder / path).open("rb") as body:
        lake.s3.put_object(Bucket=lake.bucket, Key=ref.key(path), Body=body)


def _delete(ref: TableRef, paths: list[str]) -> None:
    for path in paths:
        ref.lake.s3.delete_object(Bucket=ref.lake.bucket, Key=ref.key(path))


def _put_commit(ref: TableRef, version: int, content: bytes, marker: str) -> str | None:
    """Write a commit file unless it exists; returns its ETag, or None if another program has written this version."""
    lake, key = ref.lake, ref.key("_delta_log", f"{version:020}.json")
    attempt = 1
    while True:
        try:
            return lake.s3.put_object(Bucket=lake.bucket, Key=key, Body=content, IfNoneMatch="*")["ETag"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in _REFUSED:
                raise
            refused = error
        # The client repeats a request whose answer was lost. If the first one succeeded, or still does, the second one
        # is refused. So only a commit that can be read says who was first.
        try:
            answer = lake.s3.get_object(Bucket=lake.bucket, Key=key)
            return answer["ETag"] if marker.encode() in answer["Body"].read() else None
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                raise
            if attempt == _PUT_ATTEMPTS:
                raise refused from error
        time.sleep(_PAUSE_S)
        attempt += 1


# -- the commit: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#actions


def _commit_file(
    table: DeltaTable, files: Sequence[LiveFile], adds: list[dict[str, Any]], layout: Layout, marker: str
) -> bytes:
    now_ms, metadata = int(time.time() * 1000), table.metadata()
    info = {
        "timestamp": now_ms,
        "operation": OPERATION,
        "operationParameters": {"targetSize": str(layout.target_bytes), "predicate": "[]"},
        "operationMetrics": {
            "numRemovedFiles": str(len(files)),
            "numAddedFiles": str(len(adds)),
            "numRemovedBytes": str(sum(file.size_bytes for file in files)),
            "numAddedBytes": str(sum(add["size"] for add in adds)),
        },
        "readVersion": table.version(),
        "isBlindAppend": False,
        "engineInfo": f"lakehouse_utils:{__version__}",
        "txnId": marker,
    }
    unchanged_metadata = {
        "id": metadata.id,
        "name": metadata.name,
        "description": metadata.description,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": table.schema().to_json(),
        "partitionColumns": metadata.partition_columns,
        "configuration": metadata.configuration,
        "createdTime": metadata.created_time,
    }
    actions: list[dict[str, Any]] = [{"commitInfo": info}, {"metaData": unchanged_metadata}]
    for file in files:
        remove = {
            "path": file.path,
            "deletionTimestamp": now_ms,
            "dataChange": False,
            "extendedFileMetadata": True,
            "partitionValues": {},
            "size": file.size_bytes,
        }
        actions.append({"remove": remove})
    for add in adds:
        kept = {name: add[name] for name in ("path", "partitionValues", "size", "modificationTime", "stats")}
        actions.append({"add": kept | {"dataChange": False}})
    return "".join(json.dumps(action, separators=(",", ":"), ensure_ascii=False) + "\n" for action in actions).encode()
