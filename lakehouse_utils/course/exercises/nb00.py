"""The checks of notebook 00: count orders, correct a query, list rejected rows."""

from typing import Any

import numpy as np
import pandas as pd

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake


@exercise("00.1", "Count the orders that were not shipped", expects=(int, np.integer))
def check_order_count(answer: int, lake: Lake) -> Right:
    """The answer is the number of rows of silver/orders with store 2 and without a shipped date."""
    silver, bronze = (_table_of_orders(lake, layer) for layer in ("silver", "bronze"))
    is_store, is_open = silver["store_id"] == 2, silver["shipped_date"].isna()
    if answer == (is_store & is_open).sum():
        return Right(f"{answer} of the {is_store.sum()} orders of store 2 have no shipped date.")
    if answer == 0:
        raise Wrong("There are such orders. In SQL, nothing is equal to NULL, not even NULL: use IS NULL.")
    if answer == len(silver):
        raise Wrong("That is the number of all orders. Count only those of store 2 that have no shipped_date.")
    if answer == is_open.sum():
        raise Wrong("Those are the orders of all stores that have no shipped_date. Count only those of store 2.")
    if answer == is_store.sum():
        raise Wrong("Those are all orders of store 2. Count only those that have no shipped_date.")
    if answer == (is_store & ~is_open).sum():
        raise Wrong("Those are the orders of store 2 that were shipped. You need the others.")
    if answer == (is_store | is_open).sum():
        raise Wrong("OR also takes orders that meet only one of the two conditions. Use AND.")
    in_store, texts = bronze["store_id"] == "2", bronze["shipped_date"]
    is_empty, is_word = texts.isna(), texts == "NULL"
    if answer in [(in_store & found).sum() for found in (is_empty, is_word, is_empty | is_word)]:
        raise Wrong(
            "That is the bronze table. It has a row for each delivery of an order, and missing dates are written in"
            " several ways. Count in silver."
        )
    raise Wrong("silver/orders has another number of such orders. Use the conditions store_id = 2 and IS NULL.")


def _table_of_orders(lake: Lake, layer: str) -> pd.DataFrame:
    columns = ["store_id", "shipped_date"]
    frame: pd.DataFrame = open_table(lake, layer, "orders").to_pyarrow_table(columns=columns).to_pandas()
    return frame


_ONLY_2025, _SINCE_2025, _ELECTRIC = (
    "year(order_date) = 2025",
    "order_date >= '2025-01-01'",
    "category_name = 'Electric Bikes'",
)
_MISTAKES = [  # (what is added up, which rows, in which order, the hint)
    (
        "s.list_price",
        f"{_ELECTRIC} AND {_SINCE_2025}",
        "DESC",
        "That is the colleague's result. What does the query add up, and which orders does it include?",
    ),
    (
        "net_amount",
        f"{_ELECTRIC} AND {_SINCE_2025}",
        "DESC",
        "The column is right now, but the orders of 2026 are included.",
    ),
    (
        "s.list_price",
        f"{_ELECTRIC} AND {_ONLY_2025}",
        "DESC",
        "The year is right now, but list_price is the price of one piece. Sum net_amount, which has the quantity too.",
    ),
    (
        "quantity * s.list_price",
        f"{_ELECTRIC} AND {_ONLY_2025}",
        "DESC",
        "That is the revenue without the discount. Sum net_amount.",
    ),
    ("1", f"{_ELECTRIC} AND {_ONLY_2025}", "DESC", "That is the number of order lines. Sum net_amount."),
    ("quantity", f"{_ELECTRIC} AND {_ONLY_2025}", "DESC", "That is the number of bikes. Sum net_amount."),
    ("net_amount", _ONLY_2025, "DESC", "That includes all categories. The question is about electric bikes."),
    ("net_amount", _ELECTRIC, "DESC", "That includes all years. The question is about orders of 2025."),
    (
        "net_amount",
        f"{_ELECTRIC} AND {_ONLY_2025}",
        "ASC",
        "That brand has the lowest revenue. Sort with DESC, so that the largest sum comes first.",
    ),
]


