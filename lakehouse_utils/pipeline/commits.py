"""Rows into Delta tables in two steps: upload Parquet files, then name them in one commit.

A commit also records how far the table has got (see `lake/delta_log.py`). So a rerun, or a restart after a crash at any
point, neither loses nor doubles a row. Files whose commit never came are garbage that no reader sees, and that
`vacuum(full=True)` removes.
"""

import io
import json
import time
import uuid

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.transaction import AddAction

from lakehouse_utils.lake import TableRef
from lakehouse_utils.lake.delta_log import progress
from lakehouse_utils.lake.s3_errors import translate_errors

TARGET_FILE_BYTES = 8 << 20  # of tables under MERGE, which rewrites whole files: smaller than usual


def transaction(app_id: str, version: int) -> CommitProperties:
    """Commit properties that record `version` under `app_id` in the log, together with the commit's rows."""
    return CommitProperties(app_transactions=[Transaction(app_id, version)])


def put_parquet(ref: TableRef, rows: pa.Table, stats: dict[str, tuple]) -> AddAction:
    """Upload `rows` as one Parquet file of a table, not committed yet.

    `stats` are (min, max) of columns, for the log. The file has no statistics of its own: nothing skips by raw text.
    """
    buffer = io.BytesIO()
    pq.write_table(
        rows,
        buffer,
        row_group_size=1 << 18,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in rows.column_names if name != "_source_line" and _is_repetitive(rows[name])],
        column_encoding={"_source_line": "DELTA_BINARY_PACKED"},  # consecutive: next to nothing
        write_statistics=False,
        store_schema=False,  # how it lay in memory concerns no reader
    )
    size = buffer.tell()
    buffer.seek(0)
    path = f"part-{uuid.uuid4()}.parquet"
    with translate_errors(f"write to {ref.label}", ref.lake):
        ref.lake.s3.put_object(Bucket=ref.lake.bucket, Key=ref.key(path), Body=buffer)
    return add_action(path, size, len(rows), stats)


def add_action(path: str, size: int, rows: int, stats: dict[str, tuple]) -> AddAction:
    """What a commit says of a file; `stats` are (min, max) of columns that have a value in every row."""
    log_stats = {
        "numRecords": rows,
        "minValues": {name: low for name, (low, _) in stats.items()},
        "maxValues": {name: high for name, (_, high) in stats.items()},
        "nullCount": dict.fromkeys(stats, 0),
    }
    return AddAction(path, size, {}, int(time.time() * 1000), True, json.dumps(log_stats, default=str))


def _is_repetitive(column: pa.ChunkedArray) -> bool:
    """Whether a dictionary makes the column smaller, by its first values."""
    first = column.slice(0, 4096)
    return pa.types.is_dictionary(column.type) or pc.count_distinct(first).as_py() < len(first) / 8


def append(
    ref: TableRef,
    table: DeltaTable | None,
    schema: pa.Schema,
    files: list[AddAction],
    app_id: str,
    app_version: int,
    configuration: dict[str, str] | None = None,
) -> DeltaTable:
    """Commit uploaded `files` to `table`, once; the table is created, or given columns it lacks, where need be."""
    with translate_errors(f"commit to {ref.label}", ref.lake):
        if table is None:
            table = create(ref, Schema.from_arrow(schema), configuration)
        existing = {field.name.lower() for field in table.schema().fields}
        missing = [field for field in Schema.from_arrow(schema).fields if field.name.lower() not in existing]
        if missing:
            table.alter.add_columns([Field(f.name, f.type, nullable=True) for f in missing])
            table.update_incremental()
        if progress(table, app_id) != app_version:  # asked last: another writer may have been faster
            commit = transaction(app_id, app_version)
            table.create_write_transaction(files, "append", table.schema(), commit_properties=commit)
            table.update_incremental()
        return table


def create(ref: TableRef, schema: Schema, configuration: dict[str, str] | None = None) -> DeltaTable:
    """The table, made without rows if it isn't there: of two writers that create one with rows, both succeed."""
    return DeltaTable.create(
        ref.uri,
        schema,
        mode="ignore",
        storage_options=ref.lake.storage_options,
        configuration=configuration,
    )


def record(table: DeltaTable, commit: CommitProperties) -> None:
    """Commit how far the table has come, and nothing else."""
    table.create_write_transaction([], "append", table.schema(), commit_properties=commit)
    table.update_incremental()
