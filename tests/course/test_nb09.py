"""Right answers to the exercises of notebook 09 that are written differently from the solution."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from lakehouse_utils.course import exercises
from lakehouse_utils.lake import Lake

Sell = Callable[..., bool]


def sell_in_sql(
    open_table: Callable[[], DeltaTable], pause: Callable[[float], None], product: int, pieces: int
) -> bool:
    """Let the update itself check the quantity."""
    for attempts_left in (4, 3, 2, 1, 0):
        try:
            enough = f"product_id = {product} AND quantity >= {pieces}"
            done = open_table().update({"quantity": f"quantity - {pieces}"}, predicate=enough)
        except CommitFailedError:
            if not attempts_left:
                raise
            pause(random.random())
        else:
            return done["num_updated_rows"] == 1
    raise AssertionError


def sell_by_recursion(
    open_table: Callable[[], DeltaTable], pause: Callable[[float], None], product: int, pieces: int, attempt: int = 1
) -> bool:
    """Call itself again after a conflict."""
    table = open_table()
    rows = table.to_pyarrow_table(filters=[("product_id", "=", product)]).to_pylist()
    if rows[0]["quantity"] < pieces:
        return False
    try:
        table.update(new_values={"quantity": rows[0]["quantity"] - pieces}, predicate=f"product_id = {product}")
    except CommitFailedError:
        if attempt >= 5:
            raise
        pause(min(1.0, random.expovariate(10)))
        return sell_by_recursion(open_table, pause, product, pieces, attempt + 1)
    return True


@pytest.mark.parametrize("sell", [sell_in_sql, sell_by_recursion])
def test_other_retry_loops(lake: Lake, sell: Sell) -> None:
    """A check in the predicate of the update, and a recursive function, are right as well."""
    assert verdict("09.1", sell, lake).startswith("No sale is lost")


def test_other_orphans(lake: Lake) -> None:
    """A tuple is as good as a list."""
    write_deltalake(lake.uri("shop", "deliveries"), pa.table({"id": [1]}), storage_options=lake.storage_options)
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("shop", "deliveries", "part-1.parquet"), Body=b"")
    assert verdict("09.2", ("part-1.parquet",), lake).startswith("No commit names part-1.parquet")


def test_numbers_of_numpy(lake: Lake) -> None:
    """Numbers that NumPy or pandas computed are accepted."""
    address = lake.uri("shop", "payments")
    for number in (1, 2):
        rows = pa.table({"payment_id": [number]})
        write_deltalake(address, rows, mode="append", storage_options=lake.storage_options)
    handles = [DeltaTable(address, storage_options=lake.storage_options) for _ in range(2)]
    for handle in handles:
        handle.optimize.compact()
    answer = {"version": np.int64(3), "surplus": np.int64(2)}
    assert verdict("09.3", answer, lake).startswith("Version 3 was based on version 1.")


def verdict(id: str, answer: Any, lake: Lake) -> str:
    """What the check says about a right answer."""
    return exercises.of_notebook("09")[id].check(answer, lake).text
