"""The star schema: every row is as expected, surrogate keys are consistent and stable, and no fact is lost."""

import hashlib
import re
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from support import expected, lakes

from lakehouse_utils.errors import LakehouseError, MissingTableError
from lakehouse_utils.pipeline import gold, silver, sources, sql

CUSTOMER_1 = 320896164768696093
STORES = {None: -1, 1: 682615708181501346, 2: 10427466997675096, 3: 160484817934583614}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNKNOWN_ID = 999_999_999  # in the sample data, an id that no table has


@pytest.fixture(scope="module")
def should_be(finished):
    return expected.tables(finished.landing, sources.SHOP)


@pytest.fixture
def own_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's SQL that the test may change; the pipeline reads this copy."""
    folder = tmp_path / "sql"
    shutil.copytree(sql.FOLDER, folder)
    monkeypatch.setattr(sql, "FOLDER", folder)
    return folder


def rows_of(finished, name: str) -> list[dict]:
    return lakes.rows(finished.lake.delta("gold", name))


# -- rows


def test_every_table_of_the_shop_has_the_expected_rows(finished, should_be):
    """Every silver, quarantine and gold table has exactly the rows of the independent expectation."""
    assert lakes.unlike(finished.lake, should_be) == {}


def test_every_table_has_an_expectation(should_be):
    """A table that is added to sources.toml or to sql/gold/ needs an expectation in tests/support/expected.py."""
    shop = sources.load()
    names = {f"gold.{name}" for name in gold.TABLES} | {f"quarantine.{name}" for name in shop}
    names |= {f"silver.{name}" for source in shop.values() for name in silver.tables(source)}
    missing, surplus = sorted(names - should_be.keys()), sorted(should_be.keys() - names)
    assert not missing, f"add to tests/support/expected.py: {', '.join(missing)}"
    assert not surplus, f"remove from tests/support/expected.py: {', '.join(surplus)}"


def test_unknown_members_are_used_only_for_unknown_ids(finished):
    """Facts point to the unknown member where the raw files name no known member, and nowhere else."""
    facts = rows_of(finished, "fact_sales")
    assert len(facts) == finished.lake.delta("silver", "order_items").count()
    assert {row["order_id"] for row in facts if row["date_sk"] == -1} == {UNKNOWN_ID}
    assert [row["item_id"] for row in facts if row["product_sk"] == -1] == [8]
    without_customer = {row["order_id"] for row in facts if row["customer_sk"] == -1} - {UNKNOWN_ID}
    orders = {row["order_id"]: row["customer_id"] for row in lakes.rows(finished.lake.delta("silver", "orders"))}
    assert {orders[order_id] for order_id in without_customer} == {None, UNKNOWN_ID}
    for key in ("staff_sk", "store_sk"):
        assert {row["order_id"] for row in facts if row[key] == -1} == {UNKNOWN_ID}


@pytest.mark.slow
def test_rows_are_the_same_in_any_order_of_arrival(lake, finished, small, small_expected, tmp_path):
    """With the latest batch first, versions of dimensions appear behind facts that already point to others."""
    batches = [f"2026-01-0{day}" for day in range(1, 8)]
    for run in (batches[3:], batches[1:2], batches[2:3] + batches[:1]):
        for batch in run:
            shutil.copytree(small / batch, tmp_path / batch)
        lakes.job(lake, tmp_path)
    assert lakes.unlike(lake, small_expected) == {}
    for table, member in {"dim_customers": "customer", "dim_products": "product"}.items():
        small_keys, finished_keys = (
            {(row[f"{member}_id"], row["valid_from"]): row[f"{member}_sk"] for row in lakes.rows(any_lake)}
            for any_lake in (lake.delta("gold", table), finished.lake.delta("gold", table))
        )
        in_both = small_keys.keys() & finished_keys.keys()
        common = {key for key in in_both if key[0] and key[0] <= 200}  # beyond, a small shop has other members
        assert len(common) > 190
        assert {key: small_keys[key] for key in common} == {key: finished_keys[key] for key in common}


def test_product_mart_has_current_names_of_products_without_recent_sales(finished):
    """Product 8 got new prices, and therefore new versions, after its last sale."""
    products = {row["product_id"]: row for row in rows_of(finished, "mart_product_sales")}
    current = {row["product_id"]: row for row in rows_of(finished, "dim_products") if row["is_current"]}
    assert len(products) > 290
    assert all(row["product_name"] == current[product_id]["product_name"] for product_id, row in products.items())


def test_an_order_on_the_last_possible_day_finds_its_customer(lake, tmp_path):
    """9999-12-31, which some systems write for "never", is a date like any other."""
    write_shop(tmp_path, order_date="9999-12-31")
    lakes.job(lake, tmp_path)
    (fact,) = lakes.rows(lake.delta("gold", "fact_sales"))
    assert -1 not in fact.values()


