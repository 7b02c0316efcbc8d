"""Notebook 07: right answers that are written differently, and what its prose says about delta-rs."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.exceptions import DeltaError
from notebooks.books import Book

from lakehouse_utils.course import figures, views
from lakehouse_utils.course.exercises import Right, Wrong, nb07
from lakehouse_utils.lake import Lake

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
        names |= {"DeltaTable": DeltaTable, "views": views, "write_deltalake": write_deltalake}
        exec(Book.of_number("07").code_from("many_sales = ", cells=2), names)
    return names["measured"]


def test_no_layout_is_the_best_for_both_queries(measured: dict[str, dict[str, int]]) -> None:
    """Partitions read least for one day and most for one customer, where the Z-order reads least."""
    for what in ("requests", "bytes"):
        arrived, by_day, z_order = (measured[f"one day, {layout}"][what] for layout in nb07._LAYOUTS)
        assert by_day < arrived < z_order / 2
        arrived, by_day, z_order = (measured[f"one customer, {layout}"][what] for layout in nb07._LAYOUTS)
        assert z_order < arrived < by_day
    assert measured["one customer, by_day"]["files"] == "60 of 60"
    assert measured["one customer, as_it_arrived"]["files"] == "8 of 8"


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


def test_column_mapping_gives_only_null_to_pandas_too(tmp_path: Path) -> None:
    """On a table with column mapping, `to_pandas` returns the rows without a value and without an error."""
    write_deltalake(tmp_path, pa.table({"id": [1]}), configuration={"delta.columnMapping.mode": "name"})
    assert DeltaTable(tmp_path).to_pandas()["id"].isna().all()


def test_column_that_must_not_be_null_is_added_to_rows_without_it(tmp_path: Path) -> None:
    """`add_columns` accepts nullable=False on a table with rows; then its own rows cannot be written again."""
    write_deltalake(tmp_path, pa.table({"id": [1]}))
    DeltaTable(tmp_path).alter.add_columns([Field("note", "string", nullable=False)])
    rows = DeltaTable(tmp_path).to_pyarrow_table()
    assert rows["note"].null_count == 1
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
