"""Rows into Delta tables in two steps: upload Parquet files, then add them in one commit.

A commit also records what it covers (see `build_record.py`). Therefore neither a rerun nor a restart after a
crash loses or duplicates a row. Files that were uploaded but never committed are invisible to readers, and
`vacuum(full=True)` removes them.
"""

import io
import random
import time
import uuid
from collections.abc import Sequence
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction

from lakehouse_utils.errors import DamagedTableError, GoneError
from lakehouse_utils.lake import TableRef, delta_log
from lakehouse_utils.lake.compatibility import Table
from lakehouse_utils.lake.delta_log import MissingCommitError
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import build_record, file_statistics
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.lineage import SOURCE_FILE, SOURCE_LINE
from lakehouse_utils.pipeline.log_states import LogStates

TARGET_FILE_BYTES = 8 << 20  # smaller than usual, because a MERGE rewrites whole files
_ROW_GROUP_ROWS = 1 << 18
_SAMPLE_ROWS = 4096  # examined to decide whether to use dictionary encoding for a column
_SAMPLE_ROWS_PER_VALUE = 8  # dictionary encoding is used above this
MAX_ATTEMPTS = 20  # of a commit, or of the step that makes it, if other writers commit first
# Commits from one checkpoint to the next, as in Delta's reference implementation. Opening a table reads the commits
# since the last checkpoint; delta-rs writes one at every 100th commit.
_CHECKPOINTS = {"delta.checkpointInterval": "10"}
# delta-rs does not know which commits the next run needs; `maintenance.py` does. It would also list the log each time.
AFTER_COMMIT = PostCommitHookProperties(cleanup_expired_logs=False)
_MAX_PAUSE_S = 0.1  # before the second attempt; each further pause may be longer by as much


def put_parquet(ref: TableRef, rows: pa.Table, bounds: file_statistics.Bounds) -> AddAction:
    """Upload `rows` as one Parquet file into a table's folder, for a later commit to add.

    `bounds` has the minimum and maximum of some columns, for the log; without any, the log gets none. The file itself
    has no statistics, because no reader skips data by raw text.
    """
    buffer = io.BytesIO()
    pq.write_table(
        rows,
        buffer,
        row_group_size=_ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in rows.column_names if name != SOURCE_LINE and is_repetitive(rows[name])],
        column_encoding={SOURCE_LINE: "DELTA_BINARY_PACKED"},  # consecutive numbers take almost no space
        write_statistics=False,
        store_schema=False,  # readers need no description of how Arrow held the rows in memory
    )
    size_bytes = buffer.tell()
    buffer.seek(0)
    nulls = {name: rows[name].null_count for name in rows.column_names}
    statistics = file_statistics.with_some_bounds(rows.schema, len(rows), nulls, bounds)
    return upload(ref, buffer, size_bytes, statistics)


def upload(ref: TableRef, body: IO[bytes], size_bytes: int, statistics: str) -> AddAction:
    """Upload a data file into a table's folder, for a later commit to add: see `file_statistics.py`."""
    path = f"part-{uuid.uuid4()}.parquet"
    with translate_errors(f"write to {ref.label}", ref.lake):
        ref.lake.s3.put_object(Bucket=ref.lake.bucket, Key=ref.key(path), Body=body)
    return add_action(path, size_bytes, statistics)


def add_action(path: str, size_bytes: int, statistics: str) -> AddAction:
    """The action that adds an uploaded file to a table."""
    return AddAction(path, size_bytes, {}, int(time.time() * 1000), True, statistics)


def is_repetitive(column: "pa.ChunkedArray[Any]") -> bool:
    """Whether a dictionary makes the column of a Parquet file smaller, judged by its first values."""
    if pa.types.is_dictionary(column.type):
        return True
    sample = column.slice(0, _SAMPLE_ROWS)
    distinct: int = pc.count_distinct(sample).as_py()
    return distinct < len(sample) / _SAMPLE_ROWS_PER_VALUE


def append(logs: LogStates, ref: TableRef, schema: pa.Schema, files: list[AddAction], commit: CommitRecord) -> None:
    """Commit uploaded `files` to a table unless its log already has the first of the commit's transactions.

    The table is created if it does not exist, and gets the columns of `schema` that it lacks.

    Raises CommitFailedError if the step has to be repeated from the start: another program restored the table or
    committed after the commit's `read_version`, or other writers committed first in every attempt.
    """
    table = logs.open(ref) or create(ref, Schema.from_arrow(schema))
    (app_id, version), read_version = commit.first, commit.read_version
    with translate_errors(f"commit to {ref.label}", ref.lake):
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                add_missing_columns(table, schema)
                # Checked as late as possible, because another writer may have committed the same transaction.
                logs.committed(ref, table)
                if logs.transactions(ref).get(app_id) != version:
                    require_not_restored(logs, ref)
                    if read_version is not None and table.version() != max(read_version, 0):
                        raise CommitFailedError(f"Another writer committed to {ref.label} first.")
                    commit_files(table, files, commit)
                    logs.committed(ref, table)
                return
            except CommitFailedError:
                is_final = read_version is not None or logs.record(ref).restored_to is not None
                if attempt == MAX_ATTEMPTS or is_final:
                    raise
                pause_after_conflict(attempt)  # the files are still good for another attempt
                table.update_incremental()


def require_not_restored(logs: LogStates, ref: TableRef) -> None:
    """Raise CommitFailedError if another program has restored a table since `transactions_after_restores`.

    A commit after the RESTORE would hide it: what it took back would seem to be in the table.
    """
    if logs.record(ref).restored_to is not None:
        raise CommitFailedError(f"Another program restored {ref.label}.")