def test_a_plain_folder_of_csv_files_runs_without_notes(lake, tmp_path):
    """Files from elsewhere, with the contract's columns only and not in batches, give a complete star schema."""
    write_shop(tmp_path)
    progress = lakes.RecordingProgress()
    lakes.job(lake, tmp_path, progress=progress)
    assert progress.sentences == []
    (fact,) = lakes.rows(lake.delta("gold", "fact_sales"))
    assert -1 not in fact.values()
    assert fact["net_amount"] == Decimal("39.9840")
    (stock,) = lakes.rows(lake.delta("gold", "fact_stocks"))
    assert -1 not in stock.values()
    before = lakes.versions(lake)
    assert not lakes.job(lake, tmp_path).changed_anything
    assert lakes.versions(lake) == before


# -- surrogate keys


@pytest.mark.parametrize("key", ["product_sk", "customer_sk", "staff_sk", "store_sk", "date_sk"])
def test_facts_point_to_members_of_their_dimension(finished, key):
    """Each surrogate key in a fact table is a unique member of its dimension."""
    name = "dim_date" if key == "date_sk" else f"dim_{lakes.KEYS[key]}"
    members = [row[key] for row in rows_of(finished, name)]
    assert len(set(members)) == len(members)
    for fact in ("fact_sales", "fact_stocks"):
        assert {row[key] for row in rows_of(finished, fact) if key in row} <= set(members)


def test_surrogate_keys_never_change(finished):
    """The keys have fixed values, because tables and reports outside of the lake may refer to them."""
    customers = {(row["customer_id"], row["is_current"]): row for row in rows_of(finished, "dim_customers")}
    assert customers[1, True]["customer_sk"] == CUSTOMER_1
    assert {row["store_id"]: row["store_sk"] for row in rows_of(finished, "dim_stores")} == STORES


def test_surrogate_keys_of_different_dimensions_differ(finished):
    """A key is a hash of the dimension's name and the id: a member of staff and a store with one id differ."""
    staffs = {row["staff_id"]: row["staff_sk"] for row in rows_of(finished, "dim_staffs")}
    stores = {row["store_id"]: row["store_sk"] for row in rows_of(finished, "dim_stores")}
    assert len(staffs.keys() & stores.keys() - {None}) == 3
    for dimension, keys in {"dim_staffs": staffs, "dim_stores": stores}.items():
        hashes = {n: hashlib.md5(f"{dimension}|{n}".encode()).hexdigest() for n in keys if n is not None}
        assert keys == {None: -1} | {n: int(digest[:15], 16) for n, digest in hashes.items()}
    all_keys = [row[key] for key, table in lakes.KEYS.items() for row in rows_of(finished, f"dim_{table}")]
    assert len(all_keys) - len(set(all_keys)) == 3, "only the four unknown members share -1"


def test_surrogate_keys_of_versions_are_hashes_of_dimension_id_and_start(finished):
    """The key of a version can be computed from the dimension's name, the id and the moment the version began."""
    for dimension, member in {"dim_customers": "customer", "dim_products": "product"}.items():
        later_versions = [row for row in rows_of(finished, dimension) if row["valid_from"] > expected.BEGINNING]
        assert len(later_versions) >= 6
        for row in later_versions:
            microseconds = (row["valid_from"] - EPOCH) // timedelta(microseconds=1)
            text = f"{dimension}|{row[f'{member}_id']}|{microseconds}"
            assert row[f"{member}_sk"] == int(hashlib.md5(text.encode()).hexdigest()[:15], 16)


# -- definitions


def test_tables_are_ordered_by_what_they_read():
    """Every gold table comes after the gold tables that it reads, and dimensions come first."""
    for index, name in enumerate(gold.TABLES):
        upstream = {table for layer, table in gold.GoldTable.load(name).reads if layer == "gold"}
        assert upstream <= set(gold.TABLES[:index]), name
    kinds = [name.partition("_")[0] for name in gold.TABLES]
    assert set(kinds) == {"dim", "fact", "mart"}, "the name of a gold table starts with dim_, fact_ or mart_"
    assert kinds == sorted(kinds)


