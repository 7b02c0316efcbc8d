"""Notebook 04: its prediction is what happens, right answers in other spellings, and what its prose says."""

import csv
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from lakehouse_utils.course.exercises import Right, Wrong, nb04
from lakehouse_utils.lake import Lake
from lakehouse_utils.settings import CHECKOUT

FEED_ON = {"delta.enableChangeDataFeed": "true"}


def open_table(lake: Lake, *names: str) -> DeltaTable:
    return DeltaTable(lake.uri(*names), storage_options=lake.storage_options)


# -- 04.1


def test_prediction_is_what_happens(lake: Lake) -> None:
    """The calls of exercise 04.1, run for real, give the five numbers of the right answer."""
    uri, at = lake.uri("versions"), {"storage_options": lake.storage_options}
    brands, two = (pa.table({"brand_id": list(ids)}) for ids in (range(1, 10), (10, 11)))
    write_deltalake(uri, brands, **at)
    reader = DeltaTable(uri, **at)
    DeltaTable(uri, **at).delete("brand_id > 6")
    write_deltalake(uri, two, mode="append", **at)
    DeltaTable(uri, **at).restore(0)
    write_deltalake(uri, two, mode="append", **at)
    with pytest.raises(DeltaError, match="should be less then"):
        DeltaTable(uri, version=1, **at).restore(1)
    DeltaTable(uri, **at).restore(2)
    DeltaTable(uri, **at).delete("brand_id = 1")
    table = DeltaTable(uri, **at)
    numbers = [table.version(), table.count(), reader.count(), DeltaTable(uri, version=4, **at).count()]
    table.load_as_version("1999-12-31T00:00:00Z")
    assert (*numbers, table.version()) == nb04.PREDICTED


@pytest.mark.parametrize("kind", [tuple, list, np.array, lambda numbers: [np.int64(number) for number in numbers]])
def test_prediction_in_any_sequence(kind: Callable[[tuple[int, ...]], Any], lake: Lake) -> None:
    """The five numbers are accepted as a tuple, a list or an array, and no other number is."""
    assert isinstance(nb04.check_prediction(kind(nb04.PREDICTED), lake), Right)
    for position, right in enumerate(nb04.PREDICTED):
        for number in {*range(15)} - {right}:
            changed = [*nb04.PREDICTED[:position], number, *nb04.PREDICTED[position + 1 :]]
            with pytest.raises(Wrong):
                nb04.check_prediction(changed, lake)


# -- 04.2


def with_pandas(_copy: dict[int, Any], feed: list[dict[str, Any]]) -> dict[int, float]:
    rows = pd.DataFrame(feed).query("_change_type != 'update_preimage'")
    rows = rows.sort_values(["_commit_version", "_change_type"]).drop_duplicates("product_id", keep="last")
    gone = set(rows["product_id"][rows["_change_type"] == "delete"])
    new = rows[rows["_change_type"] != "delete"].set_index("product_id")["list_price"].astype(float)
    return {product: float(price) for product, price in (_copy | new.to_dict()).items() if product not in gone}


def in_passes(copy: dict[int, Any], feed: list[dict[str, Any]]) -> None:
    for version in sorted({row["_commit_version"] for row in feed}):
        rows = [row for row in feed if row["_commit_version"] == version]
        for row in rows:
            if row["_change_type"] in ("delete", "update_preimage"):
                del copy[row["product_id"]]
        for row in rows:
            if row["_change_type"] in ("insert", "update_postimage"):
                copy[row["product_id"]] = row["list_price"]


def by_time(copy: dict[int, Any], feed: list[dict[str, Any]]) -> dict[int, Any]:
    order = ("update_preimage", "delete", "insert", "update_postimage")
    copy = dict(copy)
    for row in sorted(feed, key=lambda row: (row["_commit_timestamp"], order.index(row["_change_type"]))):
        match row["_change_type"]:
            case "delete":
                copy.pop(row["product_id"])
            case "insert" | "update_postimage":
                copy |= {row["product_id"]: row["list_price"]}
    return copy


@pytest.fixture
def price_list(lake: Lake) -> DeltaTable:
    """shop/prices with the commits of the notebook: two updates, a restore that switches the feed off, and its undo."""
    uri, at = lake.uri("shop", "prices"), {"storage_options": lake.storage_options}
    prices = [Decimal(f"{product}.99") for product in range(1, 41)]
    write_deltalake(uri, pa.table({"product_id": list(range(1, 41)), "list_price": prices}), **at)
    DeltaTable(uri, **at).update({"list_price": "list_price + 1"}, predicate="product_id = 3")
    DeltaTable(uri, **at).alter.set_table_properties(FEED_ON)
    DeltaTable(uri, **at).delete("product_id = 7")
    DeltaTable(uri, **at).update({"list_price": "list_price * 0.8"})
    DeltaTable(uri, **at).update({"list_price": "list_price + 3"}, predicate="product_id = 8")
    DeltaTable(uri, **at).restore(0)
    DeltaTable(uri, **at).restore(5)
    DeltaTable(uri, **at).update({"list_price": "list_price / 0.8"}, predicate="product_id <> 8")
    return DeltaTable(uri, **at)


@pytest.mark.parametrize("follow", [with_pandas, in_passes, by_time])
def test_feed_reader_in_other_spellings(
    follow: Callable[[dict[int, Any], list[dict[str, Any]]], Any], price_list: DeltaTable, lake: Lake
) -> None:
    """A reader may use pandas, change its argument or return a new dict, keep floats, and order by commit time."""
    assert price_list.version() == 8
    assert isinstance(nb04.check_feed_reader(follow, lake), Right)


