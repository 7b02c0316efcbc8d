"""Notebook 03: right answers in other spellings, what its cells leave, and what its prose says about delta-rs."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from notebooks.books import Book, Kernel, errors, plain_text, start_kernel

LINES = 'my_lines, lines = new_table("my_lines", batch("order_items", 1)), batch("order_items", 4)\n'
COUNT = """
my_stocks = new_table("my_stocks", batch("stocks", 1, "(store_id, product_id) <> (2, 8)"))
counted = batch("stocks", 1, "store_id = 2 AND quantity > 3").to_pandas()
counted["quantity"] -= 1
"""
OFFERS = """
my_products, offers = new_table("my_products", accessories(PRODUCTS)), accessories(OFFERS)
with_key = newest(db.sql("FROM offers WHERE product_id IS NOT NULL").to_arrow_table(), "product_id")
differs = "((source.name IS DISTINCT FROM target.name) OR (source.price IS DISTINCT FROM target.price))"
withdrawn = f"{NEWER} AND source.price = 0"
"""

RIGHT_ANSWERS = {
    "other aliases and two columns": (
        "03.1",
        LINES + 'same = "t.item_id = s.item_id AND t.order_id = s.order_id"\n'
        'answer = (my_lines.merge(lines, same, "s", "t")'
        '.when_matched_update({"quantity": "s.quantity", "updated_at": "s.updated_at"})'
        ".when_not_matched_insert_all().execute())",
    ),
    "rows of pandas and a predicate on the quantity": (
        "03.1",
        LINES + 'same = "target.order_id=source.order_id and source.item_id=target.item_id"\n'
        'answer = (my_lines.merge(lines.to_pandas(), same, "source", "target").when_not_matched_insert_all()'
        '.when_matched_update_all("source.quantity != target.quantity").execute())',
    ),
    "the function of the lesson": (
        "03.1",
        LINES + 'answer = upsert(my_lines, lines, SAME_ORDER + " AND target.item_id = source.item_id")',
    ),
    "another order of clauses": (
        "03.2",
        COUNT + 'answer = (my_stocks.merge(counted, SAME_SHELF, "source", "target")'
        '.when_not_matched_by_source_delete("target.store_id NOT IN (1, 3)").when_not_matched_insert_all()'
        '.when_matched_update({"quantity": "source.quantity"}).execute())',
    ),
    "a complete list of all stores": (
        "03.2",
        COUNT + 'others = batch("stocks", 1, "store_id <> 2").to_pandas()\n'
        'answer = (my_stocks.merge(pd.concat([others, counted]), SAME_SHELF, "source", "target")'
        ".when_matched_update_all().when_not_matched_insert_all().when_not_matched_by_source_delete().execute())",
    ),
    "an update that leaves out the price 0": (
        "03.3",
        OFFERS + 'answer = (my_products.merge(with_key, "source.product_id = target.product_id", "source", "target")'
        '.when_matched_update_all(f"{NEWER} AND (source.price IS DISTINCT FROM 0) AND {differs}")'
        ".when_matched_delete(withdrawn).when_not_matched_insert_all().execute())",
    ),
    "an insert that leaves out rows without a key": (
        "03.3",
        OFFERS + 'answer = (my_products.merge(newest(offers, "product_id"), "t.product_id = s.product_id", "s", "t")'
        '.when_matched_delete("s.updated_at > t.updated_at AND s.price = 0")'
        '.when_matched_update_all("s.updated_at > t.updated_at AND NOT ((s.name IS NOT DISTINCT FROM t.name)'
        ' AND (s.price IS NOT DISTINCT FROM t.price))")'
        '.when_not_matched_insert_all("s.product_id IS NOT NULL").execute())',
    ),
    "pandas and coalesce": (
        "03.3",
        OFFERS + 'rows = offers.to_pandas().dropna(subset="product_id").sort_values("updated_at")\n'
        'rows = rows.drop_duplicates("product_id", keep="last").astype({"product_id": "int32"})\n'
        'answer = (my_products.merge(rows, "target.product_id = source.product_id", "source", "target")'
        ".when_matched_delete(withdrawn)"
        '.when_matched_update_all(f"{NEWER} AND (target.name <> source.name'
        ' OR coalesce(target.price, -1) <> coalesce(source.price, -1))")'
        ".when_not_matched_insert_all().execute())",
    ),
    "rules in the source": (
        "03.3",
        OFFERS + "before = my_products.to_pyarrow_table()\n"
        'rows = db.sql("""SELECT o.* FROM with_key AS o LEFT JOIN before AS b USING (product_id)'
        " WHERE b.name IS NULL OR o.updated_at > b.updated_at"
        ' AND (o.name IS DISTINCT FROM b.name OR o.price IS DISTINCT FROM b.price)""").to_arrow_table()\n'
        'answer = (my_products.merge(rows, "target.product_id = source.product_id", "source", "target")'
        '.when_matched_delete("source.price = 0").when_matched_update_all()'
        ".when_not_matched_insert_all().execute())",
    ),
}

