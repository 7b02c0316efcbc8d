"""Sorted files: their statistics never hide a row from a reader, and repeated keys are written once."""

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import Schema

from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import commits, file_statistics, sorted_files
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.sql import quoted

LONG = "ü" * 60
VALUES = {
    "integer": (pa.int64(), [-(2**63), -1, 0, 1, 2**63 - 1]),
    "small integer": (pa.int32(), [-(2**31), 0, 2**31 - 1]),
    "double": (pa.float64(), [-1e308, -1.5, 5e-324, 1e308]),
    "zeros": (pa.float64(), [-0.0, -0.0]),
    "zero": (pa.float64(), [0.0]),
    "nan": (pa.float64(), [1.0, math.nan, 3.0]),
    "infinities": (pa.float64(), [-math.inf, 2.0, math.inf]),
    "decimal": (pa.decimal128(10, 2), [Decimal("-99999999.99"), Decimal("0.10"), Decimal("919.99")]),
    "small decimal": (pa.decimal128(12, 9), [Decimal("0.000000001"), Decimal("0.000000002")]),
    "many digits": (pa.decimal128(38, 2), [Decimal("-999999999999999999.98"), Decimal("999999999999999999.99")]),
    "text": (pa.string(), ["", "Zürich", "a", "ab'c\"", "é\u0001", "\U0001f6b2", "\uffee"]),
    "long text": (
        pa.string(),
        ["a" * 31 + "b", LONG + "aaaaaaaaaa", LONG + "b" * 3000, "\ud7ff" * 70, "\U0010fffe" + "\U0010ffff" * 70],
    ),
    "date": (pa.date32(), [date(1, 1, 1), date(1969, 12, 31), date(9999, 12, 31)]),
    "timestamp": (
        pa.timestamp("us", "UTC"),
        [
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC),
        ],
    ),
    "last timestamp": (pa.timestamp("us", "UTC"), [datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]),
    "boolean": (pa.bool_(), [False, True]),
    "with NULL": (pa.int64(), [None, 5, None]),
    "only NULL": (pa.string(), [None, None]),
}
NAME = "a \"column\" 'name'"


def written(lake: Lake, rows: pa.Table) -> None:
    """The table `silver.t`, one file per row and one file with all rows."""
    ref = lake.table("silver", "t")
    table = commits.create(ref, Schema.from_arrow(rows.schema))
    files = [rows.slice(number, 1) for number in range(len(rows))]
    actions = [action for file in [*files, rows] for action in sorted_files.write(ref, file.to_batches())]
    commits.commit_files(table, actions, CommitRecord({}))


@pytest.mark.parametrize("kind", VALUES)
def test_statistics_hide_no_row_from_a_filter(lake, kind):
    """DuckDB, Polars and pyarrow find each value by =, <= and >=, and NULL, as many times as without statistics."""
    data_type, values = VALUES[kind]
    rows = pa.table({NAME: pa.array(values, data_type)})
    written(lake, rows)
    table = lake.delta("silver", "t")
    uri, dataset = table.table_uri, table.to_pyarrow_dataset()
    lazy = pl.scan_delta(uri, storage_options=lake.storage_options)
    in_memory = pa.concat_tables([rows, rows])
    with lake.duckdb() as db:
        db.register("in_memory", in_memory)
        db.execute("CREATE TABLE expected AS FROM in_memory")  # Arrow itself would filter, by another order of NaN
        for value in values:
            for operator in ("=", "<=", ">="):
                if value is None:
                    condition, column = f"{quoted(NAME)} IS NULL", ds.field(NAME).is_null()
                    polars = pl.col(NAME).is_null()
                    parameters = []
                else:
                    scalar = pa.scalar(value, data_type)
                    field, literal = ds.field(NAME), pl.lit(pl.Series(pa.array([value], data_type)))
                    condition, parameters = f"{quoted(NAME)} {operator} (SELECT x FROM value)", []
                    column = {"=": field == scalar, "<=": field <= scalar, ">=": field >= scalar}[operator]
                    literal = (
                        pl.Series(pa.array([value], data_type)).first() if data_type != pa.decimal128(38, 2) else value
                    )
                    polars = {
                        "=": pl.col(NAME) == literal,
                        "<=": pl.col(NAME) <= literal,
                        ">=": pl.col(NAME) >= literal,
                    }[operator]
                    db.register("value_table", pa.table({"x": pa.array([value], data_type)}))
                    db.execute("CREATE OR REPLACE TEMP TABLE value AS FROM value_table")
                    constant = db.sql("SELECT x::VARCHAR FROM value").fetchone()[0].replace("'", "''")
                    sql_type = db.sql("SELECT typeof(x) FROM value").fetchone()[0]
                    condition = f"{quoted(NAME)} {operator} '{constant}'::{sql_type}"
                expected = db.execute(f"SELECT count(*) FROM expected WHERE {condition}", parameters).fetchone()[0]
                assert expected > 0
                found = db.execute(f"SELECT count(*) FROM delta_scan('{uri}') WHERE {condition}", parameters)
                assert found.fetchone()[0] == expected, (value, operator)
                assert dataset.count_rows(filter=column) >= ds.dataset(in_memory).count_rows(filter=column)
                in_polars = pl.from_arrow(in_memory).filter(polars)
                assert len(lazy.filter(polars).collect()) == len(in_polars), (value, operator)