@exercise("00.2", "Find two mistakes in a query", expects=(tuple, list))
def check_best_brand(answer: Any, lake: Lake) -> Right:  # noqa: ANN401 - a row of any library
    """The answer is the brand with the largest sum of net_amount for electric bikes of 2025, and that sum."""
    row = answer[0] if len(answer) == 1 and isinstance(answer[0], tuple | list) else answer  # fetchall() gives rows
    if len(row) != 2 or not isinstance(row[0], str):
        raise Wrong("The answer must be one row with two values: the brand's name, and its revenue.")
    given = str(row[0]), float(row[1])

    def is_result(expression: str, condition: str, order: str) -> bool:
        name, total = _first_brand(lake, expression, condition, order)
        return name == given[0] and abs(total - given[1]) < 1

    if is_result("net_amount", f"{_ELECTRIC} AND {_ONLY_2025}", "DESC"):
        return Right(f"{given[0]} had the highest revenue, {given[1]:,.0f} dollars.")
    for expression, condition, order, hint in _MISTAKES:
        if is_result(expression, condition, order):
            raise Wrong(hint)
    raise Wrong(
        f"{given[0]} with {given[1]:,.0f} is not the result. Change only the sum and the condition on the date; keep"
        " the rest of the query."
    )


def _first_brand(lake: Lake, expression: str, condition: str, order: str) -> tuple[str, float]:
    with lake.duckdb() as connection:
        name, total = connection.sql(f"""
            SELECT brand_name, sum({expression}) AS total
            FROM delta_scan('{lake.uri("gold", "fact_sales")}') AS s
            JOIN delta_scan('{lake.uri("gold", "dim_products")}') USING (product_sk)
            WHERE {condition} GROUP BY brand_name ORDER BY total {order} LIMIT 1
        """).fetchall()[0]
    return str(name), float(total)


@exercise("00.3", "List the rejected orders", expects=pd.DataFrame)
def check_rejected_orders(answer: pd.DataFrame, lake: Lake) -> Right:
    """The answer has the source file, the source line and the reason of each row of quarantine/orders."""
    columns = ["_source_file", "_source_line", "reason"]
    if missing := [name for name in columns if name not in answer.columns]:
        if {"_source_file", "_source_line"} <= set(answer.columns) and len(answer) > 100:
            raise Wrong(
                "Those are the rows of bronze or silver, which have no reason. The rejected rows are in the table"
                " quarantine/orders."
            )
        raise Wrong(f"The column {missing[0]} is missing. The answer needs the columns {', '.join(columns)}.")
    table = open_table(lake, "quarantine", "orders").to_pyarrow_table(columns=columns)
    expected = {(row["_source_file"], row["_source_line"]): row["reason"] for row in table.to_pylist()}
    given = list(zip(answer["_source_file"], answer["_source_line"], strict=True))
    if others := set(given) - expected.keys():
        raise Wrong(f"{len(others)} of your rows were not rejected. Is the table lake.uri('quarantine', 'orders')?")
    if missing_rows := expected.keys() - set(given):
        raise Wrong(
            f"{len(missing_rows)} of the {len(expected)} rejected rows are missing. Is there a WHERE or a LIMIT that"
            " should not be there? A row can be rejected in bronze or in silver."
        )
    if len(given) > len(expected):
        raise Wrong(f"{len(given) - len(expected)} rows are in the answer twice. Did a join multiply them?")
    reasons = dict(zip(given, answer["reason"], strict=True))
    if wrong := [place for place, reason in expected.items() if reasons[place] != reason]:
        raise Wrong(f"The reason for {wrong[0][0]}, line {wrong[0][1]}, is not the one in quarantine. Copy it.")
    return Right(f"No row was lost: there are {len(expected)} rejected rows, each with its file, line and reason.")