STATE = {
    "each order is in the table once": 'assert open_table("orders").to_pandas()["order_id"].is_unique',
    "a merge that has nothing to do makes no commit": """
commits = [commit["operation"] for commit in reversed(open_table("orders").history())]
load = ["WRITE"] * 4 + ["MERGE"] * 5 + ["RESTORE"] + ["MERGE"] * 2 + ["RESTORE"] + ["MERGE"] * 2
trials = ["DELETE", "DELETE", "RESTORE"] + ["MERGE", "RESTORE"] * 3 + ["UPDATE", "MERGE"]
assert commits == load + trials, commits""",
    "a merge or an update that raises makes no commit": """
commits = [commit["operation"] for commit in reversed(customers.history())]
assert commits == ["WRITE", "MERGE", "MERGE", "UPDATE", "UPDATE"], commits""",
    "update takes SQL and Python values": """
assert customers.to_pandas().set_index("customer_id")["city"][17] == "Mirador"
city = DeltaTable(customers.table_uri, 3, storage_options=lake.storage_options).to_pandas()
assert city.set_index("customer_id")["city"][17].isupper()""",
    "the refused overwrite leaves each event once": """
assert sorted(open_table("order_events").to_pandas()["order_id"]) == sorted(events["order_id"].to_pylist())""",
    "a merge that is not streamed finds the range of keys itself": """
merge = open_table("orders").merge(day_7, SAME_ORDER, "source", "target", streamed_exec=False)
assert merge.when_matched_update_all("false").execute()["num_target_files_skipped_during_scan"] == 3""",
    "a quarantined row is in no view of orders": """
assert db.sql("FROM orders WHERE order_id IN (11, 12, 15, 16, 18) AND _batch > '2026-01-01'").fetchall() == []""",
}


@pytest.fixture(scope="module")
def kernel(s3_state_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel in which all cells of the notebook have run."""
    folder = tmp_path_factory.mktemp("nb03")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        with start_kernel() as started:
            for cell in Book.of_number("03").code_cells:
                assert not errors(started.run(cell.source)), cell.source
            yield started


@pytest.mark.parametrize("sentence", STATE)
def test_state_after_the_notebook(sentence: str, kernel: Kernel) -> None:
    """What the prose says about the tables is true after all cells have run."""
    assert not errors(kernel.run(STATE[sentence]))


@pytest.mark.parametrize("spelling", RIGHT_ANSWERS)
def test_right_answer_in_another_spelling(spelling: str, kernel: Kernel) -> None:
    """A right answer is accepted, however it is written."""
    id, code = RIGHT_ANSWERS[spelling]
    outputs = kernel.run(f'{code}\ncheck("{id}", answer)')
    assert not errors(outputs)
    assert f"✔ {id} solved." in plain_text(outputs)


def test_misspelled_column_is_ignored(tmp_path: Path) -> None:
    """A merge reports rows as updated even if the column to be set does not exist, and changes no value."""
    rows = pa.table({"id": [1, 2], "sent": ["no", "no"]})
    write_deltalake(tmp_path, rows)
    merge = DeltaTable(tmp_path).merge(rows, "t.id = s.id", "s", "t")
    assert merge.when_matched_update({"snet": "'yes'"}).execute()["num_target_rows_updated"] == 2
    assert DeltaTable(tmp_path).to_pyarrow_table().sort_by("id") == rows


def test_merge_without_execute_does_nothing(tmp_path: Path) -> None:
    """The calls before `execute()` only describe the merge."""
    write_deltalake(tmp_path, pa.table({"id": [1]}))
    DeltaTable(tmp_path).merge(pa.table({"id": [2]}), "t.id = s.id", "s", "t").when_not_matched_insert_all()
    assert DeltaTable(tmp_path).version() == 0


@pytest.mark.parametrize("merge_schema", [False, True])
def test_new_column_of_the_source(merge_schema: bool, tmp_path: Path) -> None:
    """A column that only the source has is ignored without an error; with merge_schema, the table gets it."""
    write_deltalake(tmp_path, pa.table({"id": [1]}))
    rows = pa.table({"id": [2], "new": ["x"]})
    merge = DeltaTable(tmp_path).merge(rows, "t.id = s.id", "s", "t", merge_schema=merge_schema)
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
    assert ("new" in DeltaTable(tmp_path).to_pyarrow_table().column_names) == merge_schema
