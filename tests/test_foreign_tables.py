"""Tables that Spark wrote with its own features of Delta: who reads them rightly, who refuses, and who is wrong.

Wrong rows without a word are the worst: what this package offers never gives them. The others' verdicts are held too,
so that an update which changes one turns red here. tests/tables/make.py made the tables; Spark's own answer is the
measure.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, QueryBuilder

from lakehouse_utils.connection import Connection
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.readers import ARROW, DUCKDB, FILES

TABLES = Path(__file__).parent / "tables"
EXPECTED = json.loads((TABLES / "expected.json").read_text(encoding="utf-8"))
R, N, W = "right", "refuses", "WRONG"

# By table: DuckDB (delta_scan, and ATTACH in all its ways), delta-rs' QueryBuilder, its pyarrow dataset (to_pyarrow_table
# and to_pandas, too), its count(), Polars
VERDICTS = {
    "plain": (R, R, R, R, R),
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
        if values and not any(name.startswith(odd) for odd in ("variant", "timestamp", "widened")):
            for sign, chosen in (("=", lambda value: value == values[0]), ("<>", lambda value: value != values[0])):
                if column not in ("d", "day"):  # dates: here they are text
                    found = [row for row in rows if row[column] is not None and chosen(row[column])]
                    yield "rows", (None, (column, sign, values[0])), sorted_rows(found)


def verdict(name: str, reader) -> str:
    """Right where all of a reader's answers are; wrong where one is; else it refuses, once at least."""
    found = set()
    try:
        reader = reader()
    except Exception:
        return N
    for method, arguments, right in asked(name):
        if hasattr(reader, method):
            try:
                answer = getattr(reader, method)(*arguments)
            except Exception:
                found.add(N)
            else:
                found.add(R if (sorted_rows(answer) if method == "rows" else answer) == right else W)
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
def test_what_everybody_makes_of_a_table_of_spark(name, lake, db):
    uri = upload(lake, name)
    table = opened(lake, uri)
    found = {way: verdict(name, read) for way, read in duckdbs(db._native, "system.main.delta_scan", uri, table.version()).items()}
    assert len(set(found.values())) == 1, found
    duckdb = found["delta_scan"]
    others = (lambda: Builder(table), lambda: Arrow(table), lambda: Counted(table), lambda: Polars(lake, uri))
    assert (duckdb, *(verdict(name, read) for read in others)) == VERDICTS[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_what_we_offer_is_never_wrong_and_refuses_only_what_would_be(name, lake, db):
    uri = upload(lake, name)
    by_duckdb, by_builder, by_arrow, by_count, _ = (verdict.replace(W, N) for verdict in VERDICTS[name])
    for way, read in duckdbs(db, "delta_scan", uri, lake.delta("t").version()).items():
        assert verdict(name, read) == by_duckdb, way
    assert verdict(name, lambda: Builder(lake.delta("t"))) == by_builder
    assert verdict(name, lambda: Arrow(lake.delta("t"))) == by_arrow
    assert verdict(name, lambda: Counted(lake.delta("t"))) == (R if VERDICTS[name][3] == W else by_count)
    if by_builder == R:  # a refusal's way out
        rows = Duck(db, "rows")
        rows = QueryBuilder().register("t", lake.delta("t")).execute("SELECT * FROM t").read_all()
        assert db.sql("SELECT count(*) FROM rows").fetchone()[0] == len(EXPECTED[name])


def test_every_table_has_a_verdict():
    assert VERDICTS.keys() == EXPECTED.keys() == {path.name for path in TABLES.iterdir() if path.is_dir()}
