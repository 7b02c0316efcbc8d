"""Views of a table for learners: its files, objects and commits, what changed between versions, what a query reads.

Each view is a small DataFrame, and none of them changes a table. The names of data files are random, so the views call
them `part 1`, `part 2` and so on: older commits first, then by partition, then by smallest values. Sizes are in whole
kB (1,000 bytes), and at least 1: the last bytes of a file differ from run to run.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from duckdb import DuckDBPyConnection

from lakehouse_utils.course import commit_text
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.compatibility import Table
from lakehouse_utils.lake.delta_log import Commit, DeltaLog, deletion_vector_path, live_add_actions
from lakehouse_utils.pipeline.sql import literal

_Row = dict[str, Any]


def files(table: DeltaTable, columns: str | Iterable[str] = ()) -> pd.DataFrame:
    """The live files, one row per file, from the log alone: what an engine knows before it opens a file.

    Columns: file ("part 1"), commit (the version that added it), one for each partition column, size_kb, rows, and
    `min <column>` and `max <column>` for each of `columns`, empty if the log has none.
    Raises LakehouseError if the table has no such column.
    """
    columns = [columns] if isinstance(columns, str) else list(columns)
    _require_columns(table, columns)
    rows = []
    for number, add in enumerate(_numbered_files(table, DeltaLog.of_table(table).commits_up_to(table.version())), 1):
        row = {"file": f"part {number}", "commit": add["commit"]}
        row |= {name: add[f"partition.{name}"] for name in table.metadata().partition_columns}
        row |= {"size_kb": commit_text.kilobytes(add["size_bytes"]), "rows": add["num_records"]}
        for name in columns:
            row |= {f"min {name}": add.get(f"min.{name}"), f"max {name}": add.get(f"max.{name}")}
        rows.append(row)
    return pd.DataFrame(rows).convert_dtypes() if rows else pd.DataFrame(columns=["file", "commit", "size_kb", "rows"])


def objects(lake: Lake, *names: str) -> pd.DataFrame:
    """The objects in the folder of the table at `lake.uri(*names)`, one row per object. Any folder can be shown.

    Columns: key (below the folder), size_kb, and state: `log`; `live`, a file of the newest version; `old`, a file of
    an older version only; or `orphan`, which no commit names.
    """
    prefix = lake.key(*names, "")
    sizes = {entry["Key"].removeprefix(prefix): entry["Size"] for entry in lake.objects(prefix)}
    table = lake.delta(*names)
    states = _ObjectStates(table, DeltaLog.of_table(table).commits_up_to(table.version())) if table else _ObjectStates()
    keys = sorted(sizes, key=lambda key: states.sort_key(key, sizes[key]))
    return pd.DataFrame(
        {
            "key": keys,
            "size_kb": [commit_text.kilobytes(sizes[key]) for key in keys],
            "state": [states.state(key) for key in keys],
        }
    )


def commits(table: DeltaTable) -> pd.DataFrame:
    """The commits up to the table's open version, one row per commit, newest last.

    Columns: version, operation, and what (what the commit did, in words). Commits whose files a clean-up of the log
    removed are missing.
    """
    log = DeltaLog.of_table(table).commits_up_to(table.version())
    rows = [(commit.version, commit.operation, commit_text.summarize(commit)) for commit in log]
    return pd.DataFrame(rows, columns=["version", "operation", "what"])


def commit(lake: Lake, *names: str, version: int = 0) -> pd.DataFrame:
    """The actions of one commit file, one row per action, in their order.

    Columns: action, and details (in words). Raises MissingCommitError if there is no such file.
    """
    part_numbers: dict[str, int] = {}
    actions = DeltaLog.of_ref(lake.table(*names)).commit(version).actions
    rows = [(action.kind, commit_text.describe(action, part_numbers)) for action in actions]
    return pd.DataFrame(rows, columns=["action", "details"])


def commit_json(lake: Lake, *names: str, version: int = 0) -> str:
    """The text of one commit file, to be printed: its JSON, indented and otherwise unchanged.

    Raises MissingCommitError if there is no such file.
    """
    actions = DeltaLog.of_ref(lake.table(*names)).commit(version).actions
    return "\n".join(json.dumps({action.kind: action.fields}, indent=2, ensure_ascii=False) for action in actions)


def changes(
    table: DeltaTable, before: int, after: int, key: str | Iterable[str], columns: Iterable[str] = ()
) -> pd.DataFrame:
    """The rows that differ between the versions `before` and `after`, one row per value of `key`.

    Columns: the columns of `key`, change (inserted, updated or deleted), and the changed columns with `old → new`.
    Without `columns`, these are all columns in which anything differs, except the pipeline's own, whose names begin
    with `_`. Reads both versions completely, so it is meant for small tables.
    Raises LakehouseError if a value of `key` occurs more than once.
    """
    key = [key] if isinstance(key, str) else list(key)
    _, old_rows = _rows_by_key(table, before, key)
    names, new_rows = _rows_by_key(table, after, key)
    compared = list(columns) or [name for name in names if not name.startswith("_") and name not in key]
    rows = []
    for values in sorted(old_rows.keys() | new_rows.keys(), key=lambda values: tuple(map(_sortable, values))):
        old, new = old_rows.get(values), new_rows.get(values)
        cells = {name: _change_of(old, new, name) for name in compared}
        if old != new and any(cells.values()):
            change = "inserted" if old is None else "deleted" if new is None else "updated"
            rows.append(dict(zip(key, values, strict=True)) | {"change": change} | cells)
    shown = [name for name in compared if columns or any(row[name] for row in rows)]
    return pd.DataFrame(rows, columns=[*key, "change", *shown])


def reads(connection: DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """What a query reads from S3, as DuckDB's own EXPLAIN ANALYZE reports it. Nothing is read from a cache.

    The keys are requests, bytes (rounded by DuckDB), ms (varies), rows (of the result), and files: "3 of
    12" if the query scans one Delta table, and "" otherwise. Only data files are counted: the Delta extension reads the
    log itself, and DuckDB does not report that.
    """
    ((is_cached,),) = connection.execute("SELECT current_setting('enable_external_file_cache')").fetchall()
    connection.execute("SET enable_external_file_cache = false")
    try:
        text = "\n".join(row[1] for row in connection.execute(f"EXPLAIN ANALYZE {sql}").fetchall())
    finally:
        connection.execute(f"SET enable_external_file_cache = {str(is_cached).lower()}")
    files_read = re.findall(r"Total Files Read:\s*(\d+)", text)
    files_live = re.findall(r"Scanning Files:\s*\d+/(\d+)", text) or files_read
    plan = text.partition("EXPLAIN_ANALYZE")[2]
    row_counts = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) rows?\b", plan)]
    (seconds,) = re.findall(r"Total Time: ([\d.]+)s", text)
    return {
        "requests": sum(int(count) for count in re.findall(r"#(?:HEAD|GET|PUT|POST|DELETE): (\d+)", text)),
        "bytes": sum(_bytes(number, unit) for number, unit in re.findall(r"\bin: ([\d.]+) (\w+)", text)),
        "files": f"{files_read[0]} of {files_live[0]}" if len(files_read) == len(files_live) == 1 else "",
        "ms": round(1000 * float(seconds)),
        "rows": row_counts[1] if len(row_counts) > 1 else 0,
    }


def readers(lake: Lake, uri: str) -> dict[str, str]:
    """What each reader of this course does with the table at `uri`: "reads", "refuses" or "only NULL".

    "only NULL" means that the reader returns rows without a single value, and no error.
    """
    import polars as pl  # only a few notebooks need it

    options = lake.storage_options

    def delta_scan() -> pa.Table:
        with lake.duckdb() as connection:
            return connection.sql(f"FROM delta_scan({literal(uri)})").to_arrow_table()

    def query_builder() -> pa.Table:
        query = QueryBuilder().register("t", DeltaTable(uri, storage_options=options))
        return pa.table(query.execute("SELECT * FROM t").read_all())

    ways: dict[str, Callable[[], pa.Table]] = {
        "delta_scan": delta_scan,
        "QueryBuilder": query_builder,
        "to_pyarrow_table": lambda: DeltaTable(uri, storage_options=options).to_pyarrow_table(),
        "scan_delta": lambda: pl.scan_delta(uri, storage_options=options).collect().to_arrow(),
    }
    return {name: _what_it_does(read) for name, read in ways.items()}


def _what_it_does(read: Callable[[], pa.Table]) -> str:
    try:
        rows = read()
    except Exception:  # noqa: BLE001 - each library has its own errors
        return "refuses"
    return "only NULL" if all(column.null_count == len(column) for column in rows.columns) else "reads"


# -- data files


def _require_columns(table: DeltaTable, columns: list[str]) -> None:
    existing = {field.name for field in table.schema().fields}
    if missing := [name for name in columns if name not in existing]:
        raise LakehouseError(
            f"The table has no column {', '.join(missing)}. Its columns are {', '.join(sorted(existing))}."
        )


def _numbered_files(table: DeltaTable, log: Iterable[Commit]) -> list[_Row]:
    """The live files' add actions, in the order of their numbers, with the `commit` that added each one."""
    added_by = {unquote(add["path"]): commit.version for commit in log for add in commit.of_kind("add")}
    adds = [add | {"commit": added_by.get(add["path"])} for add in live_add_actions(table)]

    def sort_key(add: _Row) -> tuple[Any, ...]:
        values = [value for name, value in sorted(add.items()) if name.startswith(("partition.", "min.", "max."))]
        version = -1 if add["commit"] is None else add["commit"]
        return version, [_sortable(value) for value in values], add["num_records"] or 0, add["size_bytes"]

    return sorted(adds, key=sort_key)


