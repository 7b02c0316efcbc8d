"""What the layers share about Delta tables: files written first and committed once, and how far a table has come.

How far is a fact in the table's own log, committed together with the rows: an application transaction
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md#transaction-identifiers). A rerun, or a restart after a
crash at any point, reads it and neither loses nor doubles a row. Files of a commit that never came are garbage that no
reader sees, and that `vacuum(full=True)` removes.
"""

import io
import json
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from botocore.exceptions import ClientError
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.transaction import AddAction

from lakehouse_utils import readers
from lakehouse_utils.errors import explained
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline.engine import Clause, Engine, Merged
from lakehouse_utils.pipeline.sql import literal, quoted, statement

_MOST_RANGES = 50
_EXACT = ("long", "integer", "string", "date")  # the log's statistics of other types are rounded
FILE_BYTES = 8 << 20  # of tables under MERGE, which rewrites whole files: smaller than usual


@dataclass
class Counts:
    """What one step did to one table, in rows. `version` is the table's version after it."""

    read: int = 0
    added: int = 0
    changed: int = 0
    quarantined: int = 0
    version: int | None = None


def transaction(app_id: str, version: int) -> CommitProperties:
    """Commit properties that record `version` under `app_id` in the log, together with the commit's rows."""
    return CommitProperties(app_transactions=[Transaction(app_id, version)])


def progress(table: DeltaTable | None, app_id: str) -> int | None:
    """The version last committed under `app_id`; None when nothing was."""
    return None if table is None else table.transaction_version(app_id)


def progress_of_many(lake: Lake, table: DeltaTable | None, layer: str, name: str) -> Callable[[str], int | None]:
    """`progress` for asking it often: delta-rs reads the log anew each time, this reads it once."""
    if table is None:
        return {}.get
    done, first = {}, 0
    try:
        with explained(f"read the log of {layer}.{name}", lake):
            if hint := _log_file(lake, layer, name, "_last_checkpoint"):
                first = json.loads(hint)["version"] + 1
                checkpoint = _log_file(lake, layer, name, f"{first - 1:020}.checkpoint.parquet")
                if first - 1 > table.version() or checkpoint is None:  # in several parts, by another engine
                    return partial(progress, table)
                known = pq.read_table(io.BytesIO(checkpoint), columns=["txn"])["txn"].to_pylist()
                done = {entry["appId"]: entry["version"] for entry in known if entry}
            for number in range(first, table.version() + 1):
                for action in _actions(lake, layer, name, number):
                    if "txn" in action:
                        done[action["txn"]["appId"]] = action["txn"]["version"]
    except _NoSuchCommit:
        return partial(progress, table)
    return done.get


def put_parquet(lake: Lake, layer: str, table: str, rows: pa.Table, stats: dict[str, tuple]) -> AddAction:
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
    with explained(f"write to {layer}.{table}", lake):
        lake.s3.put_object(Bucket=lake.bucket, Key=lake.key(layer, table, path), Body=buffer)
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
    lake: Lake,
    delta: DeltaTable | None,
    layer: str,
    table: str,
    schema: pa.Schema,
    files: list[AddAction],
    app_id: str,
    app_version: int,
    configuration: dict[str, str] | None = None,
) -> DeltaTable:
    """Commit uploaded `files` to `delta`, once; the table is created, or given columns it lacks, where need be."""
    with explained(f"commit to {layer}.{table}", lake):
        if delta is None:
            delta = create(lake, layer, table, Schema.from_arrow(schema), configuration)
        known = {field.name.lower() for field in delta.schema().fields}
        lacking = [field for field in Schema.from_arrow(schema).fields if field.name.lower() not in known]
        if lacking:
            delta.alter.add_columns([Field(f.name, f.type, nullable=True) for f in lacking])
            delta.update_incremental()
        if progress(delta, app_id) != app_version:  # asked last: another writer may have been quicker
            commit = transaction(app_id, app_version)
            delta.create_write_transaction(files, "append", delta.schema(), commit_properties=commit)
            delta.update_incremental()
        return delta


def files(lake: Lake, delta: DeltaTable, layer: str, name: str) -> list[str]:
    """Addresses of the table's files, as DuckDB reads them: `file_uris()` writes ö as %C3%B6.

    Raises LakehouseError where the rows aren't in the files alone, as with deletion vectors.
    """
    readers.FILES.refuse(delta)
    paths = pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist()
    return [lake.uri(layer, name, path) for path in paths]


def files_added_since(lake: Lake, delta: DeltaTable, layer: str, name: str, version: int | None) -> list[str]:
    """Addresses of the files that brought new rows after `version`, as the log tells; all files for None.

    What OPTIMIZE rewrote isn't new. Where the log's older commits have been cleaned up, the answer is all files too:
    reading a row twice does no harm to a MERGE.
    """
    everything = files(lake, delta, layer, name)
    if version is None:
        return everything
    added = []
    try:
        for number in range(version + 1, delta.version() + 1):
            with explained(f"read the log of {layer}.{name}", lake):
                added += _added_by(lake, layer, name, number)
    except _NoSuchCommit:
        return everything
    there = set(everything)
    uris = [lake.uri(layer, name, path) for path in added]
    if not there.issuperset(uris):  # compacted since, and perhaps vacuumed
        return everything
    return uris


