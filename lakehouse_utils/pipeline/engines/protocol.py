"""What the pipeline needs from an engine. `local.py` is DuckDB and delta-rs, `spark.py` is Spark Connect.

The pipeline handles the layers, the order of the steps and the tables' logs; an engine handles rows. It reads files and
table versions as relations, runs the SQL of `sql/` (in DuckDB's dialect) on them, and writes the results. An engine
must provide the functions of `sql/functions.sql`, and translate functions that have other names in its dialect.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from lakehouse_utils.errors import LostAnswerError, UnreadableFileError
from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.landing import Landing, LandingFile
from lakehouse_utils.pipeline.sources import Source


@dataclass(frozen=True)
class Relation:
    """Rows that an engine knows by a name. Engines create relations; in SQL, a relation is formatted as its name.

    Statements take relations rather than names, so that none can be built before its inputs are defined.
    """

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class KeyedRows:
    """All rows of a table: `sql` is a SELECT without ORDER BY, and `key` identifies its rows.

    With `newest_first`, the terms of an ORDER BY, only the first row of each key in this order counts; otherwise each
    key must occur only once.
    """

    sql: str
    key: Sequence[str]
    newest_first: str = ""


@dataclass(frozen=True)
class MergeTarget:
    """A table to merge into, the key that identifies its rows, and what the commit records.

    The table is sorted by the key's first column.
    """

    table: DeltaTable
    key: Sequence[str]
    commit: CommitRecord

    @property
    def columns(self) -> list[str]:
        """The names of the table's columns."""
        return [field.name for field in self.table.schema().fields]


@dataclass(frozen=True)
class MergeClause:
    """One action of a MERGE: update and delete apply to keys that are in the table, insert to keys that are not.

    `when` is an additional condition in SQL, in which the two sides are called `source` and `target`.
    """

    action: Literal["update", "delete", "insert"]
    when: str | None = None


@dataclass(frozen=True)
class MergeCounts:
    """Numbers of rows that a MERGE inserted, updated and deleted."""

    inserted: int
    updated: int
    deleted: int


# What uploads one raw file: (lake, landing, source, file, on_advance) -> bronze.Uploaded. Spark runs it in its workers.
UploadFile = Callable[[Lake, Landing, Source, LandingFile, Callable[[int], None]], Any]


class Engine(Protocol):
    """The engine of one run, used as a context manager.

    Relations are private to the engine: they hide tables of the same name in other runs and sessions. A relation
    exists until the engine is closed, until its name is defined again, or until `authorize` is called.
    """

    @property
    def name(self) -> str:
        """The engine's name on the command line and in reports."""

    def helpers(self) -> list[Self]:
        """More engines for the same lake, not yet opened, that may work in parallel, each in its own thread.

        They share this engine's memory limit. An empty list if one engine makes full use of the machine or the server.
        """

    def interrupt(self) -> None:
        """End the query that another thread is running in this engine, with an error, and refuse further ones."""

    def lost_answer(self, error: Exception) -> LostAnswerError | None:
        """The error for a query whose outcome is unknown; None for all other errors.

        The connection broke before its answer arrived, so the step must find out in the tables' logs what was done.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def authorize(self) -> None:
        """Use the lake's current credentials from now on. Relations that were defined before may be gone."""

    # -- relations

    def define_files(self, name: str, uris: list[str], columns: dict[str, str]) -> Relation:
        """The rows of these Parquet files, with the columns of all of them.

        `columns` are names and SQL types of columns that the relation always has; they are NULL if no file has them.
        """

    def define_snapshot(self, name: str, table: DeltaTable) -> Relation:
        """The rows of this version of a Delta table. Raises IncompatibleReaderError if the engine would misread it."""

    def define_rows(self, name: str, rows: pa.Table) -> Relation:
        """The rows of a small Arrow table."""

    def define_view(self, name: str, sql: str) -> Relation:
        """The result of `sql`, computed each time it is used."""

    def materialize(self, name: str, sql: str) -> Relation:
        """The result of `sql`, for more than one use: computed now if the engine can store it.

        Otherwise it is computed each time it is used, also while a MERGE reads it, so `sql` must be deterministic.
        """

    def drop(self, *relations: Relation) -> None:
        """Free the memory of materialized relations."""

    # -- queries

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""

    def columns(self, relation: Relation) -> list[str]:
        """The names of a relation's columns."""

    # -- writes

    def upload_files(
        self,
        upload: UploadFile,
        landing: Landing,
        source: Source,
        files: list[LandingFile],
        on_advance: Callable[[int], None],
    ) -> Iterator[Any | UnreadableFileError]:
        """Call `upload` for each file and return the results in the files' order.

        `on_advance` receives the number of bytes that have been processed since the last call. An UnreadableFileError
        is returned as the file's result; other exceptions are raised.
        """

    def write_files(self, ref: TableRef, sql: str) -> list[AddAction]:
        """Write the result of `sql` as Parquet files into a table's folder, for a commit to add."""

    def fill_table(self, ref: TableRef, table: DeltaTable | None, rows: KeyedRows, commit: CommitRecord) -> DeltaTable:
        """Write rows into a table that is empty or does not exist yet (None), in one commit.

        If the commit rebuilds the table, the new rows and columns replace those of the table, which need not be empty.
        The rows are sorted by their key, so that each file holds a range of keys. Raises CommitFailedError if another
        writer filled the table first, or created it with other columns.
        """

    def merge(
        self, target: MergeTarget, source: Relation, on: str, columns: Sequence[str], clauses: Sequence[MergeClause]
    ) -> MergeCounts:
        """MERGE the rows of `source` into a table; an update or insert takes `columns` from the source.

        `on` is the condition for a match; SQL calls the two sides `source` and `target`. What the target's `commit`
        records is in the commit of the rows, or in one right after it. Raises CommitFailedError if another writer
        committed first.
        """


def count_rows(engine: Engine, relation: Relation) -> int:
    """The number of rows of a relation."""
    return int(engine.query(f"SELECT count(*) FROM {relation}")[0][0])
