"""Notebook 07: right answers that are written differently, and what its prose says about delta-rs."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pointblank as pb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError
from notebooks.books import Book

from lakehouse_utils.course import figures, views
from lakehouse_utils.course.exercises import Right, Wrong, nb07
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import data_contract, sources

KINDS = [
    list,
    set,
    tuple,
    iter,
    np.array,
    pd.Series,
    pl.Series,
    pa.array,
    lambda lines: [float(line) for line in lines],
    lambda lines: [(line,) for line in lines],  # fetchall()
    lambda lines: [{"line": line, "price": 1} for line in lines],  # rows(named=True)
    lambda lines: {"line": np.array(lines), "price": np.ones(len(lines))},  # fetchnumpy()
    lambda lines: pd.DataFrame({"line": lines, "price": 1}),
    lambda lines: pl.DataFrame({"line": lines, "price": 1}),
    lambda lines: pl.LazyFrame({"line": lines}),
    lambda lines: pa.table({"number": lines}),
    lambda lines: duckdb.sql(f"SELECT unnest({lines}) AS line, 1 AS price"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_valid_lines_in_any_collection(kind: Callable[[list[int]], object], lake: Lake) -> None:
    """The lines are accepted in any order, in any collection, and as a column of a table."""
    assert isinstance(nb07.check_valid_lines(kind([12, 1, 11, 8]), lake), Right)


def test_every_line_matters(lake: Lake) -> None:
    """A line too many or too few is wrong, whichever it is."""
    valid = {1, 8, 11, 12}
    for line in range(1, 13):
        with pytest.raises(Wrong):
            nb07.check_valid_lines(valid ^ {line}, lake)


def test_every_prediction_matters(lake: Lake) -> None:
    """The right predictions are accepted in any order, and no other prediction is."""
    right = dict.fromkeys("GEA", "stored") | dict.fromkeys("FD", "rejected") | dict.fromkeys("CB", "changed")
    assert isinstance(nb07.check_predictions(right, lake), Right)
    shouted = {append.lower(): f"{prediction.upper()} " for append, prediction in right.items()}
    assert isinstance(nb07.check_predictions(shouted, lake), Right)
    for append, prediction in right.items():
        for other in {"stored", "rejected", "changed"} - {prediction}:
            with pytest.raises(Wrong, match=f"{append} is not {other}"):
                nb07.check_predictions({**right, append: other}, lake)


@pytest.fixture
def measured(lake: Lake) -> dict[str, dict[str, int]]:
    """What the queries of step 9 read, from the notebook's own cells."""

    def append(uri: str, rows: pa.Table) -> None:
        write_deltalake(uri, rows, mode="append", storage_options=lake.storage_options)

    with lake.duckdb() as db:
        names = {"append": append, "db": db, "figures": figures, "lake": lake, "s3": lake.storage_options}
        names |= {"DeltaTable": DeltaTable, "WriterProperties": WriterProperties, "pd": pd, "views": views}
        names["write_deltalake"] = write_deltalake
        exec(Book.of_number("07").code_from("many_sales = ", cells=2), names)
    return names["measured"]


def test_no_layout_is_the_best_for_both_queries(measured: dict[str, dict[str, int]]) -> None:
    """Partitions read least for one day, and rows sorted by customer least for one customer; Z-order is in between."""
    for what in ("requests", "bytes"):
        arrived, by_day, by_customer, z_order = (measured[f"one day, {layout}"][what] for layout in nb07._LAYOUTS)
        assert by_day < arrived < z_order < by_customer
        arrived, by_day, by_customer, z_order = (measured[f"one customer, {layout}"][what] for layout in nb07._LAYOUTS)
        assert by_customer < z_order < arrived < by_day


def test_layouts_are_compressed_in_the_same_way(measured: dict[str, dict[str, int]], lake: Lake) -> None:
    """The bytes of the layouts differ because of the layout, not because of the codec."""
    for layout in nb07._LAYOUTS:
        table = DeltaTable(lake.uri("layouts", layout), storage_options=lake.storage_options)
        fragment = next(table.to_pyarrow_dataset().get_fragments())
        assert fragment.metadata.row_group(0).column(0).compression == "SNAPPY", layout


def test_layout_as_list_or_tuple_and_with_any_integer(measured: dict[str, dict[str, int]], lake: Lake) -> None:
    """The layout and the number are accepted as a tuple or a list, with an integer of Python or NumPy."""
    best = "as_it_arrived"
    number = 2000 * measured[f"one day, {best}"]["requests"] + 100 * measured[f"one customer, {best}"]["requests"]
    for answer in ((best, number), [best, np.int64(number)], (best, float(number))):
        assert isinstance(nb07.check_layout(answer, lake), Right)
    with pytest.raises(Wrong):
        nb07.check_layout((best, number + 1), lake)
    with pytest.raises(Wrong, match="by_day reads the fewest bytes"):
        nb07.check_layout(("by_day", number + 1), lake)


@pytest.mark.parametrize("name", sources.load())
def test_contract_of_every_table_becomes_checks(name: str, lake: Lake) -> None:
    """Step 8 turns the contract of any table into casts and checks, and an empty required column fails its check."""
    (contract,) = (table for table in data_contract.export(sources.load())["schema"] if table["name"] == name)
    row = dict.fromkeys([column["name"] for column in contract["properties"]], "") | {"_batch": "2026-01-05"}
    rows = pa.Table.from_pylist([row | {"_source_line": 2}])
    write_deltalake(
        lake.uri("bronze", "order_items"), rows, storage_options=lake.storage_options
    )  # as the cell reads it
    with lake.duckdb() as db:
        names = {"db": db, "json": json, "lake": lake, "order_items": contract, "pb": pb, "pd": pd}
        exec(Book.of_number("07").code_from("sql_types = ", cells=2), names)
    required = {column["name"] for column in contract["properties"] if column.get("required")}
    texts = {column["name"] for column in contract["properties"] if column["logicalType"] == "string"}
    failed = {reason for reason in names["failed"]["reason"] if reason.startswith("col_vals_not_null")}
    assert failed == {f"col_vals_not_null {column}" for column in required - texts}


