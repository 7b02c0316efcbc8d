"""The star schema: every row is as expected, keys hold together, and nothing is lost."""

import shutil
from decimal import Decimal

import pytest
from support import expected, lakes

from lakehouse_utils.pipeline import sources

CUSTOMER_1 = 546728865302957034
STORES = {None: -1, 1: 886263699231969848, 2: 901255563090117366, 3: 1066434503623691823}


@pytest.fixture(scope="module")
def should_be(finished):
    return expected.tables(finished.landing, sources.SHOP)


def test_every_row_of_every_table_is_as_expected(finished, should_be):
    assert len(should_be) == 9 + 11 + 10
    assert lakes.unlike(finished.lake, should_be) == {}


def test_the_tables_hold_what_the_raw_files_are_known_to_hold(finished):
    """The unknown members are used where the raw files name nobody that is known, and nowhere else."""
    facts = lakes.rows(finished.lake.delta("gold", "fact_sales"))
    nobody = 999_999_999
    assert len(facts) == finished.lake.delta("silver", "order_items").count()
    assert {row["order_id"] for row in facts if row["date_sk"] == -1} == {nobody}
    assert [row["item_id"] for row in facts if row["product_sk"] == -1] == [8]
    strangers = {row["order_id"] for row in facts if row["customer_sk"] == -1} - {nobody}
    orders = {row["order_id"]: row["customer_id"] for row in lakes.rows(finished.lake.delta("silver", "orders"))}
    assert {orders[order_id] for order_id in strangers} == {None, nobody}
    for key in ("staff_sk", "store_sk"):
        assert {row["order_id"] for row in facts if row[key] == -1} == {nobody}


@pytest.mark.parametrize("key", ["product_sk", "customer_sk", "staff_sk", "store_sk", "date_sk"])
def test_every_fact_points_to_a_member_of_its_dimension(finished, key):
    name = "dim_date" if key == "date_sk" else f"dim_{lakes.KEYS[key]}"
    members = [row[key] for row in lakes.rows(finished.lake.delta("gold", name))]
    assert len(set(members)) == len(members)
    for fact in ("fact_sales", "fact_stocks"):
        rows = lakes.rows(finished.lake.delta("gold", fact))
        assert {row[key] for row in rows if key in row} <= set(members)


def test_surrogate_keys_are_the_same_forever(finished):
    """Their values are in other people's tables by now."""
    customers = {(row["customer_id"], row["is_current"]): row for row in table(finished, "dim_customers")}
    assert customers[1, True]["customer_sk"] == CUSTOMER_1
    assert {row["store_id"]: row["store_sk"] for row in table(finished, "dim_stores")} == STORES


def table(finished, name: str) -> list[dict]:
    return lakes.rows(finished.lake.delta("gold", name))


def test_gold_is_the_same_whatever_arrived_first(lake, finished, small, small_expected, tmp_path):
    """The latest first: versions of dimensions come into being behind facts that point to them."""
    batches = [f"2026-01-0{day}" for day in range(1, 8)]
    for run in (batches[3:], batches[1:2], batches[2:3] + batches[:1]):
        for batch in run:
            shutil.copytree(small / batch, tmp_path / batch)
        lakes.job(lake, tmp_path)
    assert lakes.unlike(lake, small_expected) == {}
    keys = {"customers": "customer", "products": "product"}
    for plural, one in keys.items():
        here, there = (
            {
                (row[f"{one}_id"], row["valid_from"]): row[f"{one}_sk"]
                for row in lakes.rows(which.delta("gold", f"dim_{plural}"))
            }
            for which in (lake, finished.lake)
        )
        common = {key for key in here.keys() & there.keys() if key[0] and key[0] <= 200}  # then a small shop differs
        assert len(common) > 190
        assert {key: here[key] for key in common} == {key: there[key] for key in common}


def test_a_mart_shows_today_s_names_even_if_nothing_was_sold_since(finished):
    """Product 8 got new prices, and so new versions, after its last sale."""
    products = {row["product_id"]: row for row in table(finished, "mart_product_sales")}
    today = {row["product_id"]: row for row in table(finished, "dim_products") if row["is_current"]}
    assert len(products) > 290
    assert all(row["product_name"] == today[product_id]["product_name"] for product_id, row in products.items())


def test_a_day_may_be_the_last_there_is(lake, tmp_path):
    """9999-12-31 as a word for never: the customer of that order is known all the same."""
    bikes(tmp_path, order_date="9999-12-31")
    lakes.job(lake, tmp_path)
    (fact,) = lakes.rows(lake.delta("gold", "fact_sales"))
    assert -1 not in fact.values()


def test_a_plain_folder_of_csv_files_from_elsewhere_runs_as_it_is(lake, tmp_path):
    bikes(tmp_path)
    watch = lakes.Silent()
    lakes.job(lake, tmp_path, watch=watch)
    assert watch.said == []
    (fact,) = lakes.rows(lake.delta("gold", "fact_sales"))
    assert -1 not in fact.values()
    assert fact["net_amount"] == Decimal("39.9840")
    (stock,) = lakes.rows(lake.delta("gold", "fact_stocks"))
    assert -1 not in stock.values()
    before = lakes.versions(lake)
    assert not lakes.job(lake, tmp_path).changed_anything
    assert lakes.versions(lake) == before


def bikes(folder, order_date: str = "2016-01-01") -> None:
    """A shop with one of each, with the contract's columns and no others."""
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
