"""The exercises of notebook 00: count, rank, and find what was set aside."""

import numpy as np
import pandas as pd

from lakehouse_utils.course.exercises import Right, Wrong, exercise


@exercise(
    "00.1",
    "Count the orders",
    hint="`SELECT count(*) FROM delta_scan('...')`, where `...` is the address of silver/orders.",
    expects=(int, np.integer),
)
def orders(answer, lake):
    """How many orders silver holds."""
    there = {layer: lake.delta(layer, "orders").count() for layer in ("silver", "bronze", "quarantine")}
    if answer == there["silver"]:
        return Right(f"Silver has one row for each of the {answer:,} orders.")
    if answer == there["bronze"]:
        raise Wrong("That is bronze, where an order has a row for each time that it came. Count silver.")
    raise Wrong("silver/orders has another number of rows. Is the address lake.uri('silver', 'orders')?")


@exercise(
    "00.2",
    "Name the brand that earns most",
    hint="Join gold/fact_sales to gold/dim_products, sum `net_amount` by `brand_name`, sort, take the first.",
    expects=str,
)
def best_brand(answer, lake):
    """The brand with the largest sum of net_amount."""
    with lake.duckdb() as db:
        sums = db.sql(f"""
            SELECT brand_name, sum(net_amount) AS earned
            FROM delta_scan('{lake.uri("gold", "fact_sales")}')
            JOIN delta_scan('{lake.uri("gold", "dim_products")}') USING (product_sk)
            GROUP BY brand_name ORDER BY earned DESC
        """).fetchall()
    names = [name for name, _ in sums]
    given = answer.strip().casefold()
    if given == names[0].casefold():
        return Right(f"{names[0]} earns most, {sums[0][1]:,.0f} in all.")
    if given not in [name.casefold() for name in names]:
        raise Wrong(f"No brand is called {answer!r}. The column is brand_name, in gold/dim_products.")
    if given == names[-1].casefold():
        raise Wrong("That one earns least: sort with DESC, the largest first.")
    raise Wrong(f"{answer} doesn't earn most. Sum net_amount, in which quantity, price and discount are one already.")


@exercise(
    "00.3",
    "Find the orders that were set aside",
    hint="`SELECT _source_file, _source_line, reason FROM delta_scan('...')`, where `...` is the address of"
    " quarantine/orders; `.df()` makes a DataFrame of the result.",
    expects=pd.DataFrame,
)
def set_aside(answer, lake):
    """Where the rows of quarantine/orders came from, and why they are there."""
    wanted = ["_source_file", "_source_line", "reason"]
    if missing := [name for name in wanted if name not in answer.columns]:
        raise Wrong(f"The column {missing[0]} is missing; wanted are {', '.join(wanted)}.")
    there = {(row["_source_file"], row["_source_line"]) for row in _rows(lake)}
    given = set(zip(answer["_source_file"], answer["_source_line"], strict=True))
    if given != there:
        less = f"{len(there)} rows are in quarantine/orders, and {len(given)} in your answer"
        raise Wrong(f"{less}: is there a WHERE or a LIMIT too many, or another table?")
    return Right(f"Nothing was lost: {len(there)} bad rows, each with its file, its line and a reason.")


def _rows(lake):
    return lake.delta("quarantine", "orders").to_pyarrow_table(columns=["_source_file", "_source_line"]).to_pylist()
