"""The engine for many machines: a Spark Connect server computes the rows and writes them.

The server is Sail, which pip installs and which is started here if no address is given, or any other Spark Connect
server. For an append, the server writes Parquet files and this process commits them, just as Spark's tasks and driver
share that work. A MERGE is run and committed by the server. The table's progress is committed after it, because not
every server accepts an application transaction: if a job dies in between, the MERGE counts as a change by another
program, and the next run computes the table from all rows of its inputs. The server reads the newest version of the
table, which the job may not have seen: if another writer changes rows beside the MERGE, the step is repeated in the
same run, also from all rows.
"""

import pickle
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from lakehouse_utils.errors import EngineError, LostAnswerError, UnreadableFileError
from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.delta_log import Commit, DeltaLog, MissingCommitError
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import commits, file_statistics
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.engines.dialect import to_spark, view_name
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
from lakehouse_utils.pipeline.sql import quoted
from lakehouse_utils.spark.sail import MEMORY_ADVICE, Sail
from lakehouse_utils.spark.session import (
    check_address,
    connect_error,
    open_session,
    redact_address,
    short_retry_policies,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.connect.session import SparkSession

_ROWS_PER_FILE = 1 << 19  # smaller than usual, because a MERGE rewrites whole files
_FEW_ROWS = 10_000  # that are sent to the server, instead of being computed again by each query that reads them
_KILLED = -9  # exit code of a process that the system killed
_STOP_S = 5.0  # how long Sail may take to stop at the end of a run


class SparkEngine:
    """A session on a Spark Connect server: the one at `remote` (`sc://host:port`), or a Sail server that it starts.

    Leaving the context raises EngineError if the server is gone or could not do its work.
    """

    name = "spark"

    def __init__(self, lake: Lake, remote: str | None = None) -> None:
        self.lake = lake
        self.remote = remote or None
        _refuse_encoded_characters(lake.root)
        if self.remote:
            check_address(self.remote)
        self._sail: Sail | None = None
        self._session: SparkSession | None = None

    def __enter__(self) -> Self:
        if self.remote is None:
            self._sail = Sail()
        self.authorize()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server_gone = self._describe_missing_server(error)
        self._close_session()
        if self._sail:
            self._sail.stop(timeout_s=0 if error else _STOP_S)
        if server_gone and isinstance(error, Exception):
            raise EngineError(f"{server_gone} Start the job again: it continues where it stopped.") from error
        if isinstance(error, connect_error()):
            advice = MEMORY_ADVICE if self._sail and _ran_out_of_memory(error) else ""
            raise EngineError(
                f"The Spark server could not run a query. {advice}The server says: {_summary(error)}"
            ) from error

    @property
    def session(self) -> "SparkSession":
        """The session on the server."""
        if self._session is None:
            raise RuntimeError("The engine is not open: use it in a `with` statement.")
        return self._session

    def _describe_missing_server(self, error: BaseException | None = None) -> str | None:
        """The sentence for a server that no longer runs or answers; None if there is no sign of that."""
        if self._sail and (code := self._sail.exit_code()) is not None:
            reason = "the system killed it, probably because memory ran out" if code == _KILLED else f"exit code {code}"
            return f"Sail, the Spark server of this run, stopped in the middle of its work: {reason}."
        if _is_unavailable(error):
            if self._sail:
                return "Sail, the Spark server of this run, no longer answers."
            return f"The Spark Connect server at {redact_address(self.remote or '')} no longer answers."
        return None

    def _close_session(self) -> None:
        if self._session is None:
            return
        with suppress(Exception):  # if the server is gone, so is its session
            if not self._describe_missing_server():
                self._session.client.set_retry_policies(short_retry_policies())
                self._session.stop()
        self._session.client.close()
        self._session = None

    def authorize(self) -> None:
        """See Engine. Sail takes credentials only at its start, so it is restarted; a remote server has its own."""
        if self._sail and not self._sail.is_running_for(self.lake):
            self._close_session()
            self._sail.start(self.lake)
        if self._session is None:
            self._session = open_session(self._sail.address if self._sail else self.remote or "")
            if self._sail:  # there is no network in between that could recover
                self._session.client.set_retry_policies(short_retry_policies())

    def helpers(self) -> list[Self]:
        """See Engine. None: the server spreads each query over its workers."""
        return []

    def interrupt(self) -> None:
        """See Engine. Without helpers, no other thread uses this engine."""

    def lost_answer(self, error: Exception) -> LostAnswerError | None:
        """See Engine. Spark repeats the answer on a new connection; Sail often cannot."""
        if not _is_lost_answer(error):
            return None
        server = "Sail" if self._sail else f"the Spark Connect server at {redact_address(self.remote or '')}"
        return LostAnswerError(
            f"The connection to {server} broke, and the answer to a query is lost. Start the job again: it continues"
            f" where it stopped. The server says: {_summary(error)}"
        )

    # -- relations

    def define_files(self, name: str, uris: list[str], columns: dict[str, str]) -> Relation:
        """See Engine. Raises EngineError for an address that Spark servers encode."""
        nulls = {column: f"CAST(NULL AS {sql_type}) AS {quoted(column)}" for column, sql_type in columns.items()}
        for uri in uris:
            _refuse_encoded_characters(uri)
        if not uris:
            return self.define_view(name, f"SELECT {', '.join(nulls.values())} WHERE false")
        files = self._register(f"{name}_files", self.session.read.option("mergeSchema", "true").parquet(*uris))
        present = {column.lower() for column in self.columns(files)}
        missing = [null for column, null in nulls.items() if column.lower() not in present]
        return self.define_view(name, f"SELECT {', '.join(['*', *missing])} FROM {files}")

    def define_snapshot(self, name: str, table: DeltaTable) -> Relation:
        """See Engine."""
        reader = self.session.read.format("delta").option("versionAsOf", table.version())
        return self._register(name, reader.load(table.table_uri.rstrip("/")))

    def define_rows(self, name: str, rows: pa.Table) -> Relation:
        """See Engine."""
        return self._register(name, self.session.createDataFrame(rows))

    def define_view(self, name: str, sql: str) -> Relation:
        """See Engine."""
        return self._register(name, self._frame(sql))

    def materialize(self, name: str, sql: str) -> Relation:
        """See Engine. A small result is fetched and sent back; a larger one stays a view: few servers can store it."""
        frame = self._frame(sql)
        rows = frame.limit(_FEW_ROWS + 1).toArrow()
        if len(rows) > _FEW_ROWS:
            return self._register(name, frame)
        return self._register(name, self.session.createDataFrame(rows, frame.schema))

    def drop(self, *relations: Relation) -> None:
        """See Engine. Nothing to do: no rows are stored."""

    def _register(self, name: str, frame: "DataFrame") -> Relation:
        frame.createOrReplaceTempView(view_name(name))
        return Relation(name)

    # -- queries

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """See Engine."""
        return [tuple(row) for row in self._frame(sql).collect()]

    def columns(self, relation: Relation) -> list[str]:
        """See Engine."""
        return list(self.session.table(view_name(relation.name)).columns)

    def _frame(self, sql: str) -> "DataFrame":
        """The result of a statement in DuckDB's dialect."""
        return self.session.sql(to_spark(sql))

    # -- writes

    def upload_files(
        self,
        upload: UploadFile,
        landing: Landing,
        source: Source,
        files: list[LandingFile],
        on_advance: Callable[[int], None],
    ) -> Iterator[Any | UnreadableFileError]:
        """See Engine. One task per file, in the server's workers: they need this package and access to the landing."""
        _refuse_encoded_characters(source.name)
        numbered = pa.table({"number": range(len(files)), "file": [pickle.dumps(file) for file in files]})
        task = partial(_upload_in_worker, upload, self.lake.root, landing.address, source)
        results = (
            self.session.createDataFrame(numbered)
            .repartition(len(files))
            .mapInArrow(task, "number long, result binary")
            .toLocalIterator()
        )
        finished: dict[int, Any] = {}  # by file number: tasks finish in any order
        with closing(cast("Any", results)):  # before the session is closed
            for number, file in enumerate(files):
                while number not in finished:
                    finished_number, pickled = next(results)
                    finished[finished_number] = pickle.loads(pickled)  # noqa: S301 - from our own tasks
                result = finished.pop(number)
                if isinstance(result, Exception) and not isinstance(result, UnreadableFileError):
                    raise result
                on_advance(file.size_bytes)
                yield result

    def write_files(self, ref: TableRef, sql: str, statistics_of: str | None = None) -> list[AddAction]:
        """See Engine. `statistics_of` names a column whose minimum and maximum per file are added for the log."""
        folder = f"load-{uuid.uuid4()}"
        self._frame(sql).write.option("maxRecordsPerFile", _ROWS_PER_FILE).parquet(f"{ref.uri}/{folder}")
        with translate_errors(f"read what was written to {ref.label}", self.lake):
            table_key = ref.key("")
            file_system = _file_system(self.lake)
            actions = []
            for entry in self.lake.objects(f"{table_key}{folder}/"):
                if not entry["Key"].endswith(".parquet"):
                    continue
                footer = pq.read_metadata(f"{self.lake.bucket}/{entry['Key']}", filesystem=file_system)
                path = entry["Key"].removeprefix(table_key)
                statistics = file_statistics.with_some_bounds(
                    footer.schema.to_arrow_schema(),
                    footer.num_rows,
                    _null_counts(footer),
                    _bounds(footer, statistics_of),
                )
                actions.append(commits.add_action(path, entry["Size"], statistics))
            return actions

    def fill_table(self, ref: TableRef, table: DeltaTable | None, rows: KeyedRows, commit: CommitRecord) -> DeltaTable:
        """See Engine."""
        sql, order = rows.sql, ", ".join(map(quoted, rows.key))
        if rows.newest_first:
            sql += f" QUALIFY row_number() OVER (PARTITION BY {order} ORDER BY {rows.newest_first}) = 1"
        schema = Schema.from_arrow(_nullable(self._frame(sql).limit(0).toArrow().schema))
        with translate_errors(f"write {ref.label}", self.lake):
            table = commits.table_to_fill(ref, table, schema, commit)
            files = self.write_files(ref, f"SELECT * FROM ({sql}) ORDER BY {order}", statistics_of=rows.key[0])
            if commit.rebuilds:
                commits.replace_files(table, files, schema, commit)
            else:
                commits.commit_files(table, files, commit)
            return table

    def merge(
        self, target: MergeTarget, source: Relation, on: str, columns: Sequence[str], clauses: Sequence[MergeClause]
    ) -> MergeCounts:
        """See Engine."""
        table = target.table
        version_before = table.version()
        # sqlglot does not know the table name delta.`address`, so it is inserted afterwards.
        merge = to_spark(_merge_statement("target_table", source, on, columns, clauses))
        address = table.table_uri.rstrip("/")
        try:
            answer = self.session.sql(merge.replace("target_table", f"delta.`{address}`", 1)).collect()
        except connect_error() as error:
            if _is_conflict(error):
                raise CommitFailedError(str(error).split("\n")[0]) from error
            raise
        table.update_incremental()
        commit = _merge_since(table, version_before, has_changes=not answer or answer[0][0] != 0)
        commits.record(table, target.commit, commit.version if commit else None)
        return _counts_of_merge(commit)


def _merge_statement(
    table: str, source: Relation, on: str, columns: Sequence[str], clauses: Sequence[MergeClause]
) -> str:
    names = ", ".join(map(quoted, columns))
    values = ", ".join(f"source.{quoted(name)}" for name in columns)
    actions = {
        "update": "UPDATE SET " + ", ".join(f"{quoted(name)} = source.{quoted(name)}" for name in columns),
        "delete": "DELETE",
        "insert": f"INSERT ({names}) VALUES ({values})",
    }
    when = " ".join(
        f"WHEN {'NOT ' if clause.action == 'insert' else ''}MATCHED"
        f" {f'AND ({clause.when})' if clause.when else ''} THEN {actions[clause.action]}"
        for clause in clauses
    )
    return f"MERGE INTO {table} AS target USING {source} AS source ON {on} {when}"


# -- in the server's workers


def _upload_in_worker(
    upload: UploadFile, lake_root: str, landing_address: str, source: Source, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """What `mapInArrow` runs: upload files and return each result, or the exception, as a pickle."""
    for batch in batches:
        for row in batch.to_pylist():
            result: object
            try:
                lake, file = _open_lake(lake_root), pickle.loads(row["file"])  # noqa: S301 - from this job
                result = upload(lake, Landing(landing_address, lake), source, file, _ignore_progress)
            except Exception as error:  # noqa: BLE001 - it is raised again in the job's process
                result = error
            yield pa.RecordBatch.from_pylist(
                [{"number": row["number"], "result": pickle.dumps(result)}],
                pa.schema([pa.field("number", pa.int64()), pa.field("result", pa.binary())]),
            )


def _ignore_progress(size_bytes: int) -> None:
    """A worker cannot report its progress within a file."""


@cache
def _open_lake(root: str) -> Lake:
    return Lake.open(root)


# -- what the server wrote


def _file_system(lake: Lake) -> pyarrow.fs.S3FileSystem:
    keys, (scheme, _, host) = lake.credentials(), lake.endpoint.partition("://")
    return pyarrow.fs.S3FileSystem(
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        session_token=keys.token or None,
        region=lake.region,
        endpoint_override=host,
        scheme=cast("Literal['http', 'https']", scheme),
    )


def _bounds(footer: pq.FileMetaData, column: str | None) -> file_statistics.Bounds:
    """The minimum and maximum of `column` in a file; nothing if the file does not have them for every row group."""
    names = [footer.schema.column(index).path for index in range(footer.num_columns)]
    if column is None or column not in names:
        return {}
    index = names.index(column)
    ranges: list[tuple[Any, Any]] = []
    for group in range(footer.num_row_groups):
        statistics = footer.row_group(group).column(index).statistics
        if statistics is None or not statistics.has_min_max:
            return {}
        ranges.append((statistics.min, statistics.max))
    return {column: (min(low for low, _ in ranges), max(high for _, high in ranges))} if ranges else {}


def _null_counts(footer: pq.FileMetaData) -> dict[str, int]:
    """The number of missing values of each column for which the file has it."""
    counts: dict[str, int] = {}
    for index in range(footer.num_columns):
        statistics = [footer.row_group(group).column(index).statistics for group in range(footer.num_row_groups)]
        if all(entry is not None and entry.has_null_count for entry in statistics):
            counts[footer.schema.column(index).path] = sum(entry.null_count for entry in statistics)
    return counts


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in schema])


