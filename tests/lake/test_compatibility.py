"""Tables that Apache Spark wrote with its own features of Delta: which reader reads which table correctly.

Wrong rows without an error are the worst result. The matrix holds the result of every reader for every table, so that
a new version of a reader that changes one fails here; `compatibility` must know each wrong one. The tables were made by
tests/lake/foreign_tables/make.py, and the correct rows are Spark's own answers.
"""

import json
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, QueryBuilder
from duckdb import DuckDBPyConnection
from support.s3_gateway import Gateway

from lakehouse_utils.course import figures, views
from lakehouse_utils.errors import IncompatibleReaderError, LakehouseError
from lakehouse_utils.lake import Lake, compatibility
from lakehouse_utils.lake.delta_log import live_files

TABLES = Path(__file__).parent / "foreign_tables"
EXPECTED = json.loads((TABLES / "expected.json").read_text(encoding="utf-8"))
RIGHT, RAISES, WRONG = "right", "raises an error", "WRONG"
R, N, W = RIGHT, RAISES, WRONG  # for the matrix


class Results(NamedTuple):
    """What each reader makes of one table: right rows, an error, or wrong rows."""

    duckdb: str  # delta_scan, and ATTACH with each of its options
    query_builder: str
    pyarrow: str  # to_pyarrow_dataset, to_pyarrow_table and to_pandas
    count: str  # DeltaTable.count
    polars: str


RESULTS = {
    "plain": Results(R, R, R, R, R),
    "partition_values": Results(R, R, R, R, N),
    "vectors_none_yet": Results(R, R, N, R, R),
    "vectors_delete": Results(R, R, N, W, R),
    "vectors_delete_twice": Results(R, R, N, W, R),
    "vectors_update": Results(R, R, N, W, R),
    "vectors_merge": Results(R, R, N, W, R),
    "vectors_whole_file": Results(R, R, N, W, R),
    "vectors_whole_file_in_steps": Results(R, R, N, R, R),
    "vectors_partition": Results(R, R, N, W, R),
    "vectors_checkpoint": Results(R, R, N, W, R),
    "vectors_purged": Results(R, R, N, R, R),
    "vectors_restored": Results(R, R, N, R, R),
    "vectors_inline": Results(R, R, N, W, R),
    "vectors_change_feed": Results(R, R, N, W, R),
    "mapped_name": Results(R, R, W, R, N),
    "mapped_id": Results(R, R, W, R, N),
    "mapped_upgraded": Results(R, R, R, R, N),
    "mapped_renamed": Results(R, R, W, R, N),
    "mapped_swapped": Results(R, R, W, R, N),
    "mapped_dropped": Results(R, R, R, R, N),
    "mapped_dropped_and_added": Results(R, R, W, R, N),
    "mapped_partition_first": Results(R, R, W, R, N),
    "mapped_partition_middle": Results(W, R, W, R, N),
    "mapped_partition_last": Results(W, R, W, R, N),
    "mapped_partition_id": Results(W, R, W, R, N),
    "mapped_partition_renamed": Results(R, R, R, R, N),
    "mapped_partition_upgraded": Results(R, R, R, R, N),
    "mapped_partitions": Results(W, R, W, R, N),
    "mapped_partitions_in_front": Results(R, R, W, R, N),
    "mapped_partitions_in_another_order": Results(R, R, W, R, N),
    "mapped_partition_moved": Results(W, R, W, R, N),
    "mapped_partition_upgraded_and_swapped": Results(W, R, W, R, N),
    "mapped_special_names": Results(N, R, W, R, N),
    "mapped_nested": Results(R, R, W, R, N),
    "mapped_partition_taken_off": Results(R, R, R, R, N),
    "vectors_taken_off": Results(R, R, R, R, R),
    "mapped_vectors_partition": Results(W, R, N, W, N),
    "mapped_vectors": Results(R, R, N, W, N),
    "clustered": Results(R, R, R, R, R),
    "clustered_optimized": Results(R, R, R, R, R),
    "checkpoint_v1": Results(R, R, R, R, R),
    "checkpoint_v2": Results(R, R, N, R, N),
    "checkpoint_v2_vectors": Results(R, R, N, W, N),
    "checkpoint_v2_mapped": Results(W, R, N, R, N),
    "in_commit_timestamps": Results(R, R, R, R, R),
    "vacuum_protocol_check": Results(R, N, N, R, N),
    "widened": Results(R, N, N, R, N),
    "widened_to_double": Results(R, N, N, R, N),
    "widened_to_decimal": Results(R, N, N, R, N),
    "widened_to_timestamp": Results(R, N, N, R, N),
    "widened_partition": Results(R, N, N, R, N),
    "timestamp_ntz": Results(R, R, R, R, R),
    "timestamp": Results(R, R, R, R, R),
    "variant": Results(R, N, N, R, N),
    "variant_shredded": Results(R, N, N, R, N),
    "char_varchar": Results(R, R, R, R, R),
    "row_tracking": Results(R, R, R, R, R),
    "generated": Results(R, R, R, R, R),
    "identity": Results(R, R, R, R, R),
    "defaults": Results(R, R, R, R, R),
    "not_null_and_check": Results(R, R, R, R, R),
    "append_only": Results(R, R, R, R, R),
    "change_feed": Results(R, R, R, R, R),
    "iceberg_compat": Results(R, R, W, R, N),
    "materialized_partitions": Results(R, R, R, R, R),
}