class _ObjectStates:
    """What the log of a table says about the objects in its folder, by their keys below the folder."""

    def __init__(self, table: DeltaTable | None = None, log: Iterable[Commit] = ()) -> None:
        log = list(log)
        numbered = _numbered_files(table, log) if table else []
        self._numbers = {add["path"]: number for number, add in enumerate(numbered)}
        self._first_named: dict[str, tuple[int, int]] = {}  # (version, size) where a commit names the object first
        self._file_of_vector: dict[str, str] = {}  # the data file whose rows a file of deletion vectors deletes
        for commit in log:
            for action in commit.actions:
                if action.kind in ("add", "remove", "cdc"):
                    self._register(commit.version, action.kind, action.fields)

    def _register(self, version: int, kind: str, file: dict[str, Any]) -> None:
        key = unquote(file["path"])
        self._first_named.setdefault(key, (version, file.get("size", 0)))
        if vector := deletion_vector_path(file):
            self._first_named.setdefault(vector, (version, 0))
            self._file_of_vector.pop(vector, None)
            if kind == "add":
                self._file_of_vector[vector] = key

    def state(self, key: str) -> str:
        if key.startswith("_delta_log/"):
            return "log"
        if key in self._numbers or self._file_of_vector.get(key) in self._numbers:
            return "live"
        return "old" if key in self._first_named else "orphan"

    def sort_key(self, key: str, size_bytes: int) -> tuple[Any, ...]:
        folder = key.rpartition("/")[0]
        if self.state(key) == "log":
            return 0, folder, key
        version, size_bytes = self._first_named.get(key, (1 << 62, size_bytes))
        return 1, folder, version, self._numbers.get(key, -1), size_bytes, key