def test_a_new_sql_file_becomes_a_table(own_sql):
    """A file that is added to the folder is found, and it comes after the table that it reads, whatever its name."""
    text = "-- key: store_sk\n-- reads: gold.mart_product_sales\n\n-- name: rows\nSELECT 1 AS store_sk\n"
    (own_sql / "gold" / "a_new_table.sql").write_text(text, encoding="utf-8")
    tables = gold.tables()
    assert set(tables) == {*gold.TABLES, "a_new_table"}
    assert tables.index("a_new_table") > tables.index("mart_product_sales")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-- reads: silver.stores\n\n-- name: rows\n", "mart_new.sql has no line `-- key: <column>, ...`"),
        ("-- key: k\n\n-- name: rows\n", "mart_new.sql has no line `-- reads: <layer>.<table>, ...`"),
        ("-- key: k\n-- reads: stores\n\n-- name: rows\n", "mart_new.sql has no line `-- reads: <layer>.<table>, ...`"),
        ("-- key: k\n-- reads: silver.stores\n\nSELECT 1 AS k\n", "mart_new.sql has no line `-- name: rows`"),
        (
            "-- key: k\n-- reads: gold.dim_none\n\n-- name: rows\n",
            "mart_new.sql reads gold.dim_none, which has no file",
        ),
    ],
)
def test_an_incomplete_sql_file_is_refused(own_sql, text, message):
    """A gold table without its key, its inputs or its rows is refused with the name of the file and what it lacks."""
    (own_sql / "gold" / "mart_new.sql").write_text(text, encoding="utf-8")
    with pytest.raises(LakehouseError, match=re.escape(message)):
        gold.tables()


@pytest.mark.slow
def test_changed_sql_is_applied_to_tables_that_are_up_to_date(lake, tmp_path, own_sql):
    """A lake that was built with another formula for surrogate keys gets the current keys in every gold table."""
    landing = tmp_path / "landing"
    (landing / "2026-01-01").mkdir(parents=True)
    write_shop(landing / "2026-01-01")
    functions = own_sql / "functions.sql"
    current = functions.read_text(encoding="utf-8")
    functions.write_text(current.replace("concat_ws('|', dimension, ", "concat_ws('|', "), encoding="utf-8")
    lakes.job(lake, landing)
    functions.write_text(current, encoding="utf-8")
    assert lakes.job(lake, landing).changed_anything
    assert lakes.unlike(lake, expected.tables(landing, sources.SHOP)) == {}
    assert STORES[1] in {row["store_sk"] for row in lakes.rows(lake.delta("gold", "dim_stores"))}
    before = lakes.versions(lake)
    assert not lakes.job(lake, landing).changed_anything
    assert lakes.versions(lake) == before


def test_a_table_with_other_columns_than_its_sql_is_refused(lake, tmp_path, own_sql):
    """A column that is added to the SQL of an existing table is reported, with the option that changes the table."""
    landing = tmp_path / "landing"
    landing.mkdir()
    write_shop(landing)
    lakes.job(lake, landing)
    stores = own_sql / "gold" / "dim_stores.sql"
    text = stores.read_text(encoding="utf-8")
    stores.write_text(text.replace("    zip_code\n", "    zip_code, 1 AS n\n").replace("NULL\n", "NULL, 1\n"))
    with pytest.raises(
        LakehouseError,
        match=r"^gold\.dim_stores and .+ do not have the same columns; only .+ has n\. .+ --rebuild gold\.dim_stores\.",
    ):
        lakes.job(lake, landing)


def test_a_missing_silver_table_is_named(lake, tmp_path):
    """Gold without silver names the table that it needs and the layer to run first."""
    write_shop(tmp_path)
    with pytest.raises(MissingTableError, match=r"made from silver\.customers_history, which does not exist") as raised:
        lakes.job(lake, tmp_path, layers=("gold",), tables=("dim_customers",))
    assert raised.value.table == "silver.customers_history"


def write_shop(folder: Path, order_date: str = "2016-01-01") -> None:
    """A shop with one row in each table, with the contract's columns and no others."""
    texts = {
        "brands": "brand_id,brand_name\n1,Volta",
        "categories": "category_id,category_name\n1,Bikes",
        "customers": "customer_id,first_name,last_name,phone,email,street,city,state,zip_code\n1,A,B,NULL,,,,NY,00501",
        "products": "product_id,product_name,brand_id,category_id,model_year,list_price\n1,Bike,1,1,2016,24.99",
        "stores": "store_id,store_name,phone,email,street,city,state,zip_code\n1,S,,,,,,",
        "staffs": "staff_id,first_name,last_name,email,phone,active,store_id,manager_id\n1,A,B,,,1,1,NULL",
        "orders": "order_id,customer_id,order_status,order_date,required_date,shipped_date,store_id,staff_id\n"
        f"1,1,4,{order_date},2016-01-03,NULL,1,1",
        "order_items": "order_id,item_id,product_id,quantity,list_price,discount\n1,1,1,2,24.99,0.2",
        "stocks": "store_id,product_id,quantity\n1,1,27",
    }
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text + "\n", encoding="utf-8")