# -- correct rows


def comparable(value: object) -> object:
    """A value in the form that JSON from Spark has, whichever reader it comes from."""
    match value:
        case Decimal():
            return float(value)
        case float() if math.isnan(value):
            return None
        case datetime():
            return value.replace(tzinfo=None).isoformat(" ")
        case date():
            return value.isoformat()
        case dict() if value.keys() == {"metadata", "value"}:
            raise ValueError("the raw bytes of a variant, not decoded: the reader does not support it")
        case dict():
            return {name: comparable(part) for name, part in value.items()}
        case list() if value and all(isinstance(pair, tuple) for pair in value):  # a map from pyarrow
            return {name: comparable(part) for name, part in value}
        case list() if value and all(isinstance(pair, dict) and pair.keys() == {"key", "value"} for pair in value):
            return {pair["key"]: comparable(pair["value"]) for pair in value}  # a map from Polars
        case list():
            return [comparable(part) for part in value]
    return value


def sorted_rows(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as JSON, in an order that does not depend on the reader."""
    return sorted(json.dumps(comparable(row), sort_keys=True, ensure_ascii=False) for row in rows)


def expected_rows(name: str) -> list[dict[str, Any]]:
    """What Spark itself reads from a table."""
    rows = EXPECTED[name]
    if name == "char_varchar":  # Spark pads a CHAR with blanks, which are not in the files
        return [{**row, "c": row["c"].rstrip()} for row in rows]
    if name.startswith("variant"):
        return [{**row, "v": row["v"] and json.loads(row["v"])} for row in rows]
    if name.startswith("widened"):  # Spark writes decimals to JSON as text
        return [{column: number_if_text_of_one(value) for column, value in row.items()} for row in rows]
    return rows


def number_if_text_of_one(value: object) -> object:
    """A number for text such as "1.50"; anything else unchanged."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


# -- readers: each reads the rows of a table, of some columns, where a column has a value

Condition = tuple[str, str, Any]  # column, "=" or "<>", value


class SqlReader:
    """Asks in SQL; a subclass says where."""

    def __init__(self, source: str) -> None:
        self.source = source

    def query(self, sql: str) -> list[dict[str, Any]]:
        raise NotImplementedError

    def rows(self, columns: list[str] | None = None, where: Condition | None = None) -> list[dict[str, Any]]:
        selected = ", ".join(map(quoted, columns)) if columns else "*"
        return self.query(f"SELECT {selected} FROM {self.source}{where_clause(where)}")

    def count(self) -> int:
        return self.query(f"SELECT count(*) AS n FROM {self.source}")[0]["n"]


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def where_clause(where: Condition | None) -> str:
    """A condition in SQL."""
    if where is None:
        return ""
    column, sign, value = where
    return f" WHERE {quoted(column)} {sign} " + (str(value) if isinstance(value, int) else f"'{value}'")


class DuckDBReader(SqlReader):
    """DuckDB, after statements such as ATTACH."""

    def __init__(self, db: DuckDBPyConnection, source: str, *statements: str) -> None:
        super().__init__(source)
        self.db = db
        for statement in statements:
            db.execute(statement)

    def query(self, sql: str) -> list[dict[str, Any]]:
        result = self.db.execute(sql)
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


class QueryBuilderReader(SqlReader):
    """The QueryBuilder of delta-rs."""

    def __init__(self, table: DeltaTable) -> None:
        super().__init__("t")
        self.builder = QueryBuilder().register("t", table)

    def query(self, sql: str) -> list[dict[str, Any]]:
        return pa.table(self.builder.execute(sql).read_all()).to_pylist()


class ArrowReader:
    """The pyarrow dataset of delta-rs."""

    def __init__(self, table: DeltaTable) -> None:
        self.table = table

    def rows(self, columns: list[str] | None = None, where: Condition | None = None) -> list[dict[str, Any]]:
        filters = None
        if where:
            field = ds.field(where[0])
            filters = field == where[2] if where[1] == "=" else field != where[2]
        return self.table.to_pyarrow_table(columns=columns, filters=filters).to_pylist()

    def count(self) -> int:
        return self.table.to_pyarrow_dataset().count_rows()


class LogCount:
    """`DeltaTable.count`, which cannot read rows."""

    def __init__(self, table: DeltaTable) -> None:
        self.count = table.count


class PolarsReader:
    """Polars' own reader of Delta."""

    def __init__(self, lake: Lake, uri: str) -> None:
        self.frame = pl.scan_delta(uri, storage_options=dict(lake.storage_options))

    def rows(self, columns: list[str] | None = None, where: Condition | None = None) -> list[dict[str, Any]]:
        frame = self.frame
        if where:
            column = pl.col(where[0])
            frame = frame.filter(column == where[2] if where[1] == "=" else column != where[2])
        return frame.select(columns or pl.all()).collect().to_dicts()

    def count(self) -> int:
        return self.frame.select(pl.len()).collect().item()


def duckdb_readers(db: DuckDBPyConnection, uri: str, version: int) -> dict[str, Callable[[], DuckDBReader]]:
    """The ways to read a table in DuckDB, by name."""

    def attached(options: str) -> DuckDBReader:
        return DuckDBReader(db, "attached", f"ATTACH OR REPLACE '{uri}' AS attached (TYPE delta{options})")

    return {
        "delta_scan": lambda: DuckDBReader(db, f"delta_scan('{uri}')"),
        "delta_scan version": lambda: DuckDBReader(db, f"delta_scan('{uri}', version => {version})"),
        "ATTACH": lambda: attached(""),
        "ATTACH PIN_SNAPSHOT": lambda: attached(", PIN_SNAPSHOT"),
        "ATTACH VERSION": lambda: attached(f", VERSION {version}"),
    }


def files_reader(db: DuckDBPyConnection, uri: str, table: DeltaTable) -> DuckDBReader:
    """DuckDB on the live data files, without the log: on the table's columns, for Spark's own may be beside them."""
    paths = pa.table(table.get_add_actions(flatten=True))["path"].to_pylist()
    files = ", ".join(f"'{uri}/{path}'" for path in paths)
    columns = ", ".join(quoted(field.name) for field in table.schema().fields)
    source = f"read_parquet([{files}], union_by_name = true, hive_partitioning = false)"
    return DuckDBReader(db, f"(SELECT {columns} FROM {source})")


# -- the result of a reader


def questions(name: str) -> Iterator[tuple[str, tuple[Any, ...], object]]:
    """What each reader is asked (method, arguments), with the answer: all rows, their number, columns, conditions."""
    rows = expected_rows(name)
    yield "count", (), len(rows)
    yield "rows", (), sorted_rows(rows)
    columns = list(rows[0]) if rows else []
    for column in columns[-2:]:
        yield "rows", ([column],), sorted_rows([{column: row[column]} for row in rows])
    for column in columns:
        values = sorted({row[column] for row in rows if type(row[column]) in (int, str)}, key=str)
        is_text_in_json = column in ("d", "day", "at") or name.startswith(("variant", "widened"))
        if values and not is_text_in_json:
            for sign, matches in (("=", operator.eq), ("<>", operator.ne)):
                matching = [row for row in rows if row[column] is not None and matches(row[column], values[0])]
                yield "rows", (None, (column, sign, values[0])), sorted_rows(matching)


def result(name: str, open_reader: Callable[[], Any], first: int | None = None) -> str:
    """WRONG where any answer (of the `first` questions) is, else RAISES where any question raises, else RIGHT."""
    results = set()
    try:
        reader = open_reader()
    except Exception:  # noqa: BLE001 - each reader raises its own errors
        return RAISES
    for method, arguments, expected in islice(questions(name), first):
        if hasattr(reader, method):
            try:
                answer = getattr(reader, method)(*arguments)
                results.add(RIGHT if (sorted_rows(answer) if method == "rows" else answer) == expected else WRONG)
            except Exception:  # noqa: BLE001
                results.add(RAISES)
    return WRONG if WRONG in results else RAISES if RAISES in results else RIGHT


# -- a lake with one of the tables


@pytest.fixture(scope="module")
def shared_db() -> Iterator[list[DuckDBPyConnection]]:
    """A list for the one connection of this module: loading its extensions takes half a second."""
    connections: list[DuckDBPyConnection] = []
    yield connections
    for connection in connections:
        connection.close()


@pytest.fixture
def db(lake: Lake, shared_db: list[DuckDBPyConnection]) -> Iterator[DuckDBPyConnection]:
    """A DuckDB connection that reads `lake`, with no table attached."""
    if not shared_db:
        shared_db.append(lake.duckdb())
    (connection,) = shared_db
    lake.authorize(connection)
    yield connection
    attached = connection.execute("SELECT database_name FROM duckdb_databases() WHERE type = 'delta'").fetchall()
    for (name,) in attached:
        connection.execute(f"DETACH {name}")


def upload(lake: Lake, name: str) -> str:
    """Put one of the tables at `t`; returns its address."""
    for file in (TABLES / name).rglob("*"):
        if file.is_file():
            key = lake.key("t", *file.relative_to(TABLES / name).parts)
            lake.s3.put_object(Bucket=lake.bucket, Key=key, Body=file.read_bytes())
    return lake.uri("t")


def opened(lake: Lake) -> DeltaTable:
    """The table at `t` as delta-rs itself opens it."""
    return DeltaTable(lake.uri("t"), storage_options=lake.storage_options)


# -- the matrix


@pytest.mark.parametrize("name", EXPECTED)
def test_each_reader_on_a_foreign_table(name: str, lake: Lake, db: DuckDBPyConnection) -> None:
    """Every reader gives the result in the matrix, and `check` reports exactly those that return wrong rows."""
    uri, expected = upload(lake, name), RESULTS[name]
    table = opened(lake)
    ways = duckdb_readers(db, uri, table.version())
    assert expected == Results(
        duckdb=result(name, ways.pop("delta_scan")),
        query_builder=result(name, lambda: QueryBuilderReader(table)),
        pyarrow=result(name, lambda: ArrowReader(table)),
        count=result(name, lambda: LogCount(table)),
        polars=result(name, lambda: PolarsReader(lake, uri)),
    )
    in_brief = WRONG if expected.duckdb == WRONG else RIGHT  # what raises is not among the first two questions
    assert {way: result(name, reader, 2) for way, reader in ways.items()} == dict.fromkeys(ways, in_brief)

    for reader in ("duckdb", "query_builder", "pyarrow", "polars"):
        if (of_reader := getattr(expected, reader)) != RAISES:
            assert (compatibility.check(table, reader) is not None) == (of_reader == WRONG), reader


@pytest.mark.parametrize("name", EXPECTED)
def test_a_table_opened_by_the_lake(name: str, lake: Lake) -> None:
    """`lake.delta` reads correctly what delta-rs reads correctly, raises where delta-rs is wrong, and counts right."""
    upload(lake, name)
    table, expected = lake.delta("t"), RESULTS[name]
    assert result(name, lambda: QueryBuilderReader(table), 2) == expected.query_builder
    assert result(name, lambda: ArrowReader(table), 2) == (RAISES if expected.pyarrow == WRONG else expected.pyarrow)
    assert result(name, lambda: LogCount(table)) == RIGHT


@pytest.mark.parametrize("name", EXPECTED)
def test_data_files_without_the_log(name: str, lake: Lake, db: DuckDBPyConnection) -> None:
    """Where `check` accepts a reader of the data files alone, these hold the right rows."""
    uri = upload(lake, name)
    table = opened(lake)
    if compatibility.check(table, "files") is None:
        assert result(name, lambda: files_reader(db, uri, table), 2) == RIGHT
    else:
        with pytest.raises(IncompatibleReaderError):
            live_files(lake.table("t"), table)


def test_the_matrix_has_every_table() -> None:
    """Each folder has expected rows and results."""
    assert RESULTS.keys() == EXPECTED.keys() == {path.name for path in TABLES.iterdir() if path.is_dir()}


# -- check and require


def test_require_with_an_incompatible_reader(lake: Lake, db: DuckDBPyConnection) -> None:
    """The error says what is wrong in which table, and both ways out lead to the right rows."""
    uri = upload(lake, "mapped_partition_middle")
    table = lake.delta("t")
    with pytest.raises(IncompatibleReaderError) as info:
        compatibility.require(table, reader="duckdb")
    for part in ("DuckDB", uri, "returns NULL in the partition column region", "QueryBuilder()", "ALTER TABLE"):
        assert part in str(info.value)
    assert (info.value.reader, info.value.uri) == ("duckdb", uri)
    assert db.sql(f"SELECT region FROM delta_scan('{uri}') WHERE id = 2").fetchall() == [(None,)]
    rows = QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all()  # noqa: F841
    assert db.sql("SELECT region FROM rows WHERE id = 2").fetchall() == [("south",)]


def test_check_of_another_version(lake: Lake, db: DuckDBPyConnection) -> None:
    """Each version has its own answer: this table had column mapping at version 1, and then Spark removed it."""
    uri = upload(lake, "mapped_partition_taken_off")
    compatibility.require(lake.delta("t"), "duckdb")
    assert compatibility.check(lake.delta("t", version=1), "duckdb") is not None
    db.execute(f"ATTACH '{uri}' AS attached (TYPE delta)")
    assert db.sql("SELECT region FROM attached WHERE id = 2").fetchall() == [("south",)]
    assert db.sql("SELECT region FROM attached AT (VERSION => 1) WHERE id = 2").fetchall() == [(None,)]


def test_check_of_a_local_table() -> None:
    """The answer does not depend on where the table is; the address has no trailing slash."""
    problem = compatibility.check(DeltaTable(TABLES / "mapped_partition_middle"), "duckdb")
    assert problem is not None
    assert problem.uri.endswith("foreign_tables/mapped_partition_middle")
    assert compatibility.check(DeltaTable(TABLES / "plain"), "duckdb") is None


def test_check_sends_no_request(lake: Lake, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open table has everything that `check` looks at, so it can be asked before each query."""
    upload(lake, "mapped_partition_middle")
    for name, value in gateway.environment(gateway.issue()).items():
        monkeypatch.setenv(name, value)
    table = Lake.open(lake.root).delta("t")
    before = len(gateway.requests())
    assert before
    for reader in ("duckdb", "pyarrow", "files"):
        assert compatibility.check(table, reader) is not None
    assert len(gateway.requests()) == before


def test_check_of_an_unknown_reader() -> None:
    """A misspelt reader is an error, and not silently compatible."""
    with pytest.raises(ValueError, match="'duck' is not a known reader; the readers are duckdb, pyarrow"):
        compatibility.check(DeltaTable(TABLES / "plain"), "duck")


def test_the_connection_of_a_lake_is_duckdbs_own(lake: Lake) -> None:
    """Nothing is wrapped or replaced: `delta_scan` is the extension's, and a cursor outlives its connection."""
    connection = lake.duckdb()
    assert type(connection) is DuckDBPyConnection
    scans = "SELECT DISTINCT function_type, internal FROM duckdb_functions() WHERE function_name = 'delta_scan'"
    assert connection.execute(scans).fetchall() == [("table", True)]
    upload(lake, "plain")
    with closing(connection.cursor()) as cursor:
        del connection
        assert len(cursor.execute(f"FROM delta_scan('{lake.uri('t')}')").fetchall()) == 8


@pytest.mark.parametrize("name", ["vectors_delete", "vectors_inline", "mapped_renamed", "widened", "partition_values"])
def test_require_for_files_that_need_the_log(name: str, lake: Lake) -> None:
    """Data files whose rows are complete only with the log are refused."""
    upload(lake, name)
    with pytest.raises(IncompatibleReaderError, match=r"wrong rows.*only together with the Delta log"):
        compatibility.require(lake.delta("t"), "files")


@pytest.mark.parametrize("name", ["plain", "clustered_optimized", "mapped_upgraded", "vectors_taken_off", "identity"])
def test_require_for_files_that_hold_all_rows(name: str, lake: Lake) -> None:
    """Data files that hold all rows are accepted, also where the table once had such a feature."""
    upload(lake, name)
    compatibility.require(lake.delta("t"), "files")


# -- what lake.delta opens


def test_vacuum_with_deletion_vectors(lake: Lake) -> None:
    """A full vacuum, in which delta-rs would delete the deletion vectors, is refused; the other keeps them."""
    upload(lake, "vectors_delete")
    options = {"retention_hours": 0, "enforce_retention_duration": False, "dry_run": False}
    deleted_by_delta_rs = opened(lake).vacuum(**options | {"dry_run": True}, full=True)
    assert any(name.endswith(".bin") for name in deleted_by_delta_rs)
    with pytest.raises(LakehouseError, match="would delete the deletion vectors"):
        lake.delta("t").vacuum(**options, full=True)
    lake.delta("t").vacuum(**options, full=False)
    assert result("vectors_delete", lambda: QueryBuilderReader(lake.delta("t"))) == RIGHT


# -- views


def test_views_of_a_table_with_deletion_vectors(lake: Lake) -> None:
    """Deleted rows are not counted, and the files of deletion vectors are live."""
    upload(lake, "vectors_update")
    table = lake.delta("t")
    assert views.files(table)["rows"].sum() == len(EXPECTED["vectors_update"]) == table.count()
    objects = views.objects(lake, "t")
    assert set(objects[objects["key"].str.endswith(".bin")]["state"]) == {"live"}
    assert "orphan" not in set(objects["state"])
    assert "of them deleted" in " ".join(views.commit(lake, "t", version=3)["details"])
    assert "live now: 3" in figures.timeline(table).axes[0].get_title("left")


def test_views_of_a_table_with_column_mapping(lake: Lake) -> None:
    """Statistics are shown under the table's column names, and `changes` refuses to show wrong values."""
    upload(lake, "mapped_swapped")
    table = lake.delta("t")
    assert views.files(table, ["first", "last"])[["min first", "min last"]].values.tolist() == [["Lovelace", "Ada"]]
    with pytest.raises(IncompatibleReaderError, match="would return wrong rows"):
        views.changes(table, 0, table.version(), "id")
