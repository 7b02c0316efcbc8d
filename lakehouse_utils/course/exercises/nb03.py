"""The exercises of notebook 03: upsert by a key of two columns, delete a part's dropped rows, keep a history."""

from collections import Counter
from itertools import takewhile

from lakehouse_utils.course.exercises import Right, Wrong, exercise

_STREET_UNKNOWN = {464: {"street": None, "city": "Harlow Falls", "zip_code": "14303"}}  # as exercise 03.3 begins
_DONE = ("num_target_rows_inserted", "num_target_rows_updated", "num_target_rows_deleted")


@exercise(
    "03.1",
    "Upsert a day's order lines",
    hint="`my_lines.merge(lines, ...)` with the clauses of step 2; `execute()` returns the metrics. Which columns make"
    " an order line unique?",
)
def order_lines(answer, lake):
    """The batch of 2026-01-04 is in my_lines, each line once."""
    _is_metrics(answer)
    rows = _rows(lake, "my_lines", "my_lines")
    new = {(row["order_id"], row["item_id"]): row["quantity"] for row in _lines(lake, "2026-01-04")}
    old = {(row["order_id"], row["item_id"]): row["quantity"] for row in _lines(lake, "2026-01-01")}
    times = Counter((row["order_id"], row["item_id"]) for row in rows)
    there = {(row["order_id"], row["item_id"]): row["quantity"] for row in rows}
    if lost := old.keys() - there.keys():
        order, item = min(lost)
        raise Wrong(
            f"Lines are gone, {len(lost)} in all, such as line {item} of order {order}: a source row has"
            " overwritten lines that aren't its own. The predicate needs the whole key: order_id AND item_id."
        )
    if missing := new.keys() - there.keys():
        order, item = min(missing)
        raise Wrong(
            f"{len(missing)} lines of the batch are missing, such as line {item} of order {order}: is there a clause"
            " for rows that don't match, and does the predicate have the whole key, order_id AND item_id?"
        )
    if twice := [key for key, count in times.items() if count > 1]:
        order, item = min(twice)
        raise Wrong(f"Line {item} of order {order} is there twice: an append or an insert where an update was wanted.")
    if unchanged := [key for key in new if there[key] != new[key]]:
        order, item = min(unchanged)
        raise Wrong(
            f"Line {item} of order {order} has a quantity of {there[order, item]}; the batch says {new[order, item]}."
            " Is there a clause for rows that match, and does its predicate let a NULL in target.updated_at pass?"
        )
    if there != old | new:
        raise Wrong("There are lines that neither the full load nor the batch has.")
    changed = len(new.keys() & old.keys())
    return Right(f"{len(new) - changed} lines inserted, {changed} updated, and each line is there once.")


@exercise(
    "03.2",
    "Delete what one store dropped",
    hint="Three clauses: for rows that match, for rows of the list only, and for rows of the table only. The third"
    " needs a predicate.",
)
def one_store(answer, lake):
    """my_stocks says for store 2 what the count says, and keeps the others."""
    _is_metrics(answer)
    old = {(row["store_id"], row["product_id"]): row["quantity"] for row in _stocks(lake)}
    counted = {key: quantity - 1 for key, quantity in old.items() if key[0] == 2 and quantity > 3}
    before = {key: quantity for key, quantity in old.items() if key != (2, 8)}
    rows = _rows(lake, "my_stocks", "my_stocks")
    there = {(row["store_id"], row["product_id"]): row["quantity"] for row in rows}
    if lost := [key for key in before if key[0] != 2 and key not in there]:
        raise Wrong(
            f"{len(lost)} shelves of stores 1 and 3 are gone: to a list of store 2, they are 'not matched by source'"
            " as well. Give that clause a predicate, target.store_id = 2; in the merge's own predicate it won't help."
        )
    if stayed := [key for key in before if key[0] == 2 and key in there and key not in counted]:
        raise Wrong(
            f"{len(stayed)} shelves of store 2 that aren't on the list are still there. Which"
            " clause deletes? Its predicate can speak of target alone: a row that the list doesn't have has no source."
        )
    if missing := counted.keys() - there.keys():
        raise Wrong(f"Product {min(missing)[1]} in store 2 is on the list and not in the table: which clause inserts?")
    if len(rows) != len(there):
        raise Wrong("Some shelf is there twice: the predicate needs both columns, store_id and product_id.")
    if any(there[key] != quantity for key, quantity in counted.items()):
        raise Wrong("Store 2 has old quantities: which clause updates the rows that match?")
    if {key: quantity for key, quantity in there.items() if key[0] != 2} != {
        key: quantity for key, quantity in before.items() if key[0] != 2
    }:
        raise Wrong("Quantities of stores 1 and 3 have changed: no clause should touch them.")
    commits = [commit["operation"] for commit in lake.delta("shop", "my_stocks").history()]
    since = list(takewhile(lambda operation: operation != "WRITE", commits))[::-1]
    if since != ["MERGE"]:
        raise Wrong(
            f"The rows are right, by {' and '.join(since) or 'WRITE'}: one MERGE is wanted. Between two commits a"
            " reader sees a store that is half counted; a merge can delete too, with when_not_matched_by_source_delete."
        )
    return Right(f"Store 2 has the {len(counted)} shelves of its list; stores 1 and 3 have kept every row.")