def pause_after_conflict(attempt: int) -> None:
    """Wait before the next attempt, for a random time, so that two jobs that collided do not collide again."""
    time.sleep(random.uniform(0, _MAX_PAUSE_S * attempt))  # noqa: S311 - no secret


def table_to_fill(ref: TableRef, table: DeltaTable | None, schema: Schema, commit: CommitRecord) -> DeltaTable:
    """The table for a commit that writes all rows: `table`, or a new one if it is None.

    Raises CommitFailedError if the commit does not replace the rows of `table`, and another writer filled the table
    first or created it with other columns.
    """
    if table is not None and commit.rebuilds:
        return table
    table = table or create(ref, schema)
    if not delta_log.is_empty(table):
        raise CommitFailedError(f"Another writer filled {ref.label} first.")
    if table.schema() != schema:
        raise CommitFailedError(f"Another writer created {ref.label} with other columns.")
    return table


def add_missing_columns(table: DeltaTable, schema: pa.Schema) -> None:
    """Give `table` the columns of `schema` that it lacks."""
    existing = {field.name.lower() for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(schema).fields if field.name.lower() not in existing]
    if missing:
        table.alter.add_columns([Field(f.name, f.type, nullable=True) for f in missing])
        table.update_incremental()


def create(ref: TableRef, schema: Schema, configuration: dict[str, str] | None = None) -> Table:
    """Create the table without rows, unless it exists.

    Rows are added in a later commit, because two writers that both create the table would not conflict. If another
    writer creates it at the same time, that table is returned, perhaps with other columns.
    """
    with translate_errors(f"create {ref.label}", ref.lake):
        try:
            table = Table.create(
                ref.uri,
                schema,
                mode="ignore",
                storage_options=ref.lake.storage_options,
                configuration=_CHECKPOINTS | (configuration or {}),
                commit_properties=CommitRecord({}).properties(None),
                post_commithook_properties=AFTER_COMMIT,
            )
        except CommitFailedError:
            existing = ref.open()
            if existing is None:
                raise
            return existing
        return cast("Table", table)  # `create` is a class method


def commit_files(table: DeltaTable, files: Sequence[AddAction], commit: CommitRecord) -> None:
    """Add uploaded files to a table, in one commit."""
    _write(table, files, "append", table.schema(), commit.properties(table))


def replace_files(table: DeltaTable, files: Sequence[AddAction], schema: Schema, commit: CommitRecord) -> None:
    """Put uploaded files in place of all files of a table, and give it the columns of `schema`, in one commit."""
    _write(table, files, "overwrite", schema, commit.properties(table))


def record(table: DeltaTable, commit: CommitRecord, engine_commit: int | None = None) -> None:
    """Commit the table's build record, without rows. For `engine_commit` see `CommitRecord.properties`."""
    _write(table, [], "append", table.schema(), commit.properties(table, engine_commit))


def _write(
    table: DeltaTable, files: Sequence[AddAction], mode: str, schema: Schema, properties: CommitProperties
) -> None:
    table.create_write_transaction(
        list(files), mode, schema, commit_properties=properties, post_commithook_properties=AFTER_COMMIT
    )
    table.update_incremental()


_OF_ROWS = ("landing:", "refused:", "silver.")  # the app ids whose commits add rows to bronze or quarantine
TAKEN_BACK = -1  # recorded in place of a version of a transaction whose rows a RESTORE took back


def transactions_after_restores(logs: LogStates, ref: TableRef) -> dict[str, int]:
    """The version last committed under each app id.

    The version is TAKEN_BACK for a transaction whose rows are gone because of a RESTORE. A RESTORE itself keeps the
    transactions that were committed after the version that it goes back to. So after a RESTORE by another program, this
    commits the corrected ones.
    """
    recorded = logs.transactions(ref)
    is_of_earlier_version = not any(map(build_record.is_own, recorded))
    if logs.record(ref).restored_to is None and not is_of_earlier_version:
        return recorded
    table = logs.open(ref)
    if table is None:
        return recorded
    recorded, restored_to = logs.transactions(ref), logs.record(ref).restored_to
    valid = _valid_transactions(ref, table, recorded, restored_to)
    # Also without a correction: from now on, the search for a RESTORE ends at this commit.
    record(table, CommitRecord({app_id: version for app_id, version in valid.items() if recorded[app_id] != version}))
    logs.committed(ref, table)
    return valid


def source_files(table: DeltaTable) -> set[str]:
    """The paths of the raw files that the rows of a bronze or quarantine table come from."""
    return set(pc.unique(table.to_pyarrow_table(columns=[SOURCE_FILE])[SOURCE_FILE]).to_pylist())


def _valid_transactions(
    ref: TableRef, table: DeltaTable, recorded: dict[str, int], restored_to: int | None
) -> dict[str, int]:
    if restored_to is None:
        return recorded
    try:
        restored = ref.open(restored_to)
        restored_transactions = delta_log.transactions(ref, restored)
    except (DamagedTableError, GoneError, DeltaError, MissingCommitError):
        restored, restored_transactions = None, {}
    if restored is None:  # a clean-up removed that version, but the rows say where they come from
        paths = source_files(table)
        return {
            app_id: TAKEN_BACK if app_id.startswith(_OF_ROWS) and app_id.partition(":")[2] not in paths else version
            for app_id, version in recorded.items()
        }
    restored_before = build_record.read(ref, restored).restored_to
    valid = _valid_transactions(ref, restored, restored_transactions, restored_before)
    taken_back = (app_id for app_id, version in recorded.items() if valid.get(app_id) != version)
    return recorded | {app_id: TAKEN_BACK for app_id in taken_back if not build_record.is_own(app_id)}