def test_statistics_without_rows_are_not_needed(lake):
    """Without rows, no file is written."""
    rows = pa.table({"k": pa.array([], pa.int64())})
    assert sorted_files.write(lake.table("silver", "t"), rows.to_batches()) == []


def test_statistics_leave_out_what_readers_order_differently():
    """Columns with NaN or infinities have no minimum and maximum; all columns of other types have them."""
    stats = {}
    for kind, (data_type, values) in VALUES.items():
        stats[kind] = json.loads(file_statistics.of_rows(pa.table({"c": pa.array(values, data_type)})))
    assert {kind for kind, found in stats.items() if not found.get("minValues")} == {"nan", "infinities", "only NULL"}
    assert stats["with NULL"] == {"numRecords": 3, "nullCount": {"c": 2}, "minValues": {"c": 5}, "maxValues": {"c": 5}}
    assert (str(stats["zero"]["minValues"]["c"]), str(stats["zeros"]["maxValues"]["c"])) == ("-0.0", "0.0")
    assert stats["timestamp"]["maxValues"]["c"] == "2026-01-31T12:00:00.124000Z"
    assert stats["long text"]["minValues"]["c"] == "a" * 31 + "b"
    assert "maxValues" in stats["long text"] and len(stats["long text"]["maxValues"]["c"]) <= 64


def test_a_column_without_a_minimum_hides_no_row(lake):
    """If a column has no minimum because of NaN, readers still find its rows and those of other columns."""
    rows = pa.table({"k": [1, 2], NAME: pa.array([math.nan, 1.0]), "t": ["a", None], "n": pa.nulls(2, pa.int64())})
    written(lake, rows)
    table = lake.delta("silver", "t")
    dataset = table.to_pyarrow_dataset()
    filters = [ds.field("k") == 1, ds.field(NAME) == 1.0, ds.field("t") == "a", ds.field("t").is_null()]
    assert [dataset.count_rows(filter=condition) for condition in filters] == [2, 2, 2, 2]
    assert dataset.count_rows(filter=ds.field("n").is_null()) == 4
    lazy = pl.scan_delta(table.table_uri, storage_options=lake.storage_options)
    assert len(lazy.filter(pl.col(NAME) == 1.0).collect()) == 2


def test_first_of_each_key_across_batches():
    """A key that is repeated within a batch, and over the borders of batches, is kept once: its first row."""
    keys = [(1, "a"), (1, "a"), (1, "b"), (2, "b"), (2, "b"), (2, "b"), (3, "a"), (4, "a"), (4, "b")]
    rows = pa.table({"k": [k for k, _ in keys], "t": [t for _, t in keys], "n": list(range(len(keys)))})
    for size in range(1, len(keys) + 1):
        batches = rows.to_batches(max_chunksize=size)
        kept = pa.Table.from_batches(
            sorted_files.first_of_each_key([batches[0][:0], *batches], ["k", "t"]), rows.schema
        )
        assert kept["n"].to_pylist() == [0, 2, 3, 6, 7, 8], size


def test_files_have_about_the_target_size_and_ranges_that_do_not_overlap(lake, monkeypatch):
    """Many rows become several files in the order of the rows."""
    monkeypatch.setattr(commits, "TARGET_FILE_BYTES", 1 << 16)
    keys = pa.chunked_array([pa.array(range(1000 * part, 1000 * (part + 1)), pa.int64()) for part in range(100)])
    text = pa.chunked_array(
        [pa.array([f"{value * 7919 % 99991:>40}" for value in chunk.to_pylist()]) for chunk in keys.chunks]
    )
    ref = lake.table("silver", "t")
    actions = sorted_files.write(ref, pa.table({"k": keys, "v": text}).to_batches())
    stats = [json.loads(action.stats) for action in actions]
    assert sum(found["numRecords"] for found in stats) == 100_000
    assert 5 < len(actions) < 60
    highest = [found["maxValues"]["k"] for found in stats]
    lowest = [found["minValues"]["k"] for found in stats]
    assert all(low == high + 1 for high, low in zip(highest[:-1], lowest[1:], strict=True))
