"""Tables that Spark wrote with its own features of Delta: who reads them rightly, who refuses, and who is wrong.

Wrong rows without a word are the worst: what this package offers never gives them. The others' verdicts are held too,
so that an update which changes one turns red here. tests/lake/foreign_tables/make.py made the tables; Spark's own answer is the
measure.
"""

import json
import math
import operator
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from lakehouse_utils.connection import Connection

from lakehouse_utils.course import figures, views
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.compatibility import _BELIEVED, FILES, Watch

TABLES = Path(__file__).parent / "foreign_tables"
EXPECTED = json.loads((TABLES / "expected.json").read_text(encoding="utf-8"))
R, N, W = "right", "refuses", "WRONG"

# By table: DuckDB (delta_scan, and ATTACH in all its ways); delta-rs' QueryBuilder; its pyarrow dataset, and with it
# to_pyarrow_table and to_pandas; its count(); Polars
VERDICTS = {
    "plain": (R, R, R, R, R),
    "partition_values": (R, R, R, R, N),
    "vectors_none_yet": (R, R, N, R, R),
    "vectors_delete": (R, R, N, W, R),
    "vectors_delete_twice": (R, R, N, W, R),
    "vectors_update": (R, R, N, W, R),
    "vectors_merge": (R, R, N, W, R),
    "vectors_whole_file": (R, R, N, W, R),
    "vectors_whole_file_in_steps": (R, R, N, R, R),
    "vectors_partition": (R, R, N, W, R),
    "vectors_checkpoint": (R, R, N, W, R),
    "vectors_purged": (R, R, N, R, R),
    "vectors_restored": (R, R, N, R, R),
    "vectors_inline": (R, R, N, W, R),
    "vectors_change_feed": (R, R, N, W, R),
    "mapped_name": (R, R, W, R, N),
    "mapped_id": (R, R, W, R, N),
    "mapped_upgraded": (R, R, R, R, N),
    "mapped_renamed": (R, R, W, R, N),
    "mapped_swapped": (R, R, W, R, N),
    "mapped_dropped": (R, R, R, R, N),
    "mapped_dropped_and_added": (R, R, W, R, N),
    "mapped_partition_first": (R, R, W, R, N),
    "mapped_partition_middle": (W, R, W, R, N),
    "mapped_partition_last": (W, R, W, R, N),
    "mapped_partition_id": (W, R, W, R, N),
    "mapped_partition_renamed": (R, R, R, R, N),
    "mapped_partition_upgraded": (R, R, R, R, N),
    "mapped_partitions": (W, R, W, R, N),
    "mapped_partitions_in_front": (R, R, W, R, N),
    "mapped_partitions_in_another_order": (R, R, W, R, N),
    "mapped_partition_moved": (W, R, W, R, N),
    "mapped_partition_upgraded_and_swapped": (W, R, W, R, N),
    "mapped_special_names": (N, R, W, R, N),
    "mapped_nested": (R, R, W, R, N),
    "mapped_partition_taken_off": (R, R, R, R, N),
    "vectors_taken_off": (R, R, R, R, R),
    "mapped_vectors_partition": (W, R, N, W, N),
    "mapped_vectors": (R, R, N, W, N),
    "clustered": (R, R, R, R, R),
    "clustered_optimized": (R, R, R, R, R),
    "checkpoint_v1": (R, R, R, R, R),
    "checkpoint_v2": (R, R, N, R, N),
    "checkpoint_v2_vectors": (R, R, N, W, N),
    "checkpoint_v2_mapped": (W, R, N, R, N),
    "in_commit_timestamps": (R, R, R, R, R),
    "vacuum_protocol_check": (R, N, N, R, N),
    "widened": (R, N, N, R, N),
    "widened_to_double": (R, N, N, R, N),
    "widened_to_decimal": (R, N, N, R, N),
    "widened_to_timestamp": (R, N, N, R, N),
    "widened_partition": (R, N, N, R, N),
    "timestamp_ntz": (R, R, R, R, R),
    "timestamp": (R, R, R, R, R),
    "variant": (R, N, N, R, N),
    "variant_shredded": (R, N, N, R, N),
    "char_varchar": (R, R, R, R, R),
    "row_tracking": (R, R, R, R, R),
    "generated": (R, R, R, R, R),
    "identity": (R, R, R, R, R),
    "defaults": (R, R, R, R, R),
    "not_null_and_check": (R, R, R, R, R),
    "append_only": (R, R, R, R, R),
    "change_feed": (R, R, R, R, R),
    "iceberg_compat": (R, R, W, R, N),
    "materialized_partitions": (R, R, R, R, R),
}


