"""The engine of many machines: a Spark Connect server computes, and writes what it has computed.

Which server doesn't matter: Sail, which pip installs and which is started here when no address is given, Apache Spark,
EMR, Databricks. Appends are Parquet files that the server writes and this process commits, as Spark's own tasks and
driver share that work. A MERGE is the server's own; how far the table has come is committed after it, for not every
server takes an application transaction: when a job dies in between, the next one merges the same rows again, and finds
nothing to change.
"""

import pickle
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import cache, partial
from typing import Any, Self

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from lakehouse_utils.errors import LakehouseError, UnreadableFileError
from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.delta_log import is_empty
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import commits
from lakehouse_utils.pipeline.engines.dialect import flat, to_spark
from lakehouse_utils.pipeline.engines.protocol import MergeClause, MergeCounts
from lakehouse_utils.pipeline.landing import Landing, LandingFile
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.pipeline.sql import quoted
from lakehouse_utils.spark.sail import MEMORY_ADVICE, Sail
from lakehouse_utils.spark.session import (
    check_address,
    connect_error,
    open_session,
    redact_address,
    short_retry_policies,
)

_ROWS_OF_A_FILE = 1 << 19  # a MERGE rewrites whole files: smaller than usual
_LOST_A_RACE = ("Concurrent", "DELTA_CONCURRENT", "already exists", "conflict")


