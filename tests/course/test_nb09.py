"""Notebook 09: right answers that are written differently, and the pairs of operations that make a wrong table."""

import random
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from notebooks.books import Book
from support.exercises import verdict

from lakehouse_utils.course import interleavings
from lakehouse_utils.course.exercises import Wrong, check, nb09
from lakehouse_utils.course.interleavings import SmallWriter
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


def test_a_commit_that_does_not_arrive(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook's writer puts its commit again if the connection ends before the server has it."""
    names: dict[str, Any] = {"ClientError": ClientError, "HTTPClientError": HTTPClientError}
    exec(Book.of_number("09").code_from("def append(writer)"), names)
    put, versions = SmallWriter.put_commit, list[int]()

    def put_at_second_attempt(writer: SmallWriter, version: int, commit: bytes) -> None:
        versions.append(version)
        if len(versions) == 1:
            raise ConnectionClosedError(endpoint_url=lake.endpoint)
        put(writer, version, commit)

    monkeypatch.setattr(SmallWriter, "put_commit", put_at_second_attempt)
    DeltaTable.create(lake.uri("ledger"), pa.schema({"writer": pa.string()}), storage_options=lake.storage_options)
    (run,) = interleavings.explore(lake, names["append"], "ledger", writers=["A"])
    assert (run.rows, run.errors, versions) == ("A", {}, [1, 1])


class Seller:
    """Sells when it is called."""

    def __call__(self, *arguments: Any) -> bool:
        return sell_in_sql(*arguments)


@pytest.mark.parametrize("sell", [Seller(), partial(sell_by_recursion, attempt=1)], ids=["object", "partial"])
def test_other_callables(lake: Lake, monkeypatch: pytest.MonkeyPatch, sell: Sell) -> None:
    """What can be called like a function is accepted like one."""
    monkeypatch.setattr("lakehouse_utils.course.lessons.current", lambda: lake)
    assert check("09.1", sell).solved


def sell_with_an_old_handle(
    open_table: Callable[[], DeltaTable], _pause: Callable[[float], None], product: int, pieces: int
) -> bool:
    """Neither open the table again nor pause after a conflict."""
    table = open_table()
    while True:
        try:
            table.update({"quantity": f"quantity - {pieces}"}, predicate=f"product_id = {product}")
        except CommitFailedError:
            continue
        return True


def sell_without_an_end(*_arguments: Any) -> bool:
    """Never end, before the table is opened."""
    while True:
        time.sleep(0.1)


def sell_and_catch_everything(open_table: Callable[[], DeltaTable], pause: Callable[[float], None], *_: Any) -> bool:
    """Neither Ctrl+C nor an exception ends it."""
    while True:
        try:
            open_table().update({"quantity": "NULL + 1"}, predicate="no_such_column")
        except:  # noqa: E722
            pause(0.1)


@pytest.mark.parametrize(
    ("sell", "hint"),
    [
        (sell_with_an_old_handle, "Open the table in each"),
        (sell_without_an_end, "does not end"),
        (sell_and_catch_everything, "does not end"),
    ],
)
def test_a_loop_without_an_end(lake: Lake, monkeypatch: pytest.MonkeyPatch, sell: Sell, hint: str) -> None:
    """A function that calls nothing that the check passes to it is interrupted after a while."""
    monkeypatch.setattr(nb09, "_TIME_LIMIT_S", 3.0)
    monkeypatch.setattr(nb09, "_check_simple_sales", lambda *_: None)
    with pytest.raises(Wrong, match=hint):
        verdict("09.1", sell, lake)


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


def test_a_table_that_was_written_twice(lake: Lake) -> None:
    """If the cell that makes the table of 09.3 is run again, the answer of either run is right."""
    names: dict[str, Any] = {"lake": lake, "S3": {"storage_options": lake.storage_options}, "pa": pa}
    names |= {"DeltaTable": DeltaTable, "write_deltalake": write_deltalake}
    code = Book.of_number("09").code_from("payments = lake.uri")
    for version in (4, 11):
        exec(code, names)
        text = verdict("09.3", {"version": version, "surplus": 51}, lake)
        assert text == f"Version {version} was based on version {version - 2}. Of its 60 copies, 51 are left."


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
    assert names["result"]("append", "overwrite", is_stale=True) == [4, 5, 9]  # right only in the other order