@pytest.mark.parametrize("failures", [1, 501])
def test_every_bad_row_is_in_quarantine(failures: int, lake: Lake) -> None:
    """Rows are split into good and bad ones, however many fail, and a bad row has its texts and all its reasons."""
    (contract,) = (table for table in data_contract.export(sources.load())["schema"] if table["name"] == "order_items")
    good = {"product_id": "1", "quantity": "1", "list_price": "5.00", "discount": "0", "updated_at": ""}
    rows = [{"order_id": str(order), "item_id": "1", **good} for order in range(failures + 2)]
    rows[:failures] = [row | {"quantity": "-1", "discount": "1.5"} for row in rows[:failures]]
    source = {"_batch": "2026-01-05", "_source_file": "2026-01-05/order_items.csv"}
    table = pa.Table.from_pylist([row | source | {"_source_line": line} for line, row in enumerate(rows, start=2)])
    write_deltalake(lake.uri("bronze", "order_items"), table, storage_options=lake.storage_options)
    with lake.duckdb() as db:
        names = {"db": db, "json": json, "lake": lake, "order_items": contract, "pb": pb, "pd": pd, "pl": pl}
        names |= {"s3": lake.storage_options, "write_deltalake": write_deltalake}
        exec(Book.of_number("07").code_from("sql_types = ", cells=3), names)
    assert len(names["good"]) == 2
    stored = DeltaTable(lake.uri("shop", "quarantine"), storage_options=lake.storage_options).to_pyarrow_table()
    assert stored.num_rows == failures
    assert {*table.column_names} < {*stored.column_names}
    reason = "col_vals_ge quantity 1; col_vals_le discount 1"
    assert {(row["quantity"], row["discount"], row["_reason"]) for row in stored.to_pylist()} == {("-1", "1.5", reason)}


def test_merge_matches_nan_and_not_null(tmp_path: Path) -> None:
    """In a merge, a NaN key finds itself, and a NULL key does not."""
    for key, inserted in ((float("nan"), 0), (None, 1)):
        row = pa.table({"key": pa.array([key], pa.float64())})
        write_deltalake(tmp_path, row, mode="overwrite")
        merge = DeltaTable(tmp_path).merge(row, "t.key = s.key", "s", "t")
        assert merge.when_not_matched_insert_all().execute()["num_target_rows_inserted"] == inserted


def test_date_in_a_timestamp_becomes_midnight_in_utc(tmp_path: Path) -> None:
    """delta-rs rejects a naive time in a `timestamp` column, but casts a date without an error."""
    write_deltalake(tmp_path, pa.table({"at": pa.array([], pa.timestamp("us", "UTC"))}))
    write_deltalake(tmp_path, pa.table({"at": [date(2026, 1, 5)]}), mode="append")
    assert DeltaTable(tmp_path).to_pyarrow_table()["at"].to_pylist() == [datetime(2026, 1, 5, tzinfo=UTC)]


def test_column_mapping_gives_only_null_to_pandas_too(tmp_path: Path) -> None:
    """On a table with column mapping, `to_pandas` returns the rows without a value and without an error."""
    write_deltalake(tmp_path, pa.table({"id": [1]}), configuration={"delta.columnMapping.mode": "name"})
    assert DeltaTable(tmp_path).to_pandas()["id"].isna().all()


def test_column_that_must_not_be_null_is_added_to_rows_without_it(tmp_path: Path) -> None:
    """`add_columns` accepts nullable=False on a table with rows; then its rows cannot be updated or written again."""
    write_deltalake(tmp_path, pa.table({"id": [1]}))
    DeltaTable(tmp_path).alter.add_columns([Field("note", "string", nullable=False)])
    rows = DeltaTable(tmp_path).to_pyarrow_table()
    assert rows["note"].null_count == 1
    with pytest.raises(DeltaError, match="Non-nullable column 'note' is missing"):
        DeltaTable(tmp_path).update({"id": "id + 1"})
    with pytest.raises(DeltaError, match="1 rows failed validation"):
        write_deltalake(tmp_path, rows.cast(pa.schema([("id", pa.int64()), ("note", pa.string())])), mode="overwrite")


def test_update_and_merge_are_checked_by_constraints(tmp_path: Path) -> None:
    """A constraint holds for UPDATE and MERGE too, and dropping it does not lower the protocol."""
    write_deltalake(tmp_path, pa.table({"id": [1], "price": [1.0]}))
    DeltaTable(tmp_path).alter.add_constraint({"positive": "price > 0"})
    with pytest.raises(DeltaError):
        DeltaTable(tmp_path).update({"price": "price - 100"})
    merge = DeltaTable(tmp_path).merge(pa.table({"id": [1], "price": [-1.0]}), "t.id = s.id", "s", "t")
    with pytest.raises(DeltaError):
        merge.when_matched_update_all().execute()
    DeltaTable(tmp_path).alter.drop_constraint("positive")
    assert DeltaTable(tmp_path).protocol().min_writer_version == 3
