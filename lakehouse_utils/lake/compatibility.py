"""Which readers return wrong rows, without an error, for Delta tables that another engine wrote.

Apache Spark can give a table features that not every reader supports. Most readers raise an error for such a table,
which is safe. A few return wrong rows instead, and this module says which ones. Ask before you read:

    compatibility.check(lake.delta("silver", "orders"), reader="duckdb")    # None, or an Incompatibility
    compatibility.require(lake.delta("silver", "orders"), reader="duckdb")  # raises IncompatibleReaderError

Both look only at the table's schema and features, which an open DeltaTable has in memory, so they send no request.
tests/lake/test_compatibility.py checks the result of each reader for each feature, and fails if a new version of a
reader changes it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from deltalake import DeltaTable, QueryBuilder

from lakehouse_utils.errors import IncompatibleReaderError, LakehouseError

Reader: TypeAlias = Literal["duckdb", "pyarrow", "polars", "query_builder", "files"]
"""The readers that are tested.

- `duckdb`: DuckDB 1.5.5, with `delta_scan` or ATTACH.
- `pyarrow`: `to_pyarrow_dataset`, `to_pyarrow_table` and `to_pandas` of deltalake 1.6.6.
- `polars`: `polars.scan_delta` and `read_delta`.
- `query_builder`: `deltalake.QueryBuilder`.
- `files`: anything that reads the table's columns from the live data files as plain Parquet files, by name, such as
  DuckDB's `read_parquet`. The files may have more columns, for example one that was dropped.
"""


@dataclass(frozen=True)
class Incompatibility:
    """Why `reader` would return wrong rows for the table at `uri`, and what to do instead."""

    reader: Reader
    uri: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{_RULES[self.reader].label} would return wrong rows for {self.uri}: {self.cause}. {self.remedy}"


def check(table: DeltaTable, reader: Reader) -> Incompatibility | None:
    """Return why `reader` would return wrong rows for `table` at its open version; None if it would not.

    None does not mean that the reader supports the table: it may still raise an error.
    Raises ValueError for a reader that is not one of `Reader`.
    """
    if reader not in get_args(Reader):
        raise ValueError(f"{reader!r} is not a known reader; the readers are {', '.join(get_args(Reader))}")
    if reader not in _RULES:
        return None
    rule = _RULES[reader]
    cause = rule.find_cause(table)
    return Incompatibility(reader, table.table_uri.rstrip("/"), cause, rule.remedy) if cause else None


def require(table: DeltaTable, reader: Reader) -> None:
    """Raise IncompatibleReaderError if `reader` would return wrong rows for `table`."""
    if problem := check(table, reader):
        raise IncompatibleReaderError(str(problem), reader=problem.reader, uri=problem.uri)


# -- what the metadata of a table says

_PHYSICAL_NAME = "delta.columnMapping.physicalName"


def physical_names(table: DeltaTable) -> dict[str, str]:
    """The columns that have a different name in the data files (column mapping), with that name.

    The statistics in the log use the names in the files.
    """
    return {field["name"]: _physical_name(field) for field in _fields(table) if _is_renamed(field)}


def has_deletion_vectors(table: DeltaTable) -> bool:
    """Whether data files of the table may contain deleted rows, which only the log marks as deleted."""
    return _has_feature(table, "deletionVectors")


def _has_feature(table: DeltaTable, name: str) -> bool:
    features = table.protocol().reader_features or []
    return bool(name in features)


def _fields(table: DeltaTable) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", json.loads(table.schema().to_json())["fields"])


def _physical_name(field: dict[str, Any]) -> str:
    return cast("str", field["metadata"].get(_PHYSICAL_NAME, field["name"]))


def _is_renamed(field: dict[str, Any]) -> bool:
    name: str = field["name"]
    return _physical_name(field) != name


def _renamed_fields(fields: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The names of columns, and of struct fields at any depth, that have a different name in the data files."""
    for field in fields:
        if _is_renamed(field):
            yield field["name"]
        yield from _renamed_fields(_struct_fields(field["type"]))


def _struct_fields(data_type: object) -> Iterator[dict[str, Any]]:
    """The fields of the structs that `data_type` contains: itself, or in an array or a map."""
    if isinstance(data_type, dict):
        yield from data_type.get("fields", [])
        for part in ("elementType", "keyType", "valueType"):
            yield from _struct_fields(data_type.get(part))


# -- what goes wrong