class Spark:
    """A session on a Spark Connect server: at `remote`, `sc://host:port`, else on a Sail of its own."""

    name = "spark"

    def __init__(self, lake: Lake, remote: str | None = None) -> None:
        self.lake, self.remote = lake, remote or None
        _refuse_odd(lake.root)
        if self.remote:
            check_address(self.remote)
        self._sail: Sail | None = None
        self.session = None

    def __enter__(self) -> Self:
        if self.remote is None:
            self._sail = Sail()
        self.authorize()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        gone = self._gone(error)
        self._close()
        if self._sail:
            self._sail.stop(timeout_s=0 if error else 5)
        if gone and isinstance(error, Exception):
            raise LakehouseError(f"{gone} Start the job again: it goes on where it has stopped.") from error
        if isinstance(error, connect_error()):
            said = " ".join(str(error).partition("JVM stacktrace:")[0].split())[:500]
            more = MEMORY_ADVICE if self._sail and "Resources exhausted" in said else ""
            raise LakehouseError(
                f"The Spark server could not do what it was asked for. {more}It says: {said}"
            ) from error

    def _gone(self, error: BaseException | None = None) -> str:
        """What to say of a server that doesn't answer any more."""
        if self._sail and (code := self._sail.exit_code()) is not None:
            why = "the system ended it, as it does when memory is short" if code == -9 else f"exit code {code}"
            return f"Sail, the Spark server of this run, is gone in the middle of its work: {why}."
        if "StatusCode.UNAVAILABLE" in str(error):
            if self._sail:
                return "Sail, the Spark server of this run, doesn't answer any more."
            return f"The Spark Connect server at {redact_address(self.remote)} doesn't answer any more."
        return ""

    def _close(self) -> None:
        if self.session is not None:
            with suppress(Exception):  # the server may be gone: then its session is, too
                if not self._gone():
                    self.session.client.set_retry_policies(short_retry_policies())
                    self.session.stop()
            self.session.client.close()
            self.session = None

    def authorize(self) -> None:
        """Sail takes credentials when it starts, so with others it is started again; a remote server has its own."""
        if self._sail and not self._sail.is_running_for(self.lake):
            self._close()
            self._sail.start(self.lake)
        if self.session is None:
            self.session = open_session(self.remote or self._sail.address)
            if self._sail:  # nothing lies between that could come back
                self.session.client.set_retry_policies(short_retry_policies())

    # -- names for rows

    def define_files(self, name: str, uris: list[str], columns: dict[str, str]) -> None:
        types = {column: f"CAST(NULL AS {kind}) AS {quoted(column)}" for column, kind in columns.items()}
        for uri in uris:
            _refuse_odd(uri)
        if not uris:
            return self.define_view(name, f"SELECT {', '.join(types.values())} WHERE false")
        self.session.read.option("mergeSchema", "true").parquet(*uris).createOrReplaceTempView("there")
        known = {column.lower() for column in self.columns("there")}
        lacking = [null for column, null in types.items() if column.lower() not in known]
        self.define_view(name, f"SELECT {', '.join(['*', *lacking])} FROM there")

    def define_snapshot(self, name: str, table: DeltaTable) -> None:
        at_version = self.session.read.format("delta").option("versionAsOf", table.version())
        at_version.load(table.table_uri.rstrip("/")).createOrReplaceTempView(flat(name))

    def define_rows(self, name: str, rows: pa.Table) -> None:
        self.session.createDataFrame(rows).createOrReplaceTempView(flat(name))

    def define_view(self, name: str, sql: str) -> None:
        self._sql(sql).createOrReplaceTempView(flat(name))

    def materialize(self, name: str, sql: str) -> None:
        self.define_view(name, sql)  # to keep rows is up to the server: not every one can

    def drop(self, *names: str) -> None:
        pass  # nothing was kept

    # -- answers

    def query(self, sql: str) -> list[tuple]:
        return [tuple(row) for row in self._sql(sql).collect()]

    def columns(self, name: str) -> list[str]:
        return self.session.table(flat(name)).columns

    def _sql(self, sql: str):
        return self.session.sql(to_spark(sql))

    # -- work

    def upload_files(
        self,
        work: Callable,
        landing: Landing,
        source: Source,
        files: list[LandingFile],
        advance: Callable[[int], None],
    ) -> Iterator[Any | UnreadableFileError]:
        """A task a file, wherever the server's workers are: they must have this package, and see the landing."""
        _refuse_odd(source.name)
        numbered = pa.table({"number": range(len(files)), "file": [pickle.dumps(file) for file in files]})
        task = partial(_upload_there, work, self.lake.root, landing.address, source)
        done = (
            self.session.createDataFrame(numbered)
            .repartition(len(files))
            .mapInArrow(task, "number long, outcome binary")
            .toLocalIterator()
        )
        waiting: dict[int, Any] = {}
        with closing(done):  # before the session is
            for number, file in enumerate(files):
                while number not in waiting:
                    finished, outcome = next(done)
                    waiting[finished] = pickle.loads(outcome)
                outcome = waiting.pop(number)
                if isinstance(outcome, Exception) and not isinstance(outcome, UnreadableFileError):
                    raise outcome
                advance(file.size)
                yield outcome

    def write_files(self, ref: TableRef, sql: str, statistics_of: str | None = None) -> list[AddAction]:
        """`statistics_of` names the column whose least and greatest values the log is told, file by file."""
        folder = f"load-{uuid.uuid4()}"
        rows = self._sql(sql).write.option("maxRecordsPerFile", _ROWS_OF_A_FILE)
        rows.parquet(f"{ref.uri}/{folder}")
        with translate_errors(f"read what was written to {ref.label}", self.lake):
            below = ref.key("")
            written = [e for e in self.lake.objects(below + folder + "/") if e["Key"].endswith(".parquet")]
            there = _file_system(self.lake)
            files = []
            for entry in written:
                footer = pq.read_metadata(f"{self.lake.bucket}/{entry['Key']}", filesystem=there)
                stats = _statistics(footer, statistics_of)
                files.append(
                    commits.add_action(entry["Key"].removeprefix(below), entry["Size"], footer.num_rows, stats)
                )
            return files

    def fill_table(
        self, ref: TableRef, table: DeltaTable | None, sql: str, key: list[str], commit: CommitProperties
    ) -> DeltaTable:
        order = ", ".join(map(quoted, key))
        schema = _nullable(self._sql(sql).limit(0).toArrow().schema)
        with translate_errors(f"write {ref.label}", self.lake):
            table = table or commits.create(ref, Schema.from_arrow(schema))
            if not is_empty(table):
                raise CommitFailedError(f"{ref.label} was filled by another writer meanwhile")
            files = self.write_files(ref, f"SELECT * FROM ({sql}) ORDER BY {order}", statistics_of=key[0])
            table.create_write_transaction(files, "append", table.schema(), commit_properties=commit)
            table.update_incremental()
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
        columns = ", ".join(map(quoted, row))
        values = ", ".join(f"source.{quoted(name)}" for name in row)
        what = {
            "update": "THEN UPDATE SET " + ", ".join(f"{quoted(name)} = source.{quoted(name)}" for name in row),
            "delete": "THEN DELETE",
            "insert": f"THEN INSERT ({columns}) VALUES ({values})",
        }
        whens = [
            f"WHEN {'NOT ' if clause.action == 'insert' else ''}MATCHED"
            f" {f'AND ({clause.when})' if clause.when else ''} {what[clause.action]}"
            for clause in clauses
        ]
        statement = to_spark(f"MERGE INTO target_table AS target USING {source} AS source ON {on} {' '.join(whens)}")
        address = table.table_uri.rstrip("/")
        before = table.version()
        try:
            self.session.sql(statement.replace("target_table", f"delta.`{address}`", 1)).collect()
        except connect_error() as error:
            if any(sign in str(error) for sign in _LOST_A_RACE):
                raise CommitFailedError(str(error).split("\n")[0]) from error
            raise
        table.update_incremental()
        merged = _merged(table, before)
        commits.record(table, commit)
        return merged