def _merge_since(table: DeltaTable, version: int, *, has_changes: bool) -> Commit | None:
    """The server's MERGE commit after `version`; None if it made none because nothing had to change.

    `has_changes` is False if the server answered that its MERGE affected no rows. Raises CommitFailedError if there is
    a commit of another writer, unless it only arranged the rows in files.
    """
    try:
        later = list(DeltaLog.of_table(table).commits(range(version + 1, table.version() + 1)))
    except MissingCommitError as error:
        raise CommitFailedError(f"The log of {table.table_uri} was cleaned up during a MERGE.") from error
    relevant = [commit for commit in later if commit.adds_rows or commit.removes_rows or commit.transactions]
    if relevant and not (has_changes and len(relevant) == 1 and _is_by_server(relevant[0])):
        raise CommitFailedError(f"Another writer changed {table.table_uri} during a MERGE.")
    return relevant[0] if relevant else None


def _is_by_server(commit: Commit) -> bool:
    return commit.operation == "MERGE" and not commit.transactions and not commit.is_by_delta_rs


def _counts_of_merge(commit: Commit | None) -> MergeCounts:
    """The counts in a MERGE commit; zeros for None."""
    if commit is None:
        return MergeCounts(0, 0, 0)
    metrics = commit.info["operationMetrics"]
    return MergeCounts(
        inserted=int(metrics["numTargetRowsInserted"]),
        updated=int(metrics["numTargetRowsUpdated"]),
        deleted=int(metrics["numTargetRowsDeleted"]),
    )


