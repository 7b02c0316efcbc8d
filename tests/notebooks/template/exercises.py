"""The checks of notebook 99: count orders, count columns, list stores."""

import numpy as np

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake


@exercise("99.1", "Count the orders", expects=(int, np.integer))
def check_order_count(answer: int, lake: Lake) -> Right:
    """The answer is the number of rows of silver/orders."""
    silver, bronze = (open_table(lake, layer, "orders").count() for layer in ("silver", "bronze"))
    if answer == silver:
        return Right(f"Silver has one row for each of the {answer:,} orders.")
    if answer == bronze:
        raise Wrong("That is the bronze table. Count the rows of silver/orders.")
    raise Wrong("silver/orders has a different number of rows. Which address does your query use?")


@exercise("99.2", "Count the columns", expects=int)
def check_column_count(answer: int, lake: Lake) -> Right:
    """The answer is the number of columns of silver/orders."""
    names = [field.name for field in open_table(lake, "silver", "orders").schema().fields]
    if answer == len(names):
        return Right(f"The schema has {len(names)} columns.")
    if answer == sum(not name.startswith("_") for name in names):
        raise Wrong("That leaves out the columns whose names begin with _. They are part of the schema as well.")
    raise Wrong("The schema has a different number of columns. Look at `orders.schema().fields`.")


@exercise("99.3", "List the stores", expects=list)
def check_stores(answer: list[int], lake: Lake) -> Right:
    """The answer is the sorted list of the store_ids in silver/orders, each one once."""
    stores = sorted(set(open_table(lake, "silver", "orders").to_pyarrow_table()["store_id"].to_pylist()))
    if answer == stores:
        return Right(f"{len(stores)} stores have orders.")
    if sorted(set(answer)) == stores and len(answer) > len(stores):
        raise Wrong("A store is in your list more than once. Use DISTINCT.")
    if sorted(answer) == stores:
        raise Wrong("The stores are right, but they are not sorted. Use ORDER BY.")
    raise Wrong("Stores are missing, or do not exist. Is there a WHERE or a LIMIT that should not be there?")