# Rows that compare equal, whoever read them


def plain(value: object) -> object:
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
            raise ValueError("a variant as it lies in the file, not decoded: as good as refused")
        case dict():
            return {name: plain(part) for name, part in value.items()}
        case list() if value and all(isinstance(pair, tuple) for pair in value):  # pyarrow's map
            return {name: plain(part) for name, part in value}
        case list() if value and all(isinstance(pair, dict) and pair.keys() == {"key", "value"} for pair in value):
            return {pair["key"]: plain(pair["value"]) for pair in value}  # Polars' map
        case list():
            return [plain(part) for part in value]
    return value


def sorted_rows(rows: list[dict]) -> list[str]:
    return sorted(json.dumps(plain(row), sort_keys=True, ensure_ascii=False) for row in rows)


def expected_rows(name: str) -> list[dict]:
    rows = EXPECTED[name]
    if name == "char_varchar":  # the blanks that fill a CHAR are Spark's own: neither the files nor the log have them
        return [{**row, "c": row["c"].rstrip()} for row in rows]
    if name.startswith("variant"):
        return [{**row, "v": row["v"] and json.loads(row["v"])} for row in rows]
    if name.startswith("widened"):  # Spark's decimals came into the JSON as text
        return [{key: _number(value) for key, value in row.items()} for row in rows]
    return rows


def _number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


# Readers: each gives the rows of a table, of some columns, where a column has a value


class Sql:
    def __init__(self, source: str) -> None:
        self.source = source

    def rows(self, columns: list[str] | None = None, where: tuple | None = None) -> list[dict]:
        chosen = ", ".join(map(quoted, columns)) if columns else "*"
        return self.ask(f"SELECT {chosen} FROM {self.source}{condition(where)}")

    def count(self) -> int:
        return self.ask(f"SELECT count(*) AS n FROM {self.source}")[0]["n"]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def condition(where: tuple | None) -> str:
    if where is None:
        return ""
    name, sign, value = where
    return f" WHERE {quoted(name)} {sign} " + (str(value) if isinstance(value, int) else f"'{value}'")


class Duck(Sql):
    def __init__(self, db: Connection, source: str, *before: str) -> None:
        self.db = db
        for statement in before:
            db.execute(statement)
        super().__init__(source)

    def ask(self, sql: str) -> list[dict]:
        found = self.db.execute(sql)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


class Builder(Sql):
    def __init__(self, table: DeltaTable) -> None:
        self.builder = QueryBuilder().register("t", table)
        super().__init__("t")

    def ask(self, sql: str) -> list[dict]:
        return pa.table(self.builder.execute(sql).read_all()).to_pylist()


class Arrow:
    def __init__(self, table: DeltaTable) -> None:
        self.table = table

    def rows(self, columns: list[str] | None = None, where: tuple | None = None) -> list[dict]:
        if where:
            field = ds.field(where[0])
            where = field == where[2] if where[1] == "=" else field != where[2]
        return self.table.to_pyarrow_table(columns=columns, filters=where).to_pylist()

    def count(self) -> int:
        return self.table.to_pyarrow_dataset().count_rows()


class Counted:
    def __init__(self, table: DeltaTable) -> None:
        self.count = table.count