@exercise(
    "03.3",
    "Keep the history of addresses",
    hint="Stage each customer who moved twice: with customer_id as merge_key, and with NULL. Then one merge, as in"
    " step 11, run twice; the answer is a list of the two metrics.",
    expects=(list, tuple),
)
def addresses(answer, lake):
    """my_addresses holds a closed and an open row for each who moved, and a second run did nothing."""
    if len(answer) != 2:
        raise Wrong(f"Two runs, so two metrics in a list; there are {len(answer)}.")
    for metrics in answer:
        _is_metrics(metrics)
    old = {row["customer_id"]: row for row in _customers(lake, "2026-01-01")}
    old |= {customer: old[customer] | address for customer, address in _STREET_UNKNOWN.items()}
    new = {row["customer_id"]: row for row in _customers(lake, "2026-01-04")}
    moved = new.keys() & old.keys()
    rows = _rows(lake, "my_addresses", "my_addresses")
    by_customer: dict[int | None, list[dict]] = {}
    for row in rows:
        by_customer.setdefault(row["customer_id"], []).append(row)
    if None in by_customer:
        raise Wrong(
            f"{len(by_customer[None])} rows have no customer_id: the NULL is for merge_key only; insert"
            " source.customer_id."
        )
    for customer in sorted(moved):
        _is_history(customer, by_customer.get(customer, []), old[customer], new[customer])
    if missing := new.keys() - by_customer.keys():
        raise Wrong(
            f"Customer {min(missing)} is new in the batch, and not in the table: stage rows whose key isn't there yet,"
            " too; they match nothing, and so are inserted."
        )
    for customer in sorted(new.keys() - old.keys()):
        found = by_customer[customer]
        if len(found) != 1 or not found[0]["is_current"] or found[0]["valid_from"] is None:
            raise Wrong(
                f"Customer {customer} is new: one row is wanted, current, valid from updated_at. A second run must not"
                " close a row that is as new as its own: ask for source.updated_at > target.valid_from."
            )
    if by_customer.keys() != old.keys() | new.keys() or len(rows) != len(old) + len(new):
        raise Wrong("Rows of customers who aren't in the batch have changed: compare the table with its version 0.")
    again = sum(answer[1][name] for name in _DONE)
    if again and answer[0][_DONE[0]] < len(new):
        raise Wrong(
            f"The table is right only after two runs: the first inserted {answer[0][_DONE[0]]} rows of {len(new)}."
            " Bring each who moved twice in the same run: with the key, to close, and with NULL as the key, to insert."
        )
    if again:
        raise Wrong(
            f"The second run has written {again} rows. Stage a customer who moved only where the address differs from"
            " the current row, and is newer."
        )
    return Right(f"{len(moved)} addresses closed, {len(new)} opened, and the second run did nothing.")


