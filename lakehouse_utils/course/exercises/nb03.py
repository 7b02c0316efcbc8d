"""The checks of notebook 03: upsert by a two-column key, delete what one store dropped, keep a history."""

from collections import Counter
from itertools import takewhile
from typing import Any

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake

Row = dict[str, Any]
_STREET_UNKNOWN = {464: {"street": None, "city": "Harlow Falls", "zip_code": "14303"}}  # set by the cell of 03.3
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
            f"{len(lost)} old lines are missing, such as line {item} of order {order}: a source row has overwritten"
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
    if quantities != old | new:
        raise Wrong("The table has lines, or quantities, that are neither in the full load nor in the batch.")
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
    if len(rows) != len(quantities):
        raise Wrong("A row is in the table twice. The predicate needs both columns, store_id and product_id.")
    if any(quantities[shelf] != quantity for shelf, quantity in counted.items()):
        raise Wrong("Store 2 has old quantities. Which clause updates the rows that match?")
    others_before, others = (
        {shelf: quantity for shelf, quantity in stocks.items() if shelf[0] != 2} for stocks in (before, quantities)
    )
    if others != others_before:
        raise Wrong("Quantities of stores 1 and 3 have changed. No clause should change them.")
    commits = [commit["operation"] for commit in open_table(lake, "shop", "my_stocks").history()]
    operations = list(takewhile(lambda operation: operation != "WRITE", commits))[::-1]
    if operations != ["MERGE"]:
        raise Wrong(
            f"The rows are right, but they were made by {' and '.join(operations) or 'WRITE'}. Use one MERGE. Between"
            " two commits a reader sees a half-counted store. A merge can delete too:"
            " when_not_matched_by_source_delete."
        )
    return Right(f"Store 2 has the {len(counted)} rows of its list, and stores 1 and 3 kept every row.")


@exercise("03.3", "Keep the history of addresses", expects=(list, tuple))
def check_address_history(answer: list[object], lake: Lake) -> Right:
    """my_addresses has a closed and a current row for each customer who moved, and the second run changed nothing."""
    if len(answer) != 2:
        raise Wrong(f"The answer must be a list of the metrics of two runs. It has {len(answer)} elements.")
    first, second = (_require_metrics(metrics) for metrics in answer)
    old = {row["customer_id"]: row for row in _customers(lake, "2026-01-01")}
    old |= {customer: old[customer] | address for customer, address in _STREET_UNKNOWN.items()}
    new = {row["customer_id"]: row for row in _customers(lake, "2026-01-04")}
    moved = new.keys() & old.keys()
    rows = _rows(lake, "my_addresses")
    by_customer: dict[int | None, list[Row]] = {}
    for row in rows:
        by_customer.setdefault(row["customer_id"], []).append(row)
    if None in by_customer:
        raise Wrong(
            f"{len(by_customer[None])} rows have no customer_id. Only merge_key should be NULL: insert"
            " source.customer_id."
        )
    for customer in sorted(moved):
        _require_history(customer, by_customer.get(customer, []), old[customer], new[customer])
    if missing := new.keys() - by_customer.keys():
        raise Wrong(
            f"Customer {min(missing)} is new in the batch, but not in the table. Stage the rows of new customers as"
            " well: they match nothing, so they are inserted."
        )
    for customer in sorted(new.keys() - old.keys()):
        versions = by_customer[customer]
        if len(versions) != 1 or not versions[0]["is_current"] or versions[0]["valid_from"] is None:
            raise Wrong(
                f"Customer {customer} is new and must have one row: current, and valid from updated_at. A second run"
                " must not close a row that has the same time: require source.updated_at > target.valid_from."
            )
    if by_customer.keys() != old.keys() | new.keys() or len(rows) != len(old) + len(new):
        raise Wrong("Rows of customers who are not in the batch have changed. Compare the table with its version 0.")
    rows_in_second_run = sum(second[name] for name in _ROW_COUNTS)
    if rows_in_second_run and first["num_target_rows_inserted"] < len(new):
        raise Wrong(
            f"The table is right only after two runs: the first run inserted {first['num_target_rows_inserted']} of"
            f" {len(new)} rows. Stage each customer who moved twice in the same run: with the key, to close the old"
            " row, and with NULL as the key, to insert the new one."
        )
    if rows_in_second_run:
        raise Wrong(
            f"The second run changed {rows_in_second_run} rows. Stage a customer who moved only if the address differs"
            " from the current row and is newer."
        )
    return Right(f"{len(moved)} addresses were closed and {len(new)} inserted, and the second run changed nothing.")