class Polars:
    def __init__(self, lake: Lake, uri: str) -> None:
        self.frame = pl.scan_delta(uri, storage_options=dict(lake.storage_options))

    def rows(self, columns: list[str] | None = None, where: tuple | None = None) -> list[dict]:
        frame = self.frame
        if where:
            frame = frame.filter(pl.col(where[0]) == where[2] if where[1] == "=" else pl.col(where[0]) != where[2])
        return frame.select(columns or pl.all()).collect().to_dicts()

    def count(self) -> int:
        return self.frame.select(pl.len()).collect().item()


def asked(name: str) -> Iterator[tuple]:
    """What is asked of each reader, and the answer: all rows, their number, each column, and rows by value."""
    rows = expected_rows(name)
    yield "count", (), len(rows)
    yield "rows", (), sorted_rows(rows)
    columns = list(rows[0]) if rows else []
    for column in columns[-2:]:
        yield "rows", ([column],), sorted_rows([{column: row[column]} for row in rows])
    for column in columns:
        values = sorted({row[column] for row in rows if type(row[column]) in (int, str)}, key=str)
        if values and column not in ("d", "day", "at") and not name.startswith(("variant", "widened")):  # text in JSON
            for sign, is_right in (("=", operator.eq), ("<>", operator.ne)):
                found = [row for row in rows if row[column] is not None and is_right(row[column], values[0])]
                yield "rows", (None, (column, sign, values[0])), sorted_rows(found)


def verdict(name: str, reader: Callable, questions: int | None = None) -> str:
    """Right where all of a reader's answers are; wrong where one is; else it refuses, once at least."""
    found = set()
    try:
        reader = reader()
    except Exception:
        return N
    for method, arguments, right in islice(asked(name), questions):
        if hasattr(reader, method):
            try:
                answer = getattr(reader, method)(*arguments)
                found.add(R if (sorted_rows(answer) if method == "rows" else answer) == right else W)
            except Exception:
                found.add(N)
    return W if W in found else N if N in found else R


# One lake a test, with one of the tables in it


_connections: list[Connection] = []  # one, for loading its extensions takes half a second


@pytest.fixture
def db(lake) -> Connection:
    if not _connections:
        _connections.append(lake.duckdb())
    lake.authorize(_connections[0])
    yield _connections[0]
    attached = _connections[0].execute("SELECT database_name FROM duckdb_databases() WHERE type = 'delta'").fetchall()
    for (name,) in attached:
        _connections[0].execute(f"DETACH {name}")


def upload(lake: Lake, name: str, to: str = "t") -> str:
    for file in (TABLES / name).rglob("*"):
        if file.is_file():
            key = lake.key(to, *file.relative_to(TABLES / name).parts)
            lake.s3.put_object(Bucket=lake.bucket, Key=key, Body=file.read_bytes())
    return lake.uri(to)


def clear(lake: Lake, name: str = "t") -> None:
    for entry in lake.objects(lake.key(name, "")):
        lake.s3.delete_object(Bucket=lake.bucket, Key=entry["Key"])


def duckdbs(db: object, scan: str, uri: str, version: int) -> dict:
    """The ways to read a table in DuckDB, by name; each is to be called."""
    attached = {"": "", " PIN_SNAPSHOT": ", PIN_SNAPSHOT", " VERSION": f", VERSION {version}"}
    attach = "ATTACH OR REPLACE '{}' AS attached (TYPE delta{})"
    return {
        "delta_scan": lambda: Duck(db, f"{scan}('{uri}')"),
        "delta_scan version": lambda: Duck(db, f"{scan}('{uri}', version => {version})"),
    } | {
        f"ATTACH{name}": lambda options=options: Duck(db, "attached", attach.format(uri, options))
        for name, options in attached.items()
    }