class _NoSuchCommit(Exception):
    pass


def _added_by(lake: Lake, layer: str, name: str, version: int) -> list[str]:
    actions = _actions(lake, layer, name, version)
    return [action["add"]["path"] for action in actions if "add" in action and action["add"]["dataChange"]]


def _actions(lake: Lake, layer: str, name: str, version: int) -> list[dict]:
    text = _log_file(lake, layer, name, f"{version:020}.json")
    if text is None:
        raise _NoSuchCommit
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _log_file(lake: Lake, layer: str, name: str, file: str) -> bytes | None:
    try:
        key = lake.key(layer, name, "_delta_log", file)
        return lake.s3.get_object(Bucket=lake.bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise


# -- MERGE


def is_empty(table: DeltaTable | None) -> bool:
    """Whether nothing was ever written to the table, or it isn't there."""
    return table is None or not table.file_uris()


def create(
    lake: Lake, layer: str, table: str, schema: Schema, configuration: dict[str, str] | None = None
) -> DeltaTable:
    """The table, made without rows if it isn't there: of two writers that create one with rows, both succeed."""
    return DeltaTable.create(
        lake.uri(layer, table),
        schema,
        mode="ignore",
        storage_options=lake.storage_options,
        configuration=configuration,
    )


def record(table: DeltaTable, commit: CommitProperties) -> None:
    """Commit how far the table has come, and nothing else."""
    table.create_write_transaction([], "append", table.schema(), commit_properties=commit)
    table.update_incremental()


def merge(
    engine: Engine, table: DeltaTable, key: list[str], clauses: list[Clause], row: list[str], commit: CommitProperties
) -> Merged:
    """A MERGE of the engine's rows `merging` into `table` by `key`, whose first column the table is sorted by.

    Files that hold no key of the source are skipped: the log's statistics tell which, and the predicate puts it into
    words that engines hold against the same statistics.
    """
    equal = " AND ".join(f"target.{quoted(name)} = source.{quoted(name)}" for name in key)
    return engine.merge(table, "merging", f"{equal} AND {_ranges(engine, table, key[0])}", clauses, row, commit)


def _ranges(engine: Engine, table: DeltaTable, column: str) -> str:
    actions = pa.table(table.get_add_actions(flatten=True))
    low, high = f"min.{column}", f"max.{column}"
    types = {field.name: field.type for field in table.schema().fields}
    if getattr(types[column], "type", None) not in _EXACT or low not in actions.column_names:
        return "true"
    if actions[low].null_count or actions[high].null_count:  # a file that tells nothing of itself may hold any key
        return "true"
    engine.values("files", pa.table({"path": actions["path"], "low": actions[low], "high": actions[high]}))
    ranges = engine.rows(statement("difference", "file_ranges", column=quoted(column)))
    if len(ranges) > _MOST_RANGES:
        ranges = [(min(low for low, _ in ranges), max(high for _, high in ranges))]
    name = f"target.{quoted(column)}"
    between = [f"{name} BETWEEN {literal(low)} AND {literal(high)}" for low, high in ranges]
    return f"({' OR '.join(between) or 'false'})"


def merge_difference(
    engine: Engine,
    table: DeltaTable,
    fresh: str,
    existing: str,
    key: list[str],
    commit: CommitProperties,
    uncompared: Collection[str] = (),
) -> Counts:
    """Make the rows `existing` of `table` equal to `fresh`, in one MERGE of what differs: insert, update, delete.

    Both are relations of the engine with the table's columns; a difference in `uncompared` columns alone is none.
    Where nothing differs, the commit records only how far the table has come.
    """
    columns = [field.name for field in table.schema().fields]
    compared = [name for name in columns if name not in (*key, *uncompared)]
    difference = statement(
        "difference",
        "difference",
        fresh=fresh,
        existing=existing,
        fresh_columns=", ".join(f"fresh.{quoted(name)}" for name in columns),
        existing_columns=", ".join(f"existing.{quoted(name)}" for name in columns),
        same_key=" AND ".join(f"fresh.{quoted(name)} = existing.{quoted(name)}" for name in key),
        unlike=" OR ".join(f"fresh.{quoted(n)} IS DISTINCT FROM existing.{quoted(n)}" for n in compared) or "false",
    )
    engine.keep("merging", difference)
    if not engine.rows("SELECT count(*) FROM merging")[0][0]:
        record(table, commit)
        return Counts(version=table.version())
    clauses = [
        Clause("delete", "source._change = 'delete'"),
        Clause("update", "source._change <> 'delete'"),
        Clause("insert", "source._change <> 'delete'"),
    ]
    merged = merge(engine, table, key, clauses, columns, commit)
    return Counts(added=merged.inserted, changed=merged.updated + merged.deleted, version=table.version())
