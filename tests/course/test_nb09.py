"""Notebook 09: right answers that are written differently, and the pairs of operations that make a wrong table."""

import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from notebooks.books import Book
from support.exercises import verdict

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


def sell_with_two_handles(
    open_table: Callable[[], DeltaTable], pause: Callable[[float], None], product: int, pieces: int
) -> bool:
    """Read with one handle, and update with another one and a condition, so that both need not agree."""
    attempt = 0
    while True:
        attempt += 1
        stock = duckdb.from_arrow(open_table().to_pyarrow_table()).filter(f"product_id = {product}").fetchone()
        if stock is None or stock[1] < pieces:
            return False
        try:
            condition = f"product_id = {product} AND quantity = {stock[1]}"
            if open_table().update({"quantity": f"quantity - {pieces}"}, predicate=condition)["num_updated_rows"]:
                return True
        except CommitFailedError:
            if attempt == 5:
                raise
        if attempt == 5:
            raise CommitFailedError("another writer is always faster")
        pause(random.uniform(0, 0.5))


def sell_by_merge(
    open_table: Callable[[], DeltaTable], pause: Callable[[float], None], product: int, pieces: int
) -> bool:
    """Sell with a MERGE, and raise the last error after the loop."""
    failure: CommitFailedError | None = None
    for seconds in (random.random(), random.random(), random.random(), random.random(), None):
        table = open_table()
        quantity = dict(table.to_pandas().itertuples(index=False))[product]
        if quantity < pieces:
            return False
        row = pa.table({"product_id": [product], "quantity": [int(quantity) - pieces]})
        merge = table.merge(row, "t.product_id = s.product_id", "s", "t").when_matched_update_all()
        try:
            merge.execute()
        except CommitFailedError as error:
            failure = error
            if seconds is not None:
                pause(seconds)
        else:
            return True
    assert failure
    raise failure


@pytest.mark.parametrize("sell", [sell_in_sql, sell_by_recursion, sell_with_two_handles, sell_by_merge])
def test_other_retry_loops(lake: Lake, sell: Sell) -> None:
    """A condition in the update, recursion, two handles per attempt, and a MERGE are right as well."""
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


@pytest.mark.slow
def test_pairs_of_operations(lake: Lake) -> None:
    """The notebook's code finds the wrong pairs that its text names, and the conflicts that delta-rs reports."""
    names: dict[str, Any] = {"lake": lake, "S3": {"storage_options": lake.storage_options}, "pa": pa, "pd": pd}
    names |= {"DeltaTable": DeltaTable, "write_deltalake": write_deltalake, "CommitFailedError": CommitFailedError}
    names |= {"time": time, "figures": SimpleNamespace(pairs=lambda *_: None)}
    exec(Book.of_number("09").code_from("OPERATIONS = {", cells=3), names)
    outcomes = names["pairs"]  # the first operation in the index, the second one in the columns
    wrong = {(a, b) for a in outcomes.index for b in outcomes.columns if outcomes.loc[a, b] == "wrong"}
    assert wrong == {
        *((a, b) for a in ("compact", "z_order") for b in ("compact", "z_order", "overwrite")),
        ("merge", "overwrite"),
    }
    assert outcomes.loc["delete", "delete"] == "error"
