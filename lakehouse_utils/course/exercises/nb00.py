"""The checks of notebook 00: count rows, rank categories, list rejected rows."""

import numpy as np
import pandas as pd

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake


@exercise("00.1", "Count the orders", expects=(int, np.integer))
def check_order_count(answer: int, lake: Lake) -> Right:
    """The answer is the number of rows of silver/orders."""
    layers = ("silver", "bronze", "quarantine")
    silver, bronze, quarantine = (open_table(lake, layer, "orders").count() for layer in layers)
    if answer == silver:
        return Right(f"Silver has one row for each of the {answer:,} orders.")
    if answer == bronze:
        raise Wrong("That is the bronze table. It has one row for each time an order was delivered. Count silver.")
    if answer == quarantine:
        raise Wrong("That is the quarantine table, which has the rejected rows. Count silver.")
    if answer in (silver + quarantine, bronze + silver, bronze + silver + quarantine):
        raise Wrong("That is the sum of several tables. Count the rows of silver/orders only.")
    if answer == bronze - quarantine:
        raise Wrong("Bronze without the rejected rows still has orders that were delivered twice. Count silver.")
    raise Wrong("silver/orders has a different number of rows. Is the address lake.uri('silver', 'orders')?")


@exercise("00.2", "Find the category with the highest revenue in 2025", expects=(tuple, list))
def check_best_category(answer: tuple[str, float], lake: Lake) -> Right:
    """The answer is the category with the largest sum of net_amount in 2025, and that sum in dollars."""
    if len(answer) != 2 or not isinstance(answer[0], str) or isinstance(answer[1], str):
        raise Wrong('The answer is a pair of a name and a number, such as ("Road Bikes", 123456).')
    with lake.duckdb() as connection:
        revenues = connection.sql(f"""
            SELECT
                category_name,
                sum(net_amount) FILTER (year = 2025)::DOUBLE AS revenue,
                sum(quantity * sale.list_price) FILTER (year = 2025)::DOUBLE AS before_discount,
                sum(quantity) FILTER (year = 2025) AS pieces,
                sum(net_amount)::DOUBLE AS revenue_of_all_years
            FROM delta_scan('{lake.uri("gold", "fact_sales")}') AS sale
            JOIN delta_scan('{lake.uri("gold", "dim_products")}') USING (product_sk)
            JOIN delta_scan('{lake.uri("gold", "dim_date")}') USING (date_sk)
            GROUP BY ALL HAVING revenue IS NOT NULL ORDER BY revenue DESC
        """).df()
    revenues = revenues.set_index(revenues["category_name"].str.casefold())
    name, amount = answer[0].strip().casefold(), float(answer[1])
    if name not in revenues.index:
        raise Wrong(f"No category is called {answer[0]!r}. The column is category_name, in gold/dim_products.")
    best, given = revenues.iloc[0], revenues.loc[name]
    if name == best.name and abs(amount - best["revenue"]) <= 1:
        return Right(f"{best['category_name']} sold for {best['revenue']:,.0f} dollars in 2025.")
    if name == best.name and abs(amount - best["before_discount"]) <= 1:
        raise Wrong("That is quantity times list price, before the discount. Sum net_amount, which includes it.")
    if abs(amount - given["revenue_of_all_years"]) <= 1:
        raise Wrong("That is the revenue of all years. Join gold/dim_date and keep the rows with year = 2025.")
    if name == best.name:
        raise Wrong("The category is right, but not its amount. Sum the net_amount of its sales in 2025.")
    if name == revenues.index[-1]:
        raise Wrong("That category has the lowest revenue. Sort with DESC, so that the largest sum comes first.")
    if name == revenues["pieces"].idxmax():
        raise Wrong("That category sells the most pieces, but they are cheap. Rank by the sum of net_amount.")
    raise Wrong(f"{given['category_name']} does not have the highest revenue in 2025. Sort by the sum of net_amount.")


@exercise("00.3", "List the rejected orders", expects=pd.DataFrame)
def check_rejected_orders(answer: pd.DataFrame, lake: Lake) -> Right:
    """The answer has the source file, the source line and the reason of each row of quarantine/orders."""
    columns = ["_source_file", "_source_line", "reason"]
    if missing := [name for name in columns if name not in answer.columns]:
        where = " Only the quarantine table has it." if missing == ["reason"] else ""
        needed = ", ".join(columns)
        raise Wrong(f"The column {missing[0]} is missing.{where} The answer needs the columns {needed}.")
    table = open_table(lake, "quarantine", "orders").to_pyarrow_table(columns=columns)
    expected = {(row["_source_file"], row["_source_line"]): row["reason"] for row in table.to_pylist()}
    places = list(zip(answer["_source_file"], answer["_source_line"], strict=True))
    if len(set(places)) < len(places):
        raise Wrong("Some rows are in the answer more than once. Is there a JOIN that repeats them?")
    if set(places) < set(expected):
        raise Wrong(
            f"quarantine/orders has {len(expected)} rows, and your answer has {len(places)}. Is there a WHERE or a"
            " LIMIT that should not be there?"
        )
    if set(places) != set(expected):
        raise Wrong("There are rows that are not in quarantine/orders. Did you query another table?")
    if dict(zip(places, answer["reason"], strict=True)) != expected:
        raise Wrong("The files and lines are right, but not all reasons. Select the column reason as it is.")
    return Right(f"No row was lost: there are {len(expected)} rejected rows, each with its file, line and reason.")