def test_feed_after_a_restore_that_switched_it_off(price_list: DeltaTable) -> None:
    """The feed has an error at the version of that restore, also after its undo, and goes on with the next version."""
    with pytest.raises(DeltaError, match="does not have change data enabled"):
        price_list.load_cdf(starting_version=6)
    assert pa.table(price_list.load_cdf(starting_version=8)).num_rows == 2 * 38


# -- 04.3


@pytest.fixture
def stocks(lake: Lake) -> DeltaTable:
    """A table of stocks as `stocks_with_mistake` makes it."""
    uri, at = lake.uri("shop", "stocks-1"), {"storage_options": lake.storage_options}
    keys = [(store, product) for store in (1, 2, 3) for product in range(1, 61)]
    columns = {"store_id": [store for store, _ in keys], "product_id": [product for _, product in keys]}
    write_deltalake(uri, pa.table({**columns, "quantity": [store + product for store, product in keys]}), **at)
    DeltaTable(uri, **at).update({"quantity": "0"}, predicate="product_id <= 20")
    counted = pa.table({"store_id": [1, 3, 3], "product_id": [5, 7, 50], "quantity": [12, 8, 31]})
    key = "t.store_id = s.store_id AND t.product_id = s.product_id"
    DeltaTable(uri, **at).merge(counted, key, "s", "t").when_matched_update_all().execute()
    return DeltaTable(uri, **at)


def overwrite(table: DeltaTable, lake: Lake) -> None:
    with lake.duckdb() as db:
        rows = db.sql(f"""
            SELECT store_id, product_id, if(now.quantity > 0 OR store_id = 2, now.quantity, old.quantity) AS quantity
            FROM delta_scan('{table.table_uri}') AS now
            JOIN delta_scan('{table.table_uri}', version => 0) AS old USING (store_id, product_id)
        """).to_arrow_table()
    write_deltalake(table.table_uri, rows, mode="overwrite", storage_options=lake.storage_options)


def restore_then_apply_again(table: DeltaTable, _lake: Lake) -> None:
    table.restore(0)
    table.update({"quantity": "0"}, predicate="product_id <= 20 AND store_id = 2")
    for store, product, quantity in ((1, 5, 12), (3, 7, 8), (3, 50, 31)):
        table.update({"quantity": str(quantity)}, predicate=f"store_id = {store} AND product_id = {product}")


@pytest.mark.parametrize("repair", [overwrite, restore_then_apply_again])
def test_repair_in_other_ways(repair: Callable[[DeltaTable, Lake], None], stocks: DeltaTable, lake: Lake) -> None:
    """A repair is right however it is made, and the answer may be an older handle."""
    repair(DeltaTable(stocks.table_uri, storage_options=lake.storage_options), lake)
    assert isinstance(nb04.check_repaired_stocks(stocks, lake), Right)


# -- what the prose says


def test_brand_9_is_volta() -> None:
    """The brand that the notebook calls Volta has the number 9."""
    with (CHECKOUT / "data" / "landing" / "2026-01-01" / "brands.csv").open(encoding="utf-8-sig") as file:
        assert {row["brand_id"]: row["brand_name"] for row in csv.DictReader(file)}["9"] == "Volta"


def test_time_of_a_version_is_that_of_its_file(lake: Lake) -> None:
    """In a copy, a time before it was made opens version 0, although the history says that version 1 was there."""
    write_deltalake(lake.uri("a"), pa.table({"id": [1]}), storage_options=lake.storage_options)
    open_table(lake, "a").delete()
    log = lake.key("a", "_delta_log", f"{1:020}.json")
    stored = lake.s3.head_object(Bucket=lake.bucket, Key=log)["LastModified"]
    time.sleep(2)
    for entry in list(lake.objects(lake.key("a", ""))):
        key = entry["Key"].replace(lake.key("a", ""), lake.key("b", ""))
        lake.s3.copy_object(Bucket=lake.bucket, Key=key, CopySource={"Bucket": lake.bucket, "Key": entry["Key"]})
    for name, version in (("a", 1), ("b", 0)):
        table = open_table(lake, name)
        assert table.history(1)[0]["timestamp"] / 1000 < stored.timestamp() + 1
        table.load_as_version(datetime.fromtimestamp(stored.timestamp() + 1, UTC))
        assert table.version() == version


def test_attach_ignores_unknown_options(lake: Lake) -> None:
    """DuckDB attaches a Delta table with an option that does not exist, and reads the newest version."""
    write_deltalake(lake.uri("t"), pa.table({"id": [1, 2]}), storage_options=lake.storage_options)
    open_table(lake, "t").delete("id = 1")
    with lake.duckdb() as db:
        db.sql(f"ATTACH '{lake.uri('t')}' AS t (TYPE delta, NO_SUCH_OPTION 0)")
        assert db.sql("FROM t").fetchall() == [(2,)]


def test_feed_has_files_that_only_a_full_vacuum_deletes(lake: Lake) -> None:
    """UPDATE, DELETE and MERGE write changed rows into _change_data, which vacuum keeps unless it is full."""
    rows = pa.table({"id": [1, 2, 3, 4], "price": [1, 2, 3, 4]})
    options = {"storage_options": lake.storage_options}
    write_deltalake(lake.uri("t"), rows, configuration=FEED_ON, **options)
    table = open_table(lake, "t")

    def feed_files() -> int:
        return len(list(lake.objects(lake.key("t", "_change_data", ""))))

    counts = [feed_files()]
    table.update({"price": "9"}, predicate="id = 1")
    counts.append(feed_files())
    table.delete("id = 2")
    counts.append(feed_files())
    table.merge(rows.slice(2, 1), "t.id = s.id", "s", "t").when_matched_update({"price": "7"}).execute()
    counts.append(feed_files())
    assert counts == [0, 1, 2, 3]
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert feed_files() == 3
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    assert feed_files() == 0
