"""The checks of notebook 00: count rows, rank brands, list rejected rows."""

import numpy as np
import pandas as pd

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake


@exercise("00.1", "Count the orders", expects=(int, np.integer))
def check_order_count(answer: int, lake: Lake) -> Right:
    """The answer is the number of rows of silver/orders."""
    silver, bronze = (open_table(lake, layer, "orders").count() for layer in ("silver", "bronze"))
    if answer == silver:
        return Right(f"Silver has one row for each of the {answer:,} orders.")
    if answer == bronze:
        raise Wrong("That is the bronze table. It has one row for each time an order was delivered. Count silver.")
    raise Wrong("silver/orders has a different number of rows. Is the address lake.uri('silver', 'orders')?")


@exercise("00.2", "Find the brand with the highest revenue", expects=str)
def check_best_brand(answer: str, lake: Lake) -> Right:
    """The answer is the brand with the largest sum of net_amount."""
    with lake.duckdb() as connection:
        revenues = connection.sql(f"""
            SELECT brand_name, sum(net_amount) AS revenue
            FROM delta_scan('{lake.uri("gold", "fact_sales")}')
            JOIN delta_scan('{lake.uri("gold", "dim_products")}') USING (product_sk)
            GROUP BY brand_name ORDER BY revenue DESC
        """).fetchall()
    names = [name for name, _ in revenues]
    given = answer.strip().casefold()
    if given == names[0].casefold():
        return Right(f"{names[0]} has the highest revenue: {revenues[0][1]:,.0f} dollars.")
    if given not in [name.casefold() for name in names]:
        raise Wrong(f"No brand is called {answer!r}. The column is brand_name, in gold/dim_products.")
    if given == names[-1].casefold():
        raise Wrong("That brand has the lowest revenue. Sort with DESC, so that the largest sum comes first.")
    raise Wrong(
        f"{answer} does not have the highest revenue. Sum net_amount, which already combines quantity, price and"
        " discount."
    )


@exercise("00.3", "List the rejected orders", expects=pd.DataFrame)
def check_rejected_orders(answer: pd.DataFrame, lake: Lake) -> Right:
    """The answer has the source file, the source line and the reason of each row of quarantine/orders."""
    columns = ["_source_file", "_source_line", "reason"]
    if missing := [name for name in columns if name not in answer.columns]:
        raise Wrong(f"The column {missing[0]} is missing. The answer needs the columns {', '.join(columns)}.")
    table = open_table(lake, "quarantine", "orders").to_pyarrow_table(columns=columns[:2])
    expected = {(row["_source_file"], row["_source_line"]) for row in table.to_pylist()}
    given = set(zip(answer["_source_file"], answer["_source_line"], strict=True))
    if given != expected:
        raise Wrong(
            f"quarantine/orders has {len(expected)} rows, and your answer has {len(given)}. Is there a WHERE or a LIMIT"
            " that should not be there, or did you query another table?"
        )
    return Right(f"No row was lost: there are {len(expected)} rejected rows, each with its file, line and reason.")