# -- values


def _rows_by_key(table: DeltaTable, version: int, key: list[str]) -> tuple[list[str], dict[tuple[Any, ...], _Row]]:
    """The columns at a version, and its rows by their key."""
    # `load_as_version` would change the caller's handle. There is no public way to get a table's storage options.
    options = table._storage_options  # noqa: SLF001
    at_version = Table(table.table_uri, version=version, storage_options=options).to_pyarrow_table()
    rows = {tuple(row[name] for name in key): row for row in at_version.to_pylist()}
    if len(rows) < len(at_version):
        raise LakehouseError(
            f"{', '.join(key)} is not a key at version {version}: a value occurs more than once. Add columns to `key`"
            " until they identify a row."
        )
    return at_version.column_names, rows


def _change_of(old_row: Mapping[str, Any] | None, new_row: Mapping[str, Any] | None, name: str) -> str:
    if old_row is None or new_row is None:
        return _text((new_row or old_row or {}).get(name))
    old, new = _text(old_row.get(name)), _text(new_row.get(name))
    return "" if old == new else f"{old or 'NULL'} → {new or 'NULL'}"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _sortable(value: object) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    return (1, float(value)) if isinstance(value, int | float) else (2, str(value))


def _bytes(number: str, unit: str) -> int:
    factor: int = 1024 ** "bKMGT".index(unit[0])
    return round(float(number) * factor)
