"""The checks of notebook 03: upsert by a two-column key, delete what one store dropped, correct a faulty merge."""

from collections import Counter
from datetime import date
from decimal import Decimal
from itertools import takewhile
from typing import Any

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake

Row = dict[str, Any]
_BEFORE = date(2026, 1, 5)  # updated_at of my_products before the merge of 03.3
_ROW_COUNTS = ("num_target_rows_inserted", "num_target_rows_updated", "num_target_rows_deleted")


@exercise("03.1", "Upsert a day's order lines")
def check_order_lines(answer: object, lake: Lake) -> Right:
    """my_lines has the lines of the full load and of the batch of 2026-01-04, each line once."""
    _require_metrics(answer)
    rows = _rows(lake, "my_lines")
    new, old = (
        {_line(row): row["quantity"] for row in _order_lines(lake, day)} for day in ("2026-01-04", "2026-01-01")
    )
    occurrences = Counter(_line(row) for row in rows)
    quantities = {_line(row): row["quantity"] for row in rows}
    if lost := old.keys() - quantities.keys():
        order, item = min(lost)
        raise Wrong(
            f"Old lines are missing ({len(lost)}), such as line {item} of order {order}: a source row has overwritten"
            " other lines of its order. The predicate needs the whole key: order_id AND item_id."
        )
    if missing := new.keys() - quantities.keys():
        order, item = min(missing)
        raise Wrong(
            f"{len(missing)} lines of the batch are missing, such as line {item} of order {order}. Is there a clause"
            " for rows that do not match, and does the predicate have the whole key, order_id AND item_id?"
        )
    if duplicates := [line for line, count in occurrences.items() if count > 1]:
        order, item = min(duplicates)
        raise Wrong(
            f"Line {item} of order {order} is in the table twice: it was appended or inserted, but it needed an update."
        )
    if outdated := [line for line in new if quantities[line] != new[line]]:
        order, item = min(outdated)
        raise Wrong(
            f"Line {item} of order {order} has quantity {quantities[order, item]}, but {new[order, item]} in the batch."
            " Is there a clause for rows that match, and is its predicate true if target.updated_at is NULL?"
        )
    if any(row["updated_at"] is None for row in rows if _line(row) in new):
        raise Wrong(
            "Lines of the batch have no updated_at, so a late row would replace them. Take every column of the source."
        )
    if quantities != old | new:
        raise Wrong("The table has lines, or quantities, that are neither in the full load nor in the batch.")
    _require_one_merge(lake, "my_lines", "An upsert needs no second commit: one merge updates and inserts.")
    updated = len(new.keys() & old.keys())
    return Right(f"{len(new) - updated} lines were inserted and {updated} updated, and each line is there once.")


@exercise("03.2", "Delete what one store dropped")
def check_store_count(answer: object, lake: Lake) -> Right:
    """my_stocks has exactly the counted rows for store 2, and the other stores are unchanged, after one MERGE."""
    _require_metrics(answer)
    full_load = {_shelf(row): row["quantity"] for row in _stocks(lake)}
    counted = {shelf: quantity - 1 for shelf, quantity in full_load.items() if shelf[0] == 2 and quantity > 3}
    before = {shelf: quantity for shelf, quantity in full_load.items() if shelf != (2, 8)}
    rows = _rows(lake, "my_stocks")
    quantities = {_shelf(row): row["quantity"] for row in rows}
    if len(rows) != len(quantities):
        raise Wrong("Rows have the same store and product. The predicate needs both columns, store_id and product_id.")
    if lost := [shelf for shelf in before if shelf[0] != 2 and shelf not in quantities]:
        raise Wrong(
            f"{len(lost)} rows of stores 1 and 3 were deleted: the list of store 2 does not contain them, so they are"
            " 'not matched by source' too. Give that clause the predicate target.store_id = 2. In the predicate of the"
            " merge itself it does not help."
        )
    if kept := [shelf for shelf in before if shelf[0] == 2 and shelf in quantities and shelf not in counted]:
        raise Wrong(
            f"{len(kept)} rows of store 2 that are not on the list are still there. Which clause deletes? Its predicate"
            " can only use target: a row that is not on the list has no source row."
        )
    if missing := counted.keys() - quantities.keys():
        raise Wrong(f"Product {min(missing)[1]} of store 2 is on the list but not in the table. Which clause inserts?")
    if any(quantities[shelf] != quantity for shelf, quantity in counted.items()):
        raise Wrong("Store 2 has old quantities. Which clause updates the rows that match?")
    others_before, others = (
        {shelf: quantity for shelf, quantity in stocks.items() if shelf[0] != 2} for stocks in (before, quantities)
    )
    if others != others_before:
        raise Wrong("Quantities of stores 1 and 3 have changed. No clause should change them.")
    _require_one_merge(
        lake,
        "my_stocks",
        "Between two commits a reader sees a half-counted store. A merge can delete too:"
        " when_not_matched_by_source_delete.",
    )
    return Right(f"Store 2 has the {len(counted)} rows of its list, and stores 1 and 3 kept every row.")


