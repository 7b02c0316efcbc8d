"""The engine of one machine: DuckDB computes, delta-rs writes, both in this process."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.lake import Lake, TableRef, compatibility
from lakehouse_utils.lake.delta_log import is_empty
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import commits
from lakehouse_utils.pipeline.engines.protocol import MergeClause, MergeCounts
from lakehouse_utils.pipeline.landing import Landing, LandingFile
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.pipeline.sql import literal, quoted, statements

_DUCKDB = {"memory_limit": "400MB", "preserve_insertion_order": "false"}  # what doesn't fit goes to temporary files
_ROWS = 1 << 16  # of a batch


class Local:
    """DuckDB and delta-rs."""

    name = "local"

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def __enter__(self) -> Self:
        self.db = self.lake.duckdb(**_DUCKDB)
        for create in statements("functions").values():
            self.db.execute(create)
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def authorize(self) -> None:
        self.lake.authorize(self.db)

    # -- names for rows

    def define_files(self, name: str, uris: list[str], columns: dict[str, str]) -> None:
        nothing = ", ".join(f"NULL::{kind} AS {quoted(column)}" for column, kind in columns.items())
        listed = ", ".join(map(literal, uris))
        rows = f"SELECT * FROM read_parquet([{listed}], union_by_name = true) UNION ALL BY NAME " if uris else ""
        self.define_view(name, f"{rows}SELECT {nothing} WHERE false")

    def define_snapshot(self, name: str, table: DeltaTable) -> None:
        compatibility.require(table, "duckdb")
        database = quoted(f"snapshot of {name}")
        self.db.execute(f"DETACH DATABASE IF EXISTS {database}")
        self.db.execute(f"ATTACH {literal(table.table_uri)} AS {database} (TYPE delta, VERSION {table.version()})")
        self.define_view(name, f"FROM {database}")

    def define_rows(self, name: str, rows: pa.Table) -> None:
        self.db.register(name, rows)

    def define_view(self, name: str, sql: str) -> None:
        if "." in name:
            self.db.execute(f"CREATE SCHEMA IF NOT EXISTS {name.partition('.')[0]}")
        self.db.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")

    def materialize(self, name: str, sql: str) -> None:
        self.db.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")

    def drop(self, *names: str) -> None:
        for name in names:
            self.db.execute(f"DROP TABLE IF EXISTS {name}")

    # -- answers

    def query(self, sql: str) -> list[tuple]:
        return self.db.sql(sql).fetchall()

    def columns(self, name: str) -> list[str]:
        return [column for column, *_ in self.query(f"DESCRIBE {name}")]

    # -- work

    def upload_files(
        self,
        work: Callable,
        landing: Landing,
        source: Source,
        files: list[LandingFile],
        advance: Callable[[int], None],
    ) -> Iterator[Any | UnreadableFileError]:
        for file in files:
            try:
                yield work(self.lake, landing, source, file, advance)
            except UnreadableFileError as error:
                yield error

    def write_files(self, ref: TableRef, sql: str) -> list[AddAction]:
        put = partial(commits.put_parquet, ref, stats={})
        batches = self.db.sql(sql).to_arrow_reader(_ROWS)
        return [put(rows=pa.Table.from_batches([batch])) for batch in batches if batch.num_rows]

    def fill_table(
        self, ref: TableRef, table: DeltaTable | None, sql: str, key: list[str], commit: CommitProperties
    ) -> DeltaTable:
        order = ", ".join(map(quoted, key))
        rows = self.db.sql(f"SELECT * FROM ({sql}) ORDER BY {order}").to_arrow_reader(_ROWS)
        with translate_errors(f"write {ref.label}", self.lake):
            table = table or commits.create(ref, Schema.from_arrow(rows.schema))
            if not is_empty(table):
                raise CommitFailedError(f"{ref.label} was filled by another writer meanwhile")
            small = WriterProperties(compression="SNAPPY", max_row_group_size=1 << 17)  # a group is held in memory
            write_deltalake(
                table,
                rows,
                mode="append",
                target_file_size=commits.TARGET_FILE_BYTES,
                writer_properties=small,
                commit_properties=commit,
            )
            return table

    def merge(
        self,
        table: DeltaTable,
        source: str,
        on: str,
        clauses: list[MergeClause],
        row: list[str],
        commit: CommitProperties,
    ) -> MergeCounts:
        merger = table.merge(
            self.db.table(source).to_arrow_table(),  # no stream: the next query would end it, silently
            on,
            source_alias="source",
            target_alias="target",
            streamed_exec=False,
            commit_properties=commit,
        )
        values = {quoted(name): f"source.{quoted(name)}" for name in row}
        for clause in clauses:
            if clause.action == "update":
                merger = merger.when_matched_update(values, clause.when)
            elif clause.action == "delete":
                merger = merger.when_matched_delete(clause.when)
            else:
                merger = merger.when_not_matched_insert(values, clause.when)
        metrics = merger.execute()
        return MergeCounts(*(metrics[f"num_target_rows_{done}"] for done in ("inserted", "updated", "deleted")))