def _require_history(customer: int, rows: list[Row], old: Row, new: Row) -> None:
    """Require a closed row with the old address and a current row with the new one; raises Wrong otherwise."""
    current, closed = ([row for row in rows if bool(row["is_current"]) is flag] for flag in (True, False))
    if old["street"] is None and len(current) == len(rows) and old["street"] in [row["street"] for row in rows]:
        raise Wrong(
            f"The street of customer {customer} was NULL and is known now, but the old row is not closed. A comparison"
            " with NULL by <> is neither true nor false. Compare with IS DISTINCT FROM, in the query and in the merge."
        )
    if len(rows) == 1 and current and _address(current[0]) == _address(old):
        raise Wrong(f"Customer {customer} has moved, but the table has only the old address: nothing was changed.")
    if len(rows) == 1 and closed:
        raise Wrong(
            f"The old address of customer {customer} is closed, but there is no new one. Stage the row a second time,"
            " with NULL as its merge_key."
        )
    if len(rows) == 1:
        raise Wrong(
            f"The table has only the new address of customer {customer}. That is an upsert, and the old address is"
            " lost. Close the old row: set valid_to and is_current, and nothing else."
        )
    if not current:
        raise Wrong(
            f"Customer {customer} has no current row: the second run closed the new address as well. Close a row only"
            " if source.updated_at > target.valid_from."
        )
    if len(current) != 1:
        raise Wrong(
            f"Customer {customer} has {len(current)} current rows and must have one. Does a clause close the row that"
            " matches? And does a second run stage nothing, because a customer is staged only if the address is newer"
            " than the current row and differs from it?"
        )
    if len(closed) != 1:
        raise Wrong(
            f"Customer {customer} has {len(closed)} closed rows and must have one. Did the second run insert again?"
        )
    if _address(current[0]) != _address(new):
        raise Wrong(f"The current row of customer {customer} has the old address. Take the values from source.")
    if _address(closed[0]) != _address(old):
        raise Wrong(
            f"The closed row of customer {customer} must keep the old address. Set valid_to and is_current, and nothing"
            " else."
        )
    if closed[0]["valid_to"] is None or closed[0]["valid_to"] != current[0]["valid_from"]:
        raise Wrong(
            f"The old address of customer {customer} ends at {closed[0]['valid_to']}, and the new one begins at"
            f" {current[0]['valid_from']}. Both must be source.updated_at."
        )
    if current[0]["valid_to"] is not None:
        raise Wrong(f"The current row of customer {customer} has a valid_to. It must be NULL.")


def _require_metrics(answer: object) -> dict[str, int]:
    if not isinstance(answer, dict) or _ROW_COUNTS[0] not in answer:
        raise Wrong("The answer does not contain the metrics of a merge. What does `.execute()` return?")
    return answer


def _address(row: Row) -> tuple[str | None, str]:
    return row["street"], row["city"]


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


def _customers(lake: Lake, day: str) -> list[Row]:
    return [row | {"customer_id": int(row["customer_id"])} for row in _bronze(lake, "customers", day)]


def _bronze(lake: Lake, name: str, day: str) -> list[Row]:
    table = open_table(lake, "bronze", name)
    rows: list[Row] = table.to_pyarrow_table(filters=[("_batch", "=", day)]).to_pylist()
    return rows