def _partitions_lost_by_duckdb(table: DeltaTable) -> str | None:
    """DuckDB adds each partition value after the column before it, which it looks up by its name in the table.

    Under column mapping no column in the data files has that name, and DuckDB returns NULL.
    """
    partitions = table.metadata().partition_columns
    lost, column_before_is_renamed = [], False
    for field in _fields(table):
        if field["name"] not in partitions:
            column_before_is_renamed = _is_renamed(field)
        elif column_before_is_renamed:
            lost.append(field["name"])
    if not lost:
        return None
    return f"the table uses column mapping, and DuckDB returns NULL in the partition column {', '.join(lost)}"


def _columns_lost_by_pyarrow(table: DeltaTable) -> str | None:
    """delta-rs raises an error if `columnMapping` is a named feature (reader version 3), but not in reader version 2.

    pyarrow then looks for the table's column names in the files, and returns NULL.
    """
    partitions = table.metadata().partition_columns  # their values are in the log, by the names of the table
    renamed = list(_renamed_fields(field for field in _fields(table) if field["name"] not in partitions))
    if not renamed:
        return None
    return (
        f"the table uses column mapping, so {', '.join(renamed)} has another name in the data files, where pyarrow"
        " does not find it and returns NULL"
    )


def _facts_missing_in_files(table: DeltaTable) -> str | None:
    features = {
        "deletion vectors": has_deletion_vectors(table),
        "column mapping": any(_renamed_fields(_fields(table))),
        "widened types": _has_feature(table, "typeWidening"),
        "partition columns": bool(table.metadata().partition_columns),
    }
    if not any(features.values()):
        return None
    used = ", ".join(name for name, is_used in features.items() if is_used)
    return f"the table uses {used}, so its rows are complete only together with the Delta log"


@dataclass(frozen=True)
class _Rule:
    label: str
    find_cause: Callable[[DeltaTable], str | None]
    remedy: str


_USE_ANOTHER_READER = (
    'Read it with delta-rs: QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all() returns an Arrow'
    " table, which DuckDB can query. Or remove column mapping from the table, in Spark:"
    " ALTER TABLE ... SET TBLPROPERTIES('delta.columnMapping.mode' = 'none')."
)
_REMOVE_FEATURES = (
    "Write the table without these features. In Spark, deletion vectors are removed with"
    " ALTER TABLE ... SET TBLPROPERTIES('delta.enableDeletionVectors' = false) and then"
    " ALTER TABLE ... DROP FEATURE deletionVectors, column mapping with"
    " ALTER TABLE ... SET TBLPROPERTIES('delta.columnMapping.mode' = 'none')."
)
_RULES: dict[Reader, _Rule] = {
    "duckdb": _Rule("DuckDB", _partitions_lost_by_duckdb, _USE_ANOTHER_READER),
    "pyarrow": _Rule(
        "A pyarrow dataset (also to_pyarrow_table and to_pandas)", _columns_lost_by_pyarrow, _USE_ANOTHER_READER
    ),
    "files": _Rule("A reader of the data files without the log", _facts_missing_in_files, _REMOVE_FEATURES),
}


# -- delta-rs


class Table(DeltaTable):
    """A DeltaTable that never returns wrong rows silently: `Lake.delta` opens tables as this class.

    Raises IncompatibleReaderError from `to_pyarrow_dataset`, `to_pyarrow_table` and `to_pandas` if pyarrow would
    return wrong rows.
    """

    def to_pyarrow_dataset(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - pyarrow has no annotations
        """As in DeltaTable, where `to_pyarrow_table` and `to_pandas` also call it. Raises IncompatibleReaderError."""
        require(self, "pyarrow")
        return super().to_pyarrow_dataset(*args, **kwargs)

    def count(self) -> int:
        """The number of rows. With deletion vectors the rows are counted, because the log's statistics are too high."""
        if not has_deletion_vectors(self):
            return super().count()
        (rows,) = QueryBuilder().register("t", self).execute("SELECT count(*) AS n FROM t").read_all()["n"].to_pylist()
        return cast("int", rows)

    def vacuum(self, *args: Any, **kwargs: Any) -> list[str]:
        """As in DeltaTable. Raises LakehouseError for `full=True` on a table with deletion vectors.

        delta-rs 1.6.6 treats the files of deletion vectors as files that no commit names, and deletes them.
        """
        full = kwargs.get("full") or args[5:6] == (True,)
        if full and has_deletion_vectors(self):
            raise LakehouseError(
                f"vacuum(full=True) would delete the deletion vectors of {self.table_uri.rstrip('/')}, and the table"
                " could no longer be read. Leave out `full`, or vacuum the table with Spark."
            )
        return super().vacuum(*args, **kwargs)
