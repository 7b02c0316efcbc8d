"""Tables that another engine wrote, and the readers that give wrong rows of them without a word.

Spark writes features into a table that not every reader knows. Most readers refuse such a table; that is well. Where
one gives wrong rows instead, it is refused here, with a sentence that says what to do. `TRAPS` is all that was found;
tests/test_foreign_tables.py holds every reader's verdict on every feature, and turns red when an update changes one.
"""

import json
import uuid
from base64 import b85decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable, QueryBuilder

from lakehouse_utils.errors import LakehouseError

# -- what a log tells


def _columns(table: DeltaTable) -> list[tuple[str, str]]:
    """The table's columns in order: each one's name, and its name in the files, which column mapping tells apart."""
    fields = json.loads(table.schema().to_json())["fields"]
    return [(field["name"], field["metadata"].get(_PHYSICAL, field["name"])) for field in fields]


_PHYSICAL = "delta.columnMapping.physicalName"


def _names(type_or_field: Any) -> Iterator[tuple[str, str]]:
    """As `_columns`, and also for the fields of structs, at any depth."""
    if isinstance(type_or_field, dict):
        if "metadata" in type_or_field:
            yield type_or_field["name"], type_or_field["metadata"].get(_PHYSICAL, type_or_field["name"])
        for part in type_or_field.values():
            yield from _names(part)
    elif isinstance(type_or_field, list):
        for part in type_or_field:
            yield from _names(part)


def names_in_files(table: DeltaTable) -> dict[str, str]:
    """Of each column that is called otherwise in the files, that name: the log's statistics go by it."""
    return {name: in_files for name, in_files in _columns(table) if name != in_files}


def deleted_rows(table: DeltaTable) -> dict[str, int]:
    """How many rows of each file are deleted, by the file's path in the table."""
    if not has_deletion_vectors(table):
        return {}
    root = table.table_uri.rstrip("/") + "/"
    vectors = table.deletion_vectors().read_all()
    paths, kept = vectors["filepath"].to_pylist(), vectors["selection_vector"].to_pylist()
    return {path.removeprefix(root): rows.count(False) for path, rows in zip(paths, kept, strict=True)}


def vector_file(action: dict) -> str | None:
    """Where below the table the deletion vector of a log's action lies; None when it is in the log, or there is none.

    https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vectors
    """
    vector = action.get("deletionVector") or {}
    if vector.get("storageType") != "u":
        return None
    folder, coded = vector["pathOrInlineDv"][:-20], vector["pathOrInlineDv"][-20:]
    name = f"deletion_vector_{uuid.UUID(bytes=b85decode(coded.translate(_Z85)))}.bin"
    return f"{folder}/{name}" if folder else name


_Z85 = str.maketrans(  # ZeroMQ's letters for base 85, to Python's
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
)


def _has_feature(table: DeltaTable, name: str) -> bool:
    return name in (table.protocol().reader_features or [])


def has_deletion_vectors(table: DeltaTable) -> bool:
    """Whether files of the table may hold rows that are deleted: the log says which."""
    return _has_feature(table, "deletionVectors")


def renamed_columns(table: DeltaTable) -> list[str]:
    """Columns, and fields of structs, that are called otherwise in the files (column mapping)."""
    return [name for name, in_files in _names(json.loads(table.schema().to_json())) if name != in_files]


def _renamed_in_files(table: DeltaTable) -> list[str]:
    partitions = table.metadata().partition_columns  # their values are in the log, by the table's names
    fields = [field for field in json.loads(table.schema().to_json())["fields"] if field["name"] not in partitions]
    return [name for name, in_files in _names(fields) if name != in_files]


def _lost_partitions(table: DeltaTable) -> list[str]:
    """The partition columns that DuckDB loses.

    Partition values stand in the log. DuckDB puts them behind the column that goes before, which it looks up by its
    name in the files: under column mapping there is none of that name, and the values are NULL.
    """
    partitions = table.metadata().partition_columns
    lost, before_is_renamed = [], False
    for name, in_files in _columns(table):
        if name not in partitions:
            before_is_renamed = name != in_files
        elif before_is_renamed:
            lost.append(name)
    return lost


