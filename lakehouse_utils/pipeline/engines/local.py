"""The engine for one machine: DuckDB computes and delta-rs writes, both in this process."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction
from duckdb import DuckDBPyConnection

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.lake import Lake, TableRef, compatibility
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import commits, sorted_files
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.engines import memory
from lakehouse_utils.pipeline.engines.protocol import (
    KeyedRows,
    MergeClause,
    MergeCounts,
    MergeTarget,
    Relation,
    UploadFile,
)
from lakehouse_utils.pipeline.landing import Landing, LandingFile
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.pipeline.sql import literal, quoted, statements

_DUCKDB_ERRORS = {
    "Out of Memory Error": duckdb.OutOfMemoryException,
    "HTTP Error": duckdb.IOException,
    "IO Error": duckdb.IOException,
}
_BATCH_ROWS = 1 << 16  # rows of one Arrow batch
# Of several engines. With a smaller limit, a single engine gets all of it.
_LEAST_BYTES_FOR_EACH = 1_000_000_000
_ENGINES = 2  # that work at the same time: while one waits for S3, the other one computes


class LocalEngine:
    """DuckDB and delta-rs."""

    name = "local"

    def __init__(self, lake: Lake, memory_shares: int = 1) -> None:
        """With `memory_shares`, the queries may use this part of the memory limit: 2 is half of it."""
        self.lake = lake
        self._memory_shares = memory_shares
        self._is_interrupted = False
        self._connection: DuckDBPyConnection | None = None
        self._is_open = False

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _db(self) -> DuckDBPyConnection:
        """The connection, opened when it is first needed: often a run has nothing to compute."""
        if self._is_interrupted:
            raise duckdb.InterruptException("This engine was interrupted.")
        if self._connection is None:
            if not self._is_open:
                raise RuntimeError("The engine is not open: use it in a `with` statement.")
            limit = self._memory_limit()
            self._connection = self.lake.duckdb(memory_limit=limit, preserve_insertion_order=False)
            # No data file of a Delta table is ever changed, so one HEAD request for each is enough.
            self._connection.execute("SET enable_http_metadata_cache = true")
            for create_function in statements("functions").values():
                self._connection.execute(create_function)
        return self._connection

    def _memory_limit(self) -> str:
        """The share of the memory limit that this engine has. Beyond it, DuckDB spills to disk."""
        return f"{memory.query_limit_bytes() // self._memory_shares}B"

    def authorize(self) -> None:
        """See Engine. The relations are kept."""
        if self._connection is not None:
            self.lake.authorize(self._connection)

    def helpers(self) -> list[Self]:
        """See Engine. One, because DuckDB uses all processors; none if half of the memory limit would be too little."""
        if memory.query_limit_bytes() < _ENGINES * _LEAST_BYTES_FOR_EACH:
            return []
        self._memory_shares = _ENGINES
        if self._connection is not None:  # a rebuild has looked into bronze
            self._connection.execute(f"SET memory_limit = '{self._memory_limit()}'")
        return [type(self)(self.lake, _ENGINES)]

    def interrupt(self) -> None:
        """See Engine."""
        self._is_interrupted = True
        if self._connection is not None:
            self._connection.interrupt()

    def lost_answer(self, error: Exception) -> None:
        """See Engine. None: DuckDB runs in this process."""

    # -- relations

    def define_files(self, name: str, uris: list[str], columns: dict[str, str]) -> Relation:
        """See Engine."""
        nulls = ", ".join(f"NULL::{sql_type} AS {quoted(column)}" for column, sql_type in columns.items())
        listed = ", ".join(map(literal, uris))
        rows = f"SELECT * FROM read_parquet([{listed}], union_by_name = true) UNION ALL BY NAME " if uris else ""
        return self.define_view(name, f"{rows}SELECT {nulls} WHERE false")

    def define_snapshot(self, name: str, table: DeltaTable) -> Relation:
        """See Engine."""
        compatibility.require(table, "duckdb")
        database = quoted(f"snapshot of {name}")
        self._db.execute(f"DETACH DATABASE IF EXISTS {database}")
        self._db.execute(f"ATTACH {literal(table.table_uri)} AS {database} (TYPE delta, VERSION {table.version()})")
        return self.define_view(name, f"FROM {database}")

    def define_rows(self, name: str, rows: pa.Table) -> Relation:
        """See Engine."""
        self._db.register(name, rows)
        return Relation(name)

    def define_view(self, name: str, sql: str) -> Relation:
        """See Engine."""
        if "." in name:
            self._db.execute(f"CREATE SCHEMA IF NOT EXISTS {name.partition('.')[0]}")
        self._db.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")
        return Relation(name)

    def materialize(self, name: str, sql: str) -> Relation:
        """See Engine. DuckDB keeps the rows in a temporary table."""
        self._db.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")
        return Relation(name)

    def drop(self, *relations: Relation) -> None:
        """See Engine."""
        for relation in relations:
            self._db.execute(f"DROP TABLE IF EXISTS {relation}")

    # -- queries

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """See Engine."""
        return self._db.sql(sql).fetchall()

    def columns(self, relation: Relation) -> list[str]:
        """See Engine."""
        return [column for column, *_ in self.query(f"DESCRIBE {relation}")]

    # -- writes

    def upload_files(
        self,
        upload: UploadFile,
        landing: Landing,
        source: Source,
        files: list[LandingFile],
        on_advance: Callable[[int], None],
    ) -> Iterator[Any | UnreadableFileError]:
        """See Engine. One file after the other; `upload` itself uses several threads."""
        for file in files:
            try:
                yield upload(self.lake, landing, source, file, on_advance)
            except UnreadableFileError as error:
                yield error

    def write_files(self, ref: TableRef, sql: str) -> list[AddAction]:
        """See Engine. One file per batch of rows."""
        batches = self._db.sql(sql).to_arrow_reader(_BATCH_ROWS)
        return [
            commits.put_parquet(ref, pa.Table.from_batches([batch]), bounds={}) for batch in batches if batch.num_rows
        ]

    def fill_table(self, ref: TableRef, table: DeltaTable | None, rows: KeyedRows, commit: CommitRecord) -> DeltaTable:
        """See Engine. The rows are sorted only once, for the files and for finding the newest of each key."""
        order = ", ".join([*map(quoted, rows.key), *([rows.newest_first] if rows.newest_first else [])])
        batches = self._db.sql(f"{rows.sql} ORDER BY {order}").to_arrow_reader(_BATCH_ROWS)
        schema = Schema.from_arrow(batches.schema)
        with translate_errors(f"write {ref.label}", self.lake):
            table = commits.table_to_fill(ref, table, schema, commit)
            streamed = _with_duckdb_errors(batches)
            newest = sorted_files.first_of_each_key(streamed, rows.key) if rows.newest_first else streamed
            files = sorted_files.write(ref, newest)
            if commit.rebuilds:
                commits.replace_files(table, files, schema, commit)
            else:
                commits.commit_files(table, files, commit)
            return table

    def merge(
        self, target: MergeTarget, source: Relation, on: str, columns: Sequence[str], clauses: Sequence[MergeClause]
    ) -> MergeCounts:
        """See Engine."""
        merger = target.table.merge(
            self._db.table(source.name).to_arrow_table(),  # not as a stream, which the next query would silently end
            on,
            source_alias="source",
            target_alias="target",
            streamed_exec=False,
            commit_properties=target.commit.properties(target.table),
            post_commithook_properties=commits.AFTER_COMMIT,
        )
        values = {quoted(name): f"source.{quoted(name)}" for name in columns}
        for clause in clauses:
            if clause.action == "update":
                merger = merger.when_matched_update(values, clause.when)
            elif clause.action == "delete":
                merger = merger.when_matched_delete(clause.when)
            else:
                merger = merger.when_not_matched_insert(values, clause.when)
        metrics = merger.execute()
        return MergeCounts(
            inserted=metrics["num_target_rows_inserted"],
            updated=metrics["num_target_rows_updated"],
            deleted=metrics["num_target_rows_deleted"],
        )


def _with_duckdb_errors(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches; an error of the query is raised as DuckDB raises it elsewhere, and not as Arrow's OSError."""
    try:
        yield from batches
    except (OSError, pa.ArrowException) as error:
        kind = str(error).partition(":")[0]
        if kind == "INTERRUPT Error":
            raise RuntimeError("Query interrupted") from error
        if kind in _DUCKDB_ERRORS:
            raise _DUCKDB_ERRORS[kind](str(error)) from error
        raise