# -- errors of Spark's client, whose classes do not distinguish these cases: only their text does


def _is_conflict(error: Exception) -> bool:
    """Whether another writer's commit came first. Sail says no more than that it failed to commit."""
    signs = ("Concurrent", "DELTA_CONCURRENT", "already exists", "conflict", "Failed to commit transaction")
    return any(sign in str(error) for sign in signs)


def _is_unavailable(error: BaseException | None) -> bool:
    """Whether the server does not answer."""
    return "StatusCode.UNAVAILABLE" in str(error)


def _is_lost_answer(error: BaseException) -> bool:
    """Whether Sail refused to repeat an answer (`handle_reattach_execute` and `Executor::start` in Sail's source)."""
    signs = ("operation not found", "task context not found", "task is already running", "task is being paused")
    return isinstance(error, connect_error()) and any(sign in str(error) for sign in signs)


def _ran_out_of_memory(error: BaseException) -> bool:
    """Whether Sail's memory limit was reached."""
    return "Resources exhausted" in str(error)


def _summary(error: BaseException) -> str:
    """The text of a server error in one line, without the Java stack trace."""
    return " ".join(str(error).partition("JVM stacktrace:")[0].split())[:500]


def _refuse_encoded_characters(name: str) -> None:
    if encoded := re.search(r"[^\w./:=+@~-]", name, re.ASCII):
        raise EngineError(
            f"The spark engine does not support the character {encoded[0]!r} in {name}, because Spark servers encode it"
            " in different ways. Use only the letters a to z, digits, -, _ and . in names of tables and prefixes, or"
            " use --engine local."
        )