def _not_in_files_alone(table: DeltaTable) -> list[str]:
    """What of a table can't be told from its files, but only together with the log."""
    return (
        ["deletion vectors"] * has_deletion_vectors(table)
        + ["column mapping"] * bool(renamed_columns(table))
        + ["widened types"] * _has_feature(table, "typeWidening")
        + ["partition columns"] * bool(table.metadata().partition_columns)
    )


# -- the traps


@dataclass(frozen=True)
class Trap:
    """What a reader gets wrong without a word, as seen with `versions`."""

    reader: str
    versions: str
    catches: Callable[[DeltaTable], list[str]]  # what of the table, if any, is caught in it
    what: str
    instead: str

    def sentence(self, table: DeltaTable, uri: str) -> str | None:
        """Why the reader must not read this table, and what to do; None where it may."""
        if not (caught := self.catches(table)):
            return None
        return f"{self.reader} would read {uri} wrongly: {self.what.format(', '.join(caught))}. {self.instead}"

    def refuse(self, table: DeltaTable) -> None:
        """Raise LakehouseError where the reader would read this table wrongly."""
        if sentence := self.sentence(table, table.table_uri.rstrip("/")):
            raise LakehouseError(sentence)


_BY_DELTA_RS = (
    'delta-rs reads it rightly: QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all(), which DuckDB'
    " takes as a table."
)
_IN_SPARK = (
    "Or take column mapping off it, in Spark: ALTER TABLE ... SET TBLPROPERTIES('delta.columnMapping.mode' = 'none')."
)

DUCKDB = Trap(
    "DuckDB",
    "1.5.5",
    _lost_partitions,
    "under column mapping it gives NULL for the partition column {}",
    f"{_BY_DELTA_RS} {_IN_SPARK}",
)
ARROW = Trap(
    "A pyarrow dataset (to_pyarrow_table and to_pandas, too)",
    "deltalake 1.6.6",  # it refuses where `columnMapping` is a named feature, but not at reader version 2
    _renamed_in_files,
    "column mapping gives another name in the files to {}, and it looks for the columns by the table's names",
    f"{_BY_DELTA_RS} {_IN_SPARK}",
)
FILES = Trap(
    "A reader of the files alone",
    "whatever the reader",
    _not_in_files_alone,
    "its rows are in the files only together with the log ({})",
    "Write it without these features, in Spark: deletion vectors go with ALTER TABLE ... SET"
    " TBLPROPERTIES('delta.enableDeletionVectors' = false), then ALTER TABLE ... DROP FEATURE deletionVectors; column"
    " mapping with 'delta.columnMapping.mode' = 'none'.",
)
TRAPS = (DUCKDB, ARROW, FILES)


# -- delta-rs


class Table(DeltaTable):
    """A DeltaTable that refuses a way to read that would be wrong, or reads another way."""

    def to_pyarrow_dataset(self, *arguments: Any, **options: Any):
        """As DeltaTable's, which `to_pyarrow_table` and `to_pandas` call as well."""
        ARROW.refuse(self)
        return super().to_pyarrow_dataset(*arguments, **options)

    def count(self) -> int:
        """As DeltaTable's, from the log's statistics; where rows of files are deleted, the rows are counted."""
        if not has_deletion_vectors(self):
            return super().count()
        (rows,) = QueryBuilder().register("t", self).execute("SELECT count(*) AS n FROM t").read_all()["n"].to_pylist()
        return rows

    def vacuum(self, *arguments: Any, **options: Any) -> list[str]:
        """As DeltaTable's, but for `full`, which takes deletion vectors for files that no commit names (1.6.6)."""
        if (options.get("full") or arguments[5:6] == (True,)) and has_deletion_vectors(self):
            raise LakehouseError(
                f"vacuum(full=True) would remove the deletion vectors of {self.table_uri.rstrip('/')}, and the table"
                " could not be read any more. Leave out `full`, or vacuum the table with Spark."
            )
        return super().vacuum(*arguments, **options)