def opened(lake: Lake, uri: str) -> DeltaTable:
    return DeltaTable(uri, storage_options=lake.storage_options)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_verdicts_on_a_table_and_that_what_we_offer_is_never_wrong(name, lake, db):
    """What we offer is right where the library is, and refuses where that is wrong: there alone."""
    uri = upload(lake, name)
    table, ours = opened(lake, uri), lake.delta("t")
    ways = duckdbs(db._native, "system.main.delta_scan", uri, table.version())
    by_scan = verdict(name, ways.pop("delta_scan"))
    others = (lambda: Builder(table), lambda: Arrow(table), lambda: Counted(table), lambda: Polars(lake, uri))
    assert (by_scan, *(verdict(name, read) for read in others)) == VERDICTS[name]
    in_brief = by_scan if by_scan == W else R  # what some refuse isn't among the first questions
    assert {way: verdict(name, read, 2) for way, read in ways.items()} == dict.fromkeys(ways, in_brief)

    by_duckdb, by_builder, by_arrow, by_count, _ = VERDICTS[name]
    offered = duckdbs(db, "delta_scan", uri, table.version())
    assert {way: verdict(name, read, 2) for way, read in offered.items()} == dict.fromkeys(offered, safe(in_brief))
    assert verdict(name, lambda: Builder(ours), 2) == by_builder
    assert verdict(name, lambda: Arrow(ours), 2) == safe(by_arrow)
    assert verdict(name, lambda: Counted(ours)) == R


def safe(verdict: str) -> str:
    return N if verdict == W else verdict


def test_every_table_has_a_verdict():
    assert VERDICTS.keys() == EXPECTED.keys() == {path.name for path in TABLES.iterdir() if path.is_dir()}


# The guard of DuckDB, at its edges


def test_a_refusal_says_what_is_wrong_and_its_way_out_leads_out(lake, db):
    uri = upload(lake, "mapped_partition_middle")
    with pytest.raises(LakehouseError) as info:
        db.sql(f"FROM delta_scan('{uri}')")
    for part in ("DuckDB", uri, "NULL for the partition column region", "QueryBuilder()", "ALTER TABLE"):
        assert part in str(info.value)
    table = lake.delta("t")
    rows = QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all()  # noqa: F841
    assert db.sql("SELECT region FROM rows WHERE id = 2").fetchall() == [("south",)]
    clear(lake)
    upload(lake, "mapped_partition_taken_off")  # what Spark makes of it with that ALTER TABLE
    time.sleep(_BELIEVED)
    assert db.sql(f"SELECT region FROM delta_scan('{uri}') WHERE id = 2").fetchall() == [("south",)]


WAYS_ROUND = {
    "a parameter": ("FROM delta_scan($1)", True),
    "an expression": ("FROM delta_scan('{}' || '')", False),
    "a variable": ("SET VARIABLE place = '{}'; FROM delta_scan(getvariable('place'))", False),
    "a view": ("CREATE OR REPLACE TEMP VIEW seen AS FROM delta_scan('{}'); FROM seen", False),
    "a slash": ("FROM delta_scan('{}/')", False),
    "a version": ("FROM delta_scan('{}', version := 1)", False),
    "ATTACH and a query": ("ATTACH '{}' AS attached (TYPE delta); FROM attached", False),
    "ATTACH in small letters": ("attach or replace '{}' as attached (type delta, version 1)", False),
    "after a comment": ("/* ; */ ATTACH '{}' AS attached (TYPE delta, PIN_SNAPSHOT)", False),
    "by the prefix": ("ATTACH 'delta:{}' AS attached", False),
    "by the prefix in capitals": ("ATTACH 'DELTA:{}' AS attached; FROM attached", False),
    "after a comment with a quote": ("ATTACH /* 'x' */ '{}' AS attached (TYPE delta); FROM attached", False),
    "a text with escapes": (r"ATTACH E'{}\x2f' AS attached (TYPE delta)", False),
    "in dollars": ("ATTACH $${}$$ AS attached (TYPE delta)", False),
}


@pytest.mark.parametrize("way", WAYS_ROUND)
def test_there_is_no_way_round_the_guard(way, lake, db):
    uri = upload(lake, "mapped_partition_middle")
    sql, takes_parameter = WAYS_ROUND[way]
    for ask in (db.sql, db.query, db.cursor().sql):
        with pytest.raises(LakehouseError, match="would read"):
            ask(sql.format(uri), params=[uri] if takes_parameter else None).fetchall()
    with pytest.raises(LakehouseError, match="would read"):
        db.execute(sql.format(uri), [uri] if takes_parameter else None)