@exercise("03.3", "Find the faults in a merge")
def check_offers(answer: object, lake: Lake) -> Right:
    """my_products has the offers that are newer and different, after one MERGE that touched no other row."""
    _require_metrics(answer)
    rows = _rows(lake, "my_products")
    products: dict[int | None, Row] = {row["product_id"]: row for row in rows}
    if None in products:
        raise Wrong("There is a row without a product_id. A NULL key never matches, so it is inserted: filter it out.")
    if len(rows) != len(products):
        raise Wrong("A product is in the table twice. Keep one offer for each product before the merge.")
    if 7 not in products:
        raise Wrong("Product 7 has no offer, and is gone. Leave out the clause for rows not matched by the source.")
    if 6 not in products:
        raise Wrong("Product 6 is new, and is missing. Which clause inserts? Its price may be NULL.")
    _require_prices(products)
    if products[4]["updated_at"] != _BEFORE:
        raise Wrong(
            "Product 4 was rewritten, but its name and its price are the same. Require that one of them differs."
        )
    if products != _products_after_offers():
        raise Wrong("The table has other values than the rules give. Do not change the cell above the exercise.")
    _require_one_merge(lake, "my_products", "One merge can follow all rules, each in its own clause.")
    return Right("4 products were updated, 1 deleted and 1 inserted, and the other rows were not touched.")


def _require_prices(products: dict[int | None, Row]) -> None:
    """Require what the rules do to products 1, 2, 3, 5, 8 and 9; raises Wrong otherwise."""
    if 2 not in products:
        raise Wrong("Product 2 is gone, but the offer with the price 0 is older than its row. Compare updated_at.")
    if products[2]["price"] == 0:
        raise Wrong("The offer for product 2 is older than the row, and must not win. Compare updated_at.")
    if gone := [number for number in (1, 3, 5, 9) if number not in products]:
        raise Wrong(
            f"Product {gone[0]} is gone, but its offer does not have the price 0. What does the delete require?"
        )
    if all(products[number]["updated_at"] == _BEFORE for number in (1, 3, 5, 9)):
        raise Wrong("No product was updated. Which clause updates rows that match, and is its predicate ever true?")
    if products[1]["price"] == Decimal("10.40"):
        raise Wrong("Product 1 has the price of its older offer. Sort with updated_at DESC, and keep the first row.")
    if products[1]["price"] != Decimal("10.90"):
        raise Wrong("Product 1 has not the price of its newest offer, 10.90. Compare both columns, with OR.")
    if products[5]["name"] != "grips":
        raise Wrong("Product 5 has a new name and the old price, and was not updated. Compare both columns, with OR.")
    if products[3]["price"] is None:
        raise Wrong("The price of product 3 was NULL, and <> is not true then. Compare with IS DISTINCT FROM.")
    if products[9]["price"] is not None:
        raise Wrong(
            "The price of product 9 is unknown now, and the row was not updated. A comparison with NULL, such as"
            " price <> 0, is not true."
        )
    if 8 in products and products[8]["price"] == 0:
        raise Wrong("Product 8 has the price 0, but it should be gone. Which of the two clauses is tried first?")
    if 8 in products:
        raise Wrong("The offer for product 8 has the price 0, and the product is still there. Which clause deletes it?")


def _products_after_offers() -> dict[int | None, Row]:
    values = [
        (1, "bell", "10.90", 8),
        (2, "lock", "24.00", 5),
        (3, "pump", "14.90", 6),
        (4, "tube", "7.50", 5),
        (5, "grips", "12.00", 7),
        (6, "mirror", None, 7),
        (7, "rack", "31.00", 5),
        (9, "bag", None, 7),
    ]
    return {
        number: {
            "product_id": number,
            "name": name,
            "price": None if price is None else Decimal(price),
            "updated_at": date(2026, 1, day),
        }
        for number, name, price, day in values
    }


def _require_one_merge(lake: Lake, name: str, advice: str) -> None:
    """Require that one MERGE is the only commit since the exercise cell wrote the table; raises Wrong otherwise."""
    commits = [commit["operation"] for commit in open_table(lake, "shop", name).history()]
    operations = list(takewhile(lambda operation: operation != "WRITE", commits))[::-1]
    if operations != ["MERGE"]:
        made_by = " and ".join(operations) or "a WRITE"
        raise Wrong(f"The rows are right, but they were made by {made_by}. Use one MERGE. {advice}")


def _require_metrics(answer: object) -> dict[str, int]:
    if not isinstance(answer, dict) or _ROW_COUNTS[0] not in answer:
        raise Wrong("The answer does not contain the metrics of a merge. What does `.execute()` return?")
    return answer


def _line(row: Row) -> tuple[int, int]:
    return row["order_id"], row["item_id"]


def _shelf(row: Row) -> tuple[int, int]:
    return row["store_id"], row["product_id"]


def _rows(lake: Lake, name: str) -> list[Row]:
    rows: list[Row] = open_table(lake, "shop", name).to_pyarrow_table().to_pylist()
    return rows


def _order_lines(lake: Lake, day: str) -> list[Row]:
    rejected = {
        (row["_source_file"], row["_source_line"])
        for row in open_table(lake, "quarantine", "order_items").to_pyarrow_table().to_pylist()
    }
    good = [
        row for row in _bronze(lake, "order_items", day) if (row["_source_file"], row["_source_line"]) not in rejected
    ]
    return [{name: int(row[name]) for name in ("order_id", "item_id", "quantity")} for row in good]


def _stocks(lake: Lake) -> list[Row]:
    rows = _bronze(lake, "stocks", "2026-01-01")
    return [{name: int(row[name]) for name in ("store_id", "product_id", "quantity")} for row in rows]


def _bronze(lake: Lake, name: str, day: str) -> list[Row]:
    table = open_table(lake, "bronze", name)
    rows: list[Row] = table.to_pyarrow_table(filters=[("_batch", "=", day)]).to_pylist()
    return rows