def _is_history(customer: int, rows: list[dict], old: dict, new: dict) -> None:
    current, closed = ([row for row in rows if bool(row["is_current"]) is flag] for flag in (True, False))
    if old["street"] is None and len(current) == len(rows) and old["street"] in [row["street"] for row in rows]:
        raise Wrong(
            f"The street of customer {customer} was NULL, and now it is known, but the old row isn't closed. A <> with"
            " NULL is neither true nor false: compare with IS DISTINCT FROM, in the query and in the merge."
        )
    if len(rows) == 1 and current and (current[0]["street"], current[0]["city"]) == (old["street"], old["city"]):
        raise Wrong(f"Customer {customer} has moved, and still has the old address only: nothing was done.")
    if len(rows) == 1 and closed:
        raise Wrong(
            f"The old address of customer {customer} is closed, and no new one is open: bring the row a second time,"
            " with NULL as its merge_key."
        )
    if len(rows) == 1:
        raise Wrong(
            f"Customer {customer} has the new address only: that is an upsert, and the old one is lost. Close it:"
            " set valid_to and is_current, and nothing else."
        )
    if not current:
        raise Wrong(
            f"Customer {customer} has no current row any more: the second run closed the new address as well. Close a"
            " row only where source.updated_at > target.valid_from."
        )
    if len(current) != 1:
        raise Wrong(
            f"Customer {customer} has {len(current)} current rows of {len(rows)}; one is wanted. Does a clause close"
            " the row that matches? And does a rerun stage nothing: is each compared with its current row alone, and"
            " staged only if it is newer and differs?"
        )
    if len(closed) != 1:
        raise Wrong(f"Customer {customer} has {len(closed)} closed rows; one is wanted: has a rerun inserted again?")
    if (current[0]["street"], current[0]["city"]) != (new["street"], new["city"]):
        raise Wrong(f"The current row of customer {customer} has the old address: the values come from source.")
    if (closed[0]["street"], closed[0]["city"]) != (old["street"], old["city"]):
        raise Wrong(f"The closed row of customer {customer} should keep the old address: close it, and nothing else.")
    if closed[0]["valid_to"] is None or closed[0]["valid_to"] != current[0]["valid_from"]:
        raise Wrong(
            f"The old address of customer {customer} ends at {closed[0]['valid_to']}, and the new one begins at"
            f" {current[0]['valid_from']}: both should be source.updated_at."
        )
    if current[0]["valid_to"] is not None:
        raise Wrong(f"The current row of customer {customer} has a valid_to: it should be NULL.")


def _is_metrics(answer) -> None:
    if not isinstance(answer, dict) or _DONE[0] not in answer:
        raise Wrong("The answer is no metrics of a merge: what does `.execute()` return?")


def _rows(lake, name: str, variable: str) -> list[dict]:
    table = lake.delta("shop", name)
    if table is None:
        raise Wrong(f"There is no table shop/{name}: run the first lines of the cell, which make {variable}.")
    return table.to_pyarrow_table().to_pylist()


def _lines(lake, day: str) -> list[dict]:
    bad = {
        (row["_source_file"], row["_source_line"])
        for row in lake.delta("quarantine", "order_items").to_pyarrow_table().to_pylist()
    }
    found = [row for row in _bronze(lake, "order_items", day) if (row["_source_file"], row["_source_line"]) not in bad]
    return [{name: int(row[name]) for name in ("order_id", "item_id", "quantity")} for row in found]


def _stocks(lake) -> list[dict]:
    rows = _bronze(lake, "stocks", "2026-01-01")
    return [{name: int(row[name]) for name in ("store_id", "product_id", "quantity")} for row in rows]


def _customers(lake, day: str) -> list[dict]:
    rows = _bronze(lake, "customers", day)
    return [row | {"customer_id": int(row["customer_id"])} for row in rows]


def _bronze(lake, name: str, day: str) -> list[dict]:
    return lake.delta("bronze", name).to_pyarrow_table(filters=[("_batch", "=", day)]).to_pylist()
