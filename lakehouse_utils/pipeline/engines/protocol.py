"""What the pipeline asks of an engine: `local.py` answers with DuckDB and delta-rs, `spark.py` with Spark Connect.

The pipeline keeps the layers, the order of work and the logs of the tables; an engine holds rows. It reads files and
snapshots under names, runs the SQL of `sql/` (written in DuckDB's dialect) over these, and writes what comes of it.
The functions of `sql/functions.sql` it must provide; those that it calls otherwise are a matter of its dialect.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.lake import TableRef
from lakehouse_utils.pipeline.landing import Landing, LandingFile
from lakehouse_utils.pipeline.sources import Source


@dataclass(frozen=True)
class MergeClause:
    """What a MERGE does with a row: update and delete where the key is in the table, insert where it isn't."""

    action: Literal["update", "delete", "insert"]
    when: str | None = None


@dataclass(frozen=True)
class MergeCounts:
    """Rows of the table that a MERGE inserted, updated and deleted."""

    inserted: int
    updated: int
    deleted: int


class Engine(Protocol):
    """One run's engine. Names that it is given are its own: they hide tables of other runs and sessions.

    They live until the engine is left, or until they are given again: whoever asks for `authorize` names all anew.
    """

    name: str

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def authorize(self) -> None:
        """Read and write with the lake's credentials of this moment. What was named before may be gone."""

    # -- names for rows

    def define_files(self, name: str, uris: list[str], columns: dict[str, str]) -> None:
        """`name`: the rows of these Parquet files, all columns of all; `columns`, with their SQL types, in any case."""

    def define_snapshot(self, name: str, table: DeltaTable) -> None:
        """`name`: the rows of this version of a Delta table."""

    def define_rows(self, name: str, rows: pa.Table) -> None:
        """`name`: these few rows."""

    def define_view(self, name: str, sql: str) -> None:
        """`name`: what `sql` says, computed where it is used."""

    def materialize(self, name: str, sql: str) -> None:
        """`name`: what `sql` says, used more than once; computed now, if the engine has a place for it.

        Else it is computed at each use, also while a MERGE from it runs: `sql` must give the same rows again.
        """

    def drop(self, *names: str) -> None:
        """Give up what was kept under these names, where there is such."""

    # -- answers

    def query(self, sql: str) -> list[tuple]:
        """The few rows of an answer."""

    def columns(self, name: str) -> list[str]:
        """The columns of `name`."""

    # -- work

    def upload_files(
        self,
        work: Callable[[Any, Landing, Source, LandingFile, Callable[[int], None]], Any],
        landing: Landing,
        source: Source,
        files: list[LandingFile],
        advance: Callable[[int], None],
    ) -> Iterator[Any | UnreadableFileError]:
        """What `work(lake, landing, source, file, advance)` makes of each file, in their order.

        `advance` is told of bytes that are dealt with. UnreadableFileError comes as a value, other errors are raised.
        """

    def write_files(self, ref: TableRef, sql: str) -> list[AddAction]:
        """Write the rows as Parquet files into a table's folder, for a commit to name."""

    def fill_table(
        self, ref: TableRef, table: DeltaTable | None, sql: str, key: list[str], commit: CommitProperties
    ) -> DeltaTable:
        """Fill an empty table, or one that isn't there, in one commit: sorted by `key`, files of key ranges."""

    def merge(
        self,
        table: DeltaTable,
        source: str,
        on: str,
        clauses: list[MergeClause],
        row: list[str],
        commit: CommitProperties,
    ) -> MergeCounts:
        """MERGE the rows named `source` into `table`; `row` are the columns that an update or insert takes over.

        SQL calls the two `source` and `target`. Raises CommitFailedError where another writer was quicker.
        """
