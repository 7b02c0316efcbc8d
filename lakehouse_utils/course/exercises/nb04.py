"""The checks of notebook 04: predict what versions contain, follow a change data feed, undo one change."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake

PREDICTED = (6, 7, 9, 11, 0)
_NAMES = (
    "number of the newest version",
    "number of rows of the newest version",
    "number of rows of reader",
    "number of rows of version 4",
    "version in 1999",
)
_REFUSED = "Versions begin with 0, and a restore to the version that the handle is at is refused: it makes no version."
_FORWARD = "A restore is a commit too: the version numbers go on, and never back."
_STAYS = "An open table stays at the version at which it was opened. What was the newest version then?"
_RESTORED = "Version 3 is the restore of all nine rows. Which rows does the next call add?"
_BEFORE = "For a time before the first commit there is no error: delta-rs opens the first version."
_TRIES = {  # by position: the numbers that a mistake leads to, and the hint that fits it
    0: {7: _REFUSED, 8: _REFUSED, 5: _FORWARD, 4: _FORWARD, 3: _FORWARD, 2: _FORWARD, 1: _FORWARD},
    1: {
        8: "The last call deletes one row of what the restore brought back.",
        10: "restore(2) succeeds: its handle is at the newest version. It undoes the append that came before it.",
        11: "restore(2) succeeds, and the last call deletes a row.",
        5: "The last restore is of version 2, not of version 1. What does version 2 contain?",
        6: "The last restore is of version 2, not of version 1. What does version 2 contain?",
        9: "The restore brings back version 2: the six rows that the first delete left, and the two new ones.",
    },
    2: {7: _STAYS, 6: _STAYS, 8: _STAYS, 11: _STAYS},
    3: {9: _RESTORED, 8: _RESTORED, 6: _RESTORED, 13: "Version 3 is a restore: it replaces the rows, and adds none."},
    4: {6: _BEFORE, 5: _BEFORE, 1: _BEFORE, -1: _BEFORE},
}


@exercise("04.1", "Predict what the versions contain", expects=(tuple, list, np.ndarray))
def check_prediction(answer: Sequence[Any], _lake: Lake) -> Right:
    """The answer has the newest version, the rows of three versions, and the version at a time before all commits."""
    if len(answer) != len(PREDICTED) or not all(_is_whole(number) for number in answer):
        raise Wrong("The answer should have five whole numbers.")
    for position, (given, expected) in enumerate(zip(answer, PREDICTED, strict=True)):
        if given != expected:
            hint = _TRIES[position].get(int(given), "Go through the calls one by one: which of them commit what?")
            raise Wrong(f"The {_NAMES[position]} is not {given}. {hint}")
    return Right("Six changes, two of them restores, made versions 1 to 6. The reader noticed none of them.")


def _is_whole(number: object) -> bool:
    return isinstance(number, int | float | np.integer | np.floating) and number == int(number)


# -- 04.2

Prices = dict[int, Any]
Feed = list[dict[str, Any]]


def _change(kind: str, version: int, product: int, price: str) -> dict[str, Any]:
    return {
        "product_id": product,
        "product_name": f"Product {product}",
        "brand_id": 1,
        "list_price": Decimal(price),
        "_change_type": kind,
        "_commit_version": version,
        "_commit_timestamp": datetime(2026, 1, 6, version, tzinfo=UTC),
    }


def _update(version: int, product: int, old: str, new: str) -> Feed:
    return [_change("update_postimage", version, product, new), _change("update_preimage", version, product, old)]


_COPY = {8: Decimal("100.00"), 9: Decimal("200.00")}
_CASES: list[tuple[Feed, Mapping[int, str], str]] = [  # a feed, the prices after it, and the hint if they differ
    (
        _update(9, 8, "100.00", "90.00"),
        {8: "90.00", 9: "200.00"},
        "A product got a new price, and the dict does not have it. update_preimage is the row *before* the change.",
    ),
    (
        [_change("insert", 9, 301, "50.00")],
        {8: "100.00", 9: "200.00", 301: "50.00"},
        "A product was inserted, and follow must add it.",
    ),
    (
        [_change("delete", 9, 9, "200.00")],
        {8: "100.00"},
        "A product was deleted and not inserted again, so it must not be in the dict any more.",
    ),
    (
        _update(10, 8, "90.00", "80.00") + _update(9, 8, "100.00", "90.00"),
        {8: "80.00", 9: "200.00"},
        "A price changed in version 9, and again in version 10. Apply the versions in order, as numbers.",
    ),
    (
        [_change("delete", 10, 301, "50.00"), _change("insert", 9, 301, "50.00")],
        {8: "100.00", 9: "200.00"},
        "A product was inserted in version 9 and deleted in version 10. Deletes come first only within a version.",
    ),
    (
        [
            _change("insert", 9, 8, "100.00"),
            _change("insert", 9, 9, "200.00"),
            _change("delete", 9, 8, "100.00"),
            _change("delete", 9, 9, "200.00"),
        ],
        {8: "100.00", 9: "200.00"},
        "A restore deletes and inserts products in one version. Within a version, apply the deletes first.",
    ),
    (
        [_change("insert", 9, 8, "70.00"), _change("delete", 9, 8, "100.00")],
        {8: "70.00", 9: "200.00"},
        "A restore brought back another price. A delete and an insert of a product in one version are a new price.",
    ),
]


@exercise("04.2", "Find the faults in a reader of the feed", expects=Callable)
def check_feed_reader(answer: Callable[[Prices, Feed], object], lake: Lake) -> Right:
    """The function keeps a dict of prices up to date, in whichever order the rows of a feed arrive."""
    for feed, prices, hint in _CASES:
        for rows in (feed, feed[::-1], feed[1:] + feed[:1]):
            given, expected = _followed(answer, _COPY, rows), _rounded(prices)
            if expected.keys() - {row["product_id"] for row in feed} - given.keys():
                raise Wrong("A product that the feed does not mention is missing. It must keep its price.")
            if given != expected:
                raise Wrong(hint)
    table = open_table(lake, "shop", "prices")
    newest = table.version()
    if newest < 8:
        raise Wrong("The price list has not been repaired yet. Run the cells above.")
    feed = pa.table(table.load_cdf(starting_version=4, ending_version=newest)).to_pylist()
    before, after = (_prices(open_table(lake, "shop", "prices", version=version)) for version in (3, newest))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(feed))
        if _followed(answer, before, [feed[position] for position in order]) != _rounded(after):
            raise Wrong(
                f"With the feed of shop/prices from version 4 to {newest}, the prices are not those of the table."
            )
    return Right(
        f"The {len(feed):,} rows of the feed, two restores among them, lead to the {len(after)} prices of the table."
    )


def _followed(follow: Callable[[Prices, Feed], object], copy: Prices, feed: Feed) -> dict[int, float]:
    """The prices after `follow`, which may change its argument, or return another dict."""
    prices = dict(copy)
    try:
        result = follow(prices, [dict(row) for row in feed])
    except Exception as error:  # noqa: BLE001 - a learner's function may raise anything
        text = (str(error).splitlines() or [""])[0][:200]
        raise Wrong(f"follow raised {type(error).__name__}: {text}") from None
    return _rounded(result if isinstance(result, dict) else prices)


def _rounded(prices: Mapping[int, Any]) -> dict[int, float]:
    return {product: round(float(price), 2) for product, price in prices.items()}


def _prices(table: DeltaTable) -> Prices:
    rows = table.to_pyarrow_table(columns=["product_id", "list_price"]).to_pylist()
    return {row["product_id"]: row["list_price"] for row in rows}


# -- 04.3

StockKey = tuple[int, int]  # store_id, product_id


@exercise("04.3", "Undo a wrong update and keep what came later", expects=DeltaTable)
def check_repaired_stocks(answer: DeltaTable, lake: Lake) -> Right:
    """The table has Sam's rows of store 2 at zero, the later counts, and everything else as in version 0."""
    if not answer.table_uri.startswith(lake.uri("shop", "stocks-")):
        raise Wrong("That is a different table. Repair the one at the address `stocks`, and put it into answer.")
    table, *versions = (_at_version(answer.table_uri, lake, version) for version in (None, 0, 1, 2))
    before, after_mistake, after_count = map(_quantities, versions)
    now = _quantities(table)
    if table.version() == 2:
        raise Wrong("The table is still as Sam and the count left it: no commit came after version 2.")
    if len(now) != table.count():
        raise Wrong(
            "Some stocks have two rows now. A stock that was counted later does not match, so a clause that inserts"
            " adds it a second time. This repair should only update."
        )
    if set(now) != set(before):
        raise Wrong("The table has different rows than before. This repair should only update.")
    counted = {key for key in after_count if after_count[key] != after_mistake[key]}
    intended = {key for key in before if key[0] == 2 and key[1] <= 20}
    expected = {key: after_count[key] if key in counted | intended else before[key] for key in before}
    wrong = {key for key in expected if now[key] != expected[key]}
    if not wrong:
        repaired = sum(after_mistake[key] != before[key] for key in set(before) - counted - intended)
        return Right(
            f"{repaired} stocks have their old quantity, {len(counted)} later counts are kept, and store 2 stays at"
            " zero."
        )
    lost, undone = counted & wrong, intended & wrong
    later_commits = table.history(table.version() - 2)
    if lost and any(commit["operation"] == "RESTORE" for commit in later_commits):
        raise Wrong(
            f"A restore undoes everything that came later: {len(lost)} later counts are lost. MERGE the old values"
            " instead."
        )
    if lost:
        raise Wrong(
            f"The old values overwrote {len(lost)} later count{'s' * (len(lost) > 1)}. Update only stocks that are"
            " still zero, as Sam left them."
        )
    if undone:
        raise Wrong(f"{len(undone)} stocks of store 2 are as before, but that part of Sam's change was intended.")
    raise Wrong(f"{len(wrong)} stocks do not yet have their old quantity. Sam's predicate leaves out the store.")


def _at_version(uri: str, lake: Lake, version: int | None) -> DeltaTable:
    return DeltaTable(uri, version=version, storage_options=lake.storage_options)


def _quantities(table: DeltaTable) -> dict[StockKey, int]:
    rows = table.to_pyarrow_table(columns=["store_id", "product_id", "quantity"]).to_pylist()
    return {(row["store_id"], row["product_id"]): row["quantity"] for row in rows}