# -- in the server's workers


def _upload_there(work: Callable, root: str, address: str, source: Source, batches: Iterator) -> Iterator:
    """What `mapInArrow` runs: uploads files, and tells what came of each, errors too."""
    for batch in batches:
        for number, file in zip(*(batch.column(name).to_pylist() for name in ("number", "file")), strict=True):
            try:
                lake = _lake(root)
                outcome = work(lake, Landing(address, lake), source, pickle.loads(file), lambda size: None)
            except Exception as error:
                outcome = error
            yield pa.RecordBatch.from_pydict(
                {"number": pa.array([number], pa.int64()), "outcome": pa.array([pickle.dumps(outcome)], pa.binary())}
            )


@cache
def _lake(root: str) -> Lake:
    return Lake.open(root)


# -- what was written


def _file_system(lake: Lake) -> pyarrow.fs.S3FileSystem:
    keys, (scheme, _, host) = lake.credentials(), lake.endpoint.partition("://")
    return pyarrow.fs.S3FileSystem(
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        session_token=keys.token or None,
        region=lake.region,
        endpoint_override=host,
        scheme=scheme,
    )


def _statistics(file: pq.FileMetaData, column: str | None) -> dict[str, tuple]:
    """The least and greatest value of `column` in a file, where the file tells."""
    names = [file.schema.column(place).path for place in range(file.num_columns)]
    if column not in names:
        return {}
    found = [file.row_group(group).column(names.index(column)).statistics for group in range(file.num_row_groups)]
    if not found or not all(one is not None and one.has_min_max for one in found):
        return {}
    return {column: (min(one.min for one in found), max(one.max for one in found))}


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in schema])


def _merged(table: DeltaTable, before: int) -> MergeCounts:
    """The counts that the server's commit tells; there is none where it found nothing to do."""
    for commit in reversed(table.history(table.version() - before)):
        if commit["operation"] == "MERGE" and not commit.get("engineInfo", "").startswith("delta-rs"):
            counts = commit["operationMetrics"]
            return MergeCounts(*(int(counts[f"numTargetRows{done}"]) for done in ("Inserted", "Updated", "Deleted")))
    return MergeCounts(0, 0, 0)


def _refuse_odd(name: str) -> None:
    if odd := re.search(r"[^\w./:=+@~-]", name, re.ASCII):
        raise LakehouseError(
            f"The engine spark can't work on {name}: Spark servers encode {odd[0]!r} in addresses, each in its own way."
            " Use letters from a to z, digits, -, _ and . in names of tables and prefixes, or the engine local."
        )
