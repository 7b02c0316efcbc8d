"""The exercises of notebook 04: versions in which a row changed, a table as of a time, one change undone."""

import numpy as np
from deltalake import DeltaTable

from lakehouse_utils.course.exercises import Right, Wrong, exercise


@exercise(
    "04.1",
    "Name the versions in which a price changed",
    expects=dict,
)
def price_changes(answer, lake):
    """For each of two products, the versions of shop/prices whose price is another than in the version before."""
    products = (77, 95)
    if answer.keys() != set(products):
        raise Wrong("The dict has other keys than 77 and 95, the numbers of the two products.")
    table = _open(lake, "prices")
    newest, cost = table.version(), []
    for version in range(newest + 1):
        table.load_as_version(version)
        rows = table.to_pyarrow_table(columns=["product_id", "list_price"], filters=[("product_id", "in", products)])
        cost.append({row["product_id"]: row["list_price"] for row in rows.to_pylist()})
    for product in products:
        changed = {v for v in range(1, newest + 1) if cost[v].get(product) != cost[v - 1].get(product)}
        _are_versions(answer[product], changed, newest, product)
    return Right("The nightly load changed each once, and both went through the sale, the restores and the repair.")


def _are_versions(answer, changed: set[int], newest: int, product: int) -> None:
    try:
        given = {int(version) for version in answer}
    except (TypeError, ValueError):
        raise Wrong(f"The versions of product {product} should be a list of whole numbers.") from None
    if 0 in given:
        raise Wrong("Version 0 wrote the price for the first time: there is none before it to differ from.")
    if beyond := sorted(given - set(range(newest + 1))):
        raise Wrong(f"There is no version {beyond[0]}; the newest is {newest}.")
    if more := sorted(given - changed):
        raise Wrong(
            f"In version {more[0]} product {product} costs what it did in the version before. A commit may rewrite a"
            " row's file, or put other rows into it, and leave the row as it was."
        )
    missing = changed - given
    if missing and min(missing) < 3:
        raise Wrong(
            f"Product {product}: an early change is missing. The change data feed begins at version 2; ask the versions"
            " themselves."
        )
    if missing:
        raise Wrong(
            f"Product {product}: a change is missing. A restore changes rows, too, and so did your repair of the price"
            " list."
        )


@exercise(
    "04.2",
    "Count the products at a colleague's time",
    expects=(int, np.integer),
)
def at_her_time(answer, lake):
    """How many products the price list had after the load of 6 January, which is version 3."""
    newest = _open(lake, "prices")
    then, first = (_open(lake, "prices", version).count() for version in (3, 0))
    if answer == then:
        return Right(f"{then} products: her time, with its zone, is between versions 3 and 4.")
    if answer == first:
        raise Wrong(
            f"{first} is the count of version 0: you asked for a time before all commits. Without a zone, and with Z,"
            " her clock is read as UTC, five hours too early. +05:00, the wrong sign, makes it ten."
        )
    if answer == newest.count():
        raise Wrong(
            f"{answer} is the count of the newest version: the table was not moved to her time, or her time was moved"
            " by five hours twice, to a time in the future."
        )
    raise Wrong("The list never had that number of products. Is it shop/prices that you count?")


@exercise(
    "04.3",
    "Undo a wrong update and keep what came later",
    expects=DeltaTable,
)
def only_the_mistake(answer, lake):
    """shop/stocks has Sam's rows of store 2 at zero, the later counts, and else what version 0 has."""
    if answer.table_uri.rstrip("/") != lake.uri("shop", "stocks"):
        raise Wrong("That is another table. Repair shop/stocks, then open it: DeltaTable(stocks, ...).")
    table = _open(lake, "stocks")
    before, spoilt, later = (_stocks(_open(lake, "stocks", version)) for version in (0, 1, 2))
    now = _stocks(table)
    if table.version() == 2:
        raise Wrong("shop/stocks is still as Sam and the count left it: no commit came after version 2.")
    if len(now) != table.count():
        raise Wrong(
            "Some stocks have two rows now. One that was counted later doesn't match, and a clause that inserts adds it"
            " once more. A repair of this mistake only updates. Run the cell above the exercise again."
        )
    counted = {key for key in later if later[key] != spoilt[key]}
    meant = {key for key in before if key[0] == 2 and key[1] <= 20}
    wanted = {key: later[key] if key in counted | meant else before[key] for key in before}
    wrong = {key for key in wanted if now.get(key) != wanted[key]}
    if set(now) != set(wanted):
        raise Wrong("There are other rows than before: a repair of this mistake only updates.")
    if not wrong:
        mended = sum(spoilt[key] != before[key] for key in set(before) - counted - meant)
        return Right(f"{mended} stocks are as before, {len(counted)} later counts are kept, and store 2 stays at zero.")
    if any(action["operation"] == "RESTORE" for action in table.history(table.version() - 2)) and counted & wrong:
        raise Wrong(
            f"A restore takes back all that came after: {len(counted & wrong)} later counts are lost. Run the cell"
            " above the exercise again, and MERGE old values instead."
        )
    again = "Run the cell above the exercise again before you try once more."
    if lost := counted & wrong:
        raise Wrong(
            f"The old values overwrote {len(lost)} later count{'s' * (len(lost) > 1)}. Touch only stocks that are still"
            f" zero, as Sam left them. {again}"
        )
    if undone := meant & wrong:
        raise Wrong(f"{len(undone)} stocks of store 2 came back: that part of Sam's change was meant. {again}")
    raise Wrong(f"{len(wrong)} stocks are not yet what they were before. Sam's predicate forgot the store.")


def _open(lake, table, version=None):
    opened = lake.delta("shop", table, version=version)
    if opened is None:
        raise Wrong(f"There is no table shop/{table}: run the cells above.")
    return opened


def _stocks(table):
    rows = table.to_pyarrow_table(columns=["store_id", "product_id", "quantity"]).to_pylist()
    return {(row["store_id"], row["product_id"]): row["quantity"] for row in rows}
