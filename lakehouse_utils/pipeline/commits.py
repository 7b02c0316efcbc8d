"""Rows into Delta tables in two steps: upload Parquet files, then add them in one commit.

A commit also records the table's progress (see `lake/delta_log.py`). Therefore neither a rerun nor a restart after a
crash loses or duplicates a row. Files that were uploaded but never committed are invisible to readers, and
`vacuum(full=True)` removes them.
"""

import io
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.transaction import AddAction

from lakehouse_utils.lake import TableRef
from lakehouse_utils.lake.delta_log import progress
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline.lineage import SOURCE_LINE

TARGET_FILE_BYTES = 8 << 20  # smaller than usual, because a MERGE rewrites whole files
_ROW_GROUP_ROWS = 1 << 18
_SAMPLE_ROWS = 4096  # examined to decide whether to use dictionary encoding for a column
_SAMPLE_ROWS_PER_VALUE = 8  # dictionary encoding is used above this

Statistics = dict[str, tuple[Any, Any]]  # minimum and maximum, by column


def put_parquet(ref: TableRef, rows: pa.Table, stats: Statistics) -> AddAction:
    """Upload `rows` as one Parquet file into a table's folder, for a later commit to add.

    `stats` has the minimum and maximum of some columns, for the log. The file itself has no statistics, because no
    reader skips data by raw text.
    """
    buffer = io.BytesIO()
    pq.write_table(
        rows,
        buffer,
        row_group_size=_ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in rows.column_names if name != SOURCE_LINE and _is_repetitive(rows[name])],
        column_encoding={SOURCE_LINE: "DELTA_BINARY_PACKED"},  # consecutive numbers take almost no space
        write_statistics=False,
        store_schema=False,  # readers need no description of how Arrow held the rows in memory
    )
    size_bytes = buffer.tell()
    buffer.seek(0)
    path = f"part-{uuid.uuid4()}.parquet"
    with translate_errors(f"write to {ref.label}", ref.lake):
        ref.lake.s3.put_object(Bucket=ref.lake.bucket, Key=ref.key(path), Body=buffer)
    return add_action(path, size_bytes, len(rows), stats)


def add_action(path: str, size_bytes: int, rows: int, stats: Statistics) -> AddAction:
    """The action that adds a file to a table. `stats` has only columns without missing values in this file."""
    log_stats = {
        "numRecords": rows,
        "minValues": {name: minimum for name, (minimum, _) in stats.items()},
        "maxValues": {name: maximum for name, (_, maximum) in stats.items()},
        "nullCount": dict.fromkeys(stats, 0),
    }
    modified_ms = int(time.time() * 1000)
    return AddAction(path, size_bytes, {}, modified_ms, True, json.dumps(log_stats, default=str))


def _is_repetitive(column: "pa.ChunkedArray[Any]") -> bool:
    """Whether a dictionary makes the column smaller, judged by its first values."""
    if pa.types.is_dictionary(column.type):
        return True
    sample = column.slice(0, _SAMPLE_ROWS)
    distinct: int = pc.count_distinct(sample).as_py()
    return distinct < len(sample) / _SAMPLE_ROWS_PER_VALUE


def append(
    ref: TableRef,
    table: DeltaTable | None,
    schema: pa.Schema,
    files: list[AddAction],
    transaction: Transaction,
    *more_transactions: Transaction,
) -> DeltaTable:
    """Commit uploaded `files` to `table` unless its log already has this `transaction`.

    `more_transactions` are recorded in the same commit. The table is created if it is None, and gets the columns of
    `schema` that it lacks.
    """
    table = table or create(ref, Schema.from_arrow(schema))
    with translate_errors(f"commit to {ref.label}", ref.lake):
        add_missing_columns(table, schema)
        # Checked as late as possible, because another writer may have committed the same transaction.
        if progress(table, transaction.app_id) != transaction.version:
            commit_files(table, files, CommitProperties(app_transactions=[transaction, *more_transactions]))
        return table


def add_missing_columns(table: DeltaTable, schema: pa.Schema) -> None:
    """Give `table` the columns of `schema` that it lacks."""
    existing = {field.name.lower() for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(schema).fields if field.name.lower() not in existing]
    if missing:
        table.alter.add_columns([Field(f.name, f.type, nullable=True) for f in missing])
        table.update_incremental()


def create(ref: TableRef, schema: Schema, configuration: dict[str, str] | None = None) -> DeltaTable:
    """Create the table without rows unless it exists: if two writers created it with rows, both would succeed."""
    with translate_errors(f"create {ref.label}", ref.lake):
        return DeltaTable.create(
            ref.uri,
            schema,
            mode="ignore",
            storage_options=ref.lake.storage_options,
            configuration=configuration,
        )


def commit_files(table: DeltaTable, files: Sequence[AddAction], commit: CommitProperties) -> None:
    """Add uploaded files to a table, in one commit."""
    table.create_write_transaction(list(files), "append", table.schema(), commit_properties=commit)
    table.update_incremental()


def record(table: DeltaTable, commit: CommitProperties) -> None:
    """Commit the table's progress, without rows."""
    commit_files(table, [], commit)