def test_not_in_a_connection_made_unseen_nor_after_use(lake, db):
    uri, plain = upload(lake, "mapped_partition_middle"), upload(lake, "plain", "plain")
    with pytest.raises(duckdb.InvalidInputException, match="would read"):
        duckdb.sql(f"FROM delta_scan('{uri}')", connection=db._native)
    with pytest.raises(duckdb.InvalidInputException, match="would read"):
        db._native.cursor().sql(f"FROM delta_scan('{uri}')")
    db.execute(f"ATTACH '{plain}' AS attached (TYPE delta)")
    with db.cursor() as other:
        other.execute("USE attached")
        with pytest.raises(LakehouseError, match="would read"):
            other.sql(f"FROM delta_scan('{uri}')")


@pytest.mark.parametrize(
    "read",
    [
        "db().sql(scan).fetchall()",
        "db().cursor().execute(scan).fetchall()",
        "db().cursor().sql(scan).filter('a > 1').fetchall()",
        "db().cursor().cursor().sql(scan).df().values.tolist()",
        "db().begin().cursor().sql(scan).fetchall()",
    ],
)
def test_what_comes_of_a_connection_may_outlive_it(read, lake, s3_state_dir):
    """In a process of its own: DuckDB calls a function that is gone without asking, and takes all with it."""
    write_deltalake(lake.uri("t"), pa.table({"a": [2, 3]}), storage_options=lake.storage_options)
    program = f"""if True:
        import gc
        from lakehouse_utils.lake import Lake
        lake, scan = Lake.open({lake.root!r}), "FROM delta_scan('{lake.uri("t")}')"
        def db():
            return lake.duckdb()
        for _ in range(5):
            try:
                rows = {read}
                assert sorted(map(tuple, rows)) == [(2,), (3,)], rows
            except Exception as error:
                assert "lake.duckdb() is gone" in str(error) and "begin" in {read!r}, error
            gc.collect()
    """
    environment = os.environ | {"LAKEHOUSE_STATE_DIR": str(s3_state_dir)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_table_that_becomes_dangerous_while_it_is_attached(lake, db):
    uri = upload(lake, "mapped_partition_taken_off")
    db.execute(f"ATTACH '{uri}' AS attached (TYPE delta)")
    assert len(db.sql("FROM attached").fetchall()) == 5
    with pytest.raises(LakehouseError, match="would read"):
        db.sql("FROM attached AT (VERSION => 1)")
    clear(lake)
    upload(lake, "mapped_partition_middle")
    time.sleep(_BELIEVED)
    for sql in ("FROM attached", f"FROM delta_scan('{uri}')"):
        with pytest.raises(LakehouseError, match="would read"):
            db.sql(sql)
    db.execute("DETACH attached")
    assert db.sql("SELECT 1").fetchall() == [(1,)]


def test_a_version_that_is_not_there_is_not_looked_for_with_each_statement(lake, db, monkeypatch):
    db.execute(
        f"ATTACH '{upload(lake, 'plain')}' AS attached (TYPE delta, VERSION 99)"
    )  # DuckDB complains when it reads
    looks, look = [], Watch._look
    monkeypatch.setattr(Watch, "_look", lambda self, *place: looks.append(place) or look(self, *place))
    begun = time.monotonic()
    for _ in range(100):
        db.execute("SELECT 1")
    assert len(looks) <= 1 + (time.monotonic() - begun) / _BELIEVED
    with pytest.raises(duckdb.Error, match="99"):
        db.sql("FROM attached")


def test_an_ordinary_table_is_read_as_without_a_guard(lake, db):
    uri = upload(lake, "plain")
    for select in ("sum(amount)", "count(*)"):
        sql = f"SELECT {select} FROM {{}}('{uri}') WHERE id > 5"
        guarded, bare = (views.reads(db, sql.format(scan)) for scan in ("delta_scan", "system.main.delta_scan"))
        assert guarded | {"ms": 0} == bare | {"ms": 0}
    assert "filename" in db.sql(f"FROM delta_scan('{uri}', filename := true)").columns


def test_a_log_is_looked_into_once_a_second_at_most(lake, gateway, prefix, monkeypatch):
    """By requests beside DuckDB's own: a HEAD and a LIST, and what is new in the log."""
    monkeypatch.setattr("os.environ", os.environ | gateway.environment(gateway.issue()))
    behind = Lake.open(prefix)
    uri = upload(behind, "plain")
    watch = Watch(behind)
    assert watch.refusal(uri) is None
    before = len(gateway.requests())
    for _ in range(5):
        watch.refusal(uri)
    assert len(gateway.requests()) == before
    time.sleep(_BELIEVED)
    watch.refusal(uri)
    assert len(gateway.requests()) - before <= 3


def test_variables_of_the_caller_are_tables_as_ever(db):
    files, query, watch = (pa.table({"n": [number]}) for number in (1, 2, 3))

    def inside():
        time = pa.table({"n": [4]})  # noqa: F841
        return db.sql("FROM time").fetchall() + db.execute("FROM query, watch").fetchall()

    assert db.sql("FROM files").fetchall() == [(1,)]
    with pytest.raises(duckdb.CatalogException):
        db.sql("FROM nothing_of_that_name")
    assert inside() == [(4,), (2, 3)] and files and query and watch


def test_what_the_guard_cannot_open_is_left_to_duckdb(lake, db, tmp_path):
    with pytest.raises(duckdb.IOException):
        db.sql(f"FROM delta_scan('{lake.uri('nothing')}')")
    assert len(db.sql(f"FROM delta_scan('{TABLES / 'plain'}')").fetchall()) == 8
    with pytest.raises(LakehouseError):
        db.sql(f"FROM delta_scan('{TABLES / 'mapped_partition_middle'}')")


# delta-rs


@pytest.mark.parametrize("name", ["vectors_delete", "vectors_inline", "mapped_renamed", "widened", "partition_values"])
def test_files_are_not_read_by_their_list_where_the_log_is_needed(name, lake):
    upload(lake, name)
    with pytest.raises(LakehouseError, match="wrongly.*log"):
        FILES.refuse(lake.delta("t"))


@pytest.mark.parametrize("name", ["plain", "clustered_optimized", "mapped_upgraded", "vectors_taken_off", "identity"])
def test_files_are_read_by_their_list_where_they_hold_all(name, lake):
    upload(lake, name)
    FILES.refuse(lake.delta("t"))


def test_vacuum_does_not_take_deletion_vectors_away(lake):
    uri = upload(lake, "vectors_delete")
    full = {"retention_hours": 0, "enforce_retention_duration": False, "dry_run": False, "full": True}
    assert any(name.endswith(".bin") for name in opened(lake, uri).vacuum(**full | {"dry_run": True}))  # delta-rs would
    with pytest.raises(LakehouseError, match="deletion vectors"):
        lake.delta("t").vacuum(**full)
    lake.delta("t").vacuum(**full | {"full": False})
    assert verdict("vectors_delete", lambda: Builder(lake.delta("t"))) == R


# What a learner looks at


def test_looking_at_a_table_of_spark(lake):
    upload(lake, "vectors_update")
    table = lake.delta("t")
    assert views.files(table)["rows"].sum() == len(EXPECTED["vectors_update"]) == table.count()
    seen = views.objects(lake, "t")
    vectors = seen[seen["key"].str.endswith(".bin")]
    assert set(vectors["state"]) == {"live"} and "orphan" not in set(seen["state"])
    assert "of them deleted" in " ".join(views.commit(lake, "t", version=3)["details"])
    assert "live now: 3" in figures.timeline(table).axes[0].get_title("left")


def test_statistics_of_a_mapped_column_are_its_own(lake):
    upload(lake, "mapped_swapped")
    table = lake.delta("t")
    assert views.files(table, ["first", "last"])[["min first", "min last"]].values.tolist() == [["Lovelace", "Ada"]]
    with pytest.raises(LakehouseError, match="would read"):
        views.changes(table, 0, table.version(), "id")
