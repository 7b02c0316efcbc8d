"""Notebook 07: right answers that are written differently, and what its prose says about delta-rs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.exceptions import DeltaError

from lakehouse_utils.course.exercises import Right, Wrong, nb07
from lakehouse_utils.lake import Lake


@pytest.mark.parametrize("kind", [list, set, tuple, np.array, pd.Series, pl.Series])
def test_valid_lines_in_any_collection(kind: Callable[[list[int]], object], lake: Lake) -> None:
    """The lines are accepted in any order and in any collection."""
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
    for append, prediction in right.items():
        for other in {"stored", "rejected", "changed"} - {prediction}:
            with pytest.raises(Wrong, match=f"{append} is not {other}"):
                nb07.check_predictions({**right, append: other}, lake)


def test_layout_as_list_or_tuple_and_with_any_integer(lake: Lake) -> None:
    """The layout and the number are accepted as a tuple or a list, with an integer of Python or NumPy."""
    days, customers = np.repeat(np.arange("2026-01-01", "2026-03-02", dtype="datetime64[D]"), 2000), np.arange(120_000)
    rows = pa.table({"day": days, "customer_id": customers % 2000, "amount": customers * 7919 % 100_003})
    options = {"storage_options": lake.storage_options}
    write_deltalake(lake.uri("layouts", "by_day"), rows, partition_by=["day"], **options)
    for layout in ("as_it_arrived", "z_order"):
        for begin in range(0, len(rows), 15_000):
            write_deltalake(lake.uri("layouts", layout), rows.slice(begin, 15_000), mode="append", **options)
    ordered = DeltaTable(lake.uri("layouts", "z_order"), **options)
    ordered.optimize.z_order(columns=["customer_id", "day"], target_size=100_000)
    per_day = nb07._per_day(nb07._measure(lake), "requests")
    best = min(per_day, key=per_day.__getitem__)
    number = per_day[best]
    for answer in ((best, number), [best, np.int64(number)], (best, float(number))):
        assert isinstance(nb07.check_layout(answer, lake), Right)
    with pytest.raises(Wrong):
        nb07.check_layout((best, number + 1), lake)


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
