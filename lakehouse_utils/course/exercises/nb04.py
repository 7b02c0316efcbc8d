"""The exercises of notebook 04: versions in which a price changed, a table at a point in time, one change undone."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from deltalake import DeltaTable

from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake

StockKey = tuple[int, int]  # store_id, product_id


@exercise(
    "04.1",
    "Name the versions in which a price changed",
    expects=dict,
)
def check_price_changes(answer: dict[int, Any], lake: Lake) -> Right:
    """For each of two products, the versions of shop/prices in which its price differs from the version before."""
    products = (77, 95)
    if answer.keys() != set(products):
        raise Wrong("The keys of the dict should be 77 and 95, the numbers of the two products.")
    table = _open(lake, "prices")
    newest, price_by_version = table.version(), []
    for version in range(newest + 1):
        table.load_as_version(version)
        rows = table.to_pyarrow_table(columns=["product_id", "list_price"], filters=[("product_id", "in", products)])
        price_by_version.append({row["product_id"]: row["list_price"] for row in rows.to_pylist()})
    for product in products:
        prices = [price_of.get(product) for price_of in price_by_version]
        changed = {version for version in range(1, newest + 1) if prices[version] != prices[version - 1]}
        _compare_versions(answer[product], changed, newest, product)
    return Right(
        "The nightly load changed each price once, and the sale, the restores and the repair changed both again."
    )


def _compare_versions(answer: Iterable[Any], changed: set[int], newest: int, product: int) -> None:
    try:
        given = {int(version) for version in answer}
    except (TypeError, ValueError):
        raise Wrong(f"The versions of product {product} should be a list of whole numbers.") from None
    if 0 in given:
        raise Wrong("Version 0 wrote the price for the first time, so there is no earlier price to compare it with.")
    if nonexistent := sorted(given - set(range(newest + 1))):
        raise Wrong(f"There is no version {nonexistent[0]}; the newest is {newest}.")
    if unchanged := sorted(given - changed):
        raise Wrong(
            f"In version {unchanged[0]} product {product} has the same price as in the version before. A commit may"
            " rewrite the file that a row is in, or add other rows to it, without changing the row."
        )
    missing = changed - given
    if missing and min(missing) < 3:
        raise Wrong(
            f"Product {product}: an early change is missing. The change data feed begins at version 2; ask the versions"
            " themselves."
        )
    if missing:
        raise Wrong(
            f"Product {product}: a change is missing. A restore changes rows as well, and so did your repair of the"
            " price list."
        )


@exercise(
    "04.2",
    "Count the products at a colleague's time",
    expects=(int, np.integer),
)
def check_count_at_time(answer: int, lake: Lake) -> Right:
    """The number of products in the price list after the load of 6 January, which is version 3."""
    newest = _open(lake, "prices")
    expected, count_of_first = (_open(lake, "prices", version).count() for version in (3, 0))
    if answer == expected:
        return Right(f"{expected} products: with the right zone, the time is between versions 3 and 4.")
    if answer == count_of_first:
        raise Wrong(
            f"{answer} is the count of version 0: you asked for a time before all commits. Without a zone, and with"
            " Z, the text is read as UTC, which is five hours too early. With the wrong sign (+05:00) it is ten hours"
            " too early."
        )
    if answer == newest.count():
        raise Wrong(
            f"{answer} is the count of the newest version. Either you did not move the table to the time, or you"
            " added the five hours twice, which gives a time in the future."
        )
    raise Wrong("The price list never had that number of products. Did you count shop/prices?")


@exercise(
    "04.3",
    "Undo a wrong update and keep what came later",
    expects=DeltaTable,
)
def check_repaired_stocks(answer: DeltaTable, lake: Lake) -> Right:
    """shop/stocks has Sam's rows of store 2 at zero, the later counts, and everything else as in version 0."""
    if answer.table_uri.rstrip("/") != lake.uri("shop", "stocks"):
        raise Wrong("That is a different table. Repair shop/stocks, then open it: DeltaTable(stocks, ...).")
    table = _open(lake, "stocks")
    before, after_mistake, after_count = (_quantities(_open(lake, "stocks", version)) for version in (0, 1, 2))
    now = _quantities(table)
    if table.version() == 2:
        raise Wrong("shop/stocks is still as Sam and the count left it: no commit came after version 2.")
    if len(now) != table.count():
        raise Wrong(
            "Some stocks have two rows now. A stock that was counted later does not match, so a clause that inserts"
            " adds it a second time. This repair should only update. Run the cell above the exercise again."
        )
    counted = {key for key in after_count if after_count[key] != after_mistake[key]}
    intended = {key for key in before if key[0] == 2 and key[1] <= 20}
    expected = {key: after_count[key] if key in counted | intended else before[key] for key in before}
    wrong = {key for key in expected if now.get(key) != expected[key]}
    if set(now) != set(expected):
        raise Wrong("The table has different rows than before. This repair should only update.")
    if not wrong:
        repaired = sum(after_mistake[key] != before[key] for key in set(before) - counted - intended)
        return Right(
            f"{repaired} stocks have their old quantity, {len(counted)} later counts are kept, and store 2 stays at"
            " zero."
        )
    later_commits = table.history(table.version() - 2)
    if any(action["operation"] == "RESTORE" for action in later_commits) and counted & wrong:
        raise Wrong(
            f"A restore undoes everything that came later: {len(counted & wrong)} later counts are lost. Run the"
            " cell above the exercise again, and MERGE the old values instead."
        )
    again = "Run the cell above the exercise again before your next try."
    if lost := counted & wrong:
        raise Wrong(
            f"The old values overwrote {len(lost)} later count{'s' * (len(lost) > 1)}. Update only stocks that are"
            f" still zero, as Sam left them. {again}"
        )
    if undone := intended & wrong:
        raise Wrong(
            f"{len(undone)} stocks of store 2 are as before, but that part of Sam's change was intended. {again}"
        )
    raise Wrong(f"{len(wrong)} stocks do not yet have their old quantity. Sam's predicate leaves out the store.")


def _open(lake: Lake, name: str, version: int | None = None) -> DeltaTable:
    table = lake.delta("shop", name, version=version)
    if table is None:
        raise Wrong(f"There is no table shop/{name}. Run the cells above.")
    return table


def _quantities(table: DeltaTable) -> dict[StockKey, int]:
    rows = table.to_pyarrow_table(columns=["store_id", "product_id", "quantity"]).to_pylist()
    return {(row["store_id"], row["product_id"]): row["quantity"] for row in rows}
