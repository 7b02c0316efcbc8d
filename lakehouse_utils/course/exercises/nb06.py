"""The exercises of notebook 06: a window, a predicate that skips files, two answers from history, a mart."""

from typing import Any, cast

import pandas as pd
from deltalake import DeltaTable
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake

_TABLES = ("fact_sales", "dim_customers", "dim_products", "dim_stores", "dim_staffs", "dim_date")


@exercise(
    "06.1",
    "Find each store's best month",
    expects=pd.DataFrame,
)
def check_best_months(answer: pd.DataFrame, lake: Lake) -> Right:
    """One row per store: the month with the largest revenue."""
    _require_columns(answer, ["store_name", "month", "revenue"])
    with _star_schema(lake) as db:
        ranked = """
            SELECT s.store_name, date_trunc('month', order_date)::DATE AS month, sum(net_amount)::DOUBLE AS revenue
            FROM {} AS s GROUP BY store_name, month
            QUALIFY rank() OVER (PARTITION BY s.store_name ORDER BY revenue {}) = 1
        """
        best, worst, with_rejected = (
            {store: (month, revenue) for store, month, revenue in db.sql(ranked.format(*source)).fetchall()}
            for source in (("sales", "DESC"), ("sales", "ASC"), ("all_sales", "DESC"))
        )
    if len(answer) == 1 and len(best) > 1:
        raise Wrong(
            "That is one month of one store. PARTITION BY store_name ranks the months of each store separately."
        )
    if len(answer) > len(best):
        raise Wrong(f"There are {len(best)} stores, but {len(answer)} rows. Keep only rank 1, with QUALIFY.")
    given = {
        row["store_name"]: (pd.Timestamp(row["month"]).date(), float(row["revenue"]))
        for row in answer.to_dict("records")
    }
    if missing := set(best) - set(given):
        raise Wrong(f"There is no row for {min(missing)}.")
    if all(given[store][0] == worst[store][0] for store in best):
        raise Wrong("Those are the months with the smallest revenue. Use ORDER BY revenue DESC.")
    if all(abs(given[store][1] - with_rejected[store][1]) < 1 for store in best) and with_rejected != best:
        raise Wrong("Those sums include rejected orders. Query the view sales.")
    for store, (month, revenue) in best.items():
        if given[store][0] != month:
            raise Wrong(f"{given[store][0]:%B %Y} is not the best month of {store}. Group by month and year.")
        if abs(given[store][1] - revenue) > 1:
            raise Wrong(f"The month of {store} is right, but its revenue is not. Sum net_amount over the view sales.")
    return Right(f"{len({month for month, _ in best.values()})} different months for {len(best)} stores.")


@exercise(
    "06.2",
    "Make a query skip files",
    expects=str,
)
def check_skipped_files(answer: str, lake: Lake) -> Right:
    """SQL that gives the visits of February by page, and opens only the files that contain February."""
    solution = "SELECT page, count(*) FROM visits WHERE day BETWEEN '2025-02-01' AND '2025-02-28' GROUP BY page"
    with lake.duckdb() as db:
        db.sql(f"CREATE VIEW visits AS FROM delta_scan('{lake.uri('web', 'visits')}')")
        expected, result = dict(db.sql(solution).fetchall()), cast("DuckDBPyRelation | None", db.sql(answer))
        if result is None or len(result.columns) != 2:
            raise Wrong("The query should give two columns: the page, and the number of visits.")
        given = dict(result.fetchall())
        fewest, opened = (_opened_files(views.reads(db, sql)) for sql in (solution, answer))
    if set(given) != set(expected):
        raise Wrong("The pages are not the expected ones. The query should give one row per page.")
    if sum(given.values()) > sum(expected.values()):
        raise Wrong("That is more than February had. BETWEEN includes both ends: is a day of March among them?")
    if given != expected:
        raise Wrong("Those are not all visits of February, or there are visits of other months among them.")
    if opened > fewest:
        raise Wrong(
            f"The rows are right, but the query opens {opened} files, and {fewest} would be enough. Compare day itself,"
            " without a function or a cast."
        )
    return Right(f"The same rows, from {fewest} files.")


@exercise(
    "06.3",
    "Follow the customers who moved",
    expects=pd.DataFrame,
)
def check_moved_customers(answer: pd.DataFrame, lake: Lake) -> Right:
    """Cities whose revenue at the sale differs from that of the customers who live there now."""
    _require_columns(answer, ["city", "at_sale", "today"])
    with _star_schema(lake) as db:
        rows = db.sql("""
            SELECT city, sum(at_sale)::DOUBLE, sum(today)::DOUBLE FROM (
                SELECT city, net_amount AS at_sale, 0 AS today FROM sales
                UNION ALL
                SELECT c.city, 0, net_amount
                FROM sales JOIN dim_customers AS c USING (customer_id) WHERE c.is_current
            ) WHERE city IS NOT NULL GROUP BY city
        """).fetchall()
    all_cities = {city: (at_sale, today) for city, at_sale, today in rows}
    expected = {city: sums for city, sums in all_cities.items() if abs(sums[0] - sums[1]) > 0.005}
    if answer["city"].isna().any():
        raise Wrong("A row has no city. Leave out sales without a known customer.")
    if answer[["at_sale", "today"]].isna().any(axis=None):
        raise Wrong("A city has NULL in a column. coalesce(x, 0) turns NULL into zero.")
    given = {row["city"]: (float(row["at_sale"]), float(row["today"])) for row in answer.to_dict("records")}
    existing = [city for city in given if city in all_cities]
    if existing and all(_are_close(given[city], all_cities[city][::-1]) for city in existing if city in expected):
        raise Wrong("The two columns are swapped.")
    if any(given[city][1] > all_cities[city][1] + 0.01 for city in existing):
        raise Wrong("In a city, today is too high. Without is_current, a sale counts once per address of its customer.")
    if all(city in given for city in expected) and len(given) > len(expected):
        raise Wrong(f"{len(given)} cities are too many. Keep only cities where the two columns differ.")
    if missing := sorted(set(expected) - set(given)):
        raise Wrong(f"{missing[0]} is missing. A city may be in only one of the two sums, so you need a FULL JOIN.")
    if different := [city for city in expected if not _are_close(given[city], expected[city])]:
        raise Wrong(f"The numbers of {different[0]} are not right. Use the revenue from the view sales.")
    return Right(f"{len(expected)} cities gained or lost revenue because customers moved.")


@exercise(
    "06.4",
    "Publish a mart of the staff",
    expects=DeltaTable,
)
def check_staff_mart(answer: DeltaTable, lake: Lake) -> Right:
    """gold/mart_staff has one row per staff_id and year."""
    table = lake.delta("gold", "mart_staff")
    if table is None or answer.table_uri.rstrip("/") != lake.uri("gold", "mart_staff"):
        raise Wrong('The table should be at lake.uri("gold", "mart_staff").')
    rows = table.to_pyarrow_table().to_pandas()
    _require_columns(rows, ["staff_id", "year", "orders", "revenue", "share"])
    with _star_schema(lake) as db:
        expected = db.sql("""
            SELECT staff_id, year, count(DISTINCT order_id) AS orders, count(*) AS lines,
                sum(net_amount)::DOUBLE AS revenue, revenue / sum(revenue) OVER (PARTITION BY store_name, year) AS share
            FROM sales GROUP BY store_name, staff_id, year
        """).df()
    if rows.duplicated(["staff_id", "year"]).any():
        raise Wrong('A staff_id has two rows in one year. Did a second run append? mode="overwrite" replaces the rows.')
    types = {field.name: str(field.type.type) for field in table.schema().fields}
    both = expected.merge(rows, on=["staff_id", "year"], suffixes=("", "_given"), how="outer", indicator=True)
    if (both["_merge"] != "both").any():
        raise Wrong(f"Each staff_id and year with sales should have one row: {len(expected)} rows, not {len(rows)}.")
    if (both["orders_given"].astype(float) == both["lines"]).all():
        raise Wrong("The column orders counts order lines. Use count(DISTINCT order_id).")
    if (both["orders_given"].astype(float) != both["orders"]).any():
        raise Wrong("The numbers of orders are not right. Orders that were rejected don't count.")
    if not _all_close(both["revenue_given"], both["revenue"], 0.01):
        raise Wrong("The revenue is not right. Sum net_amount over the view sales.")
    if _all_close(both["share_given"], 100 * both["share"], 0.1):
        raise Wrong("The share should be between 0 and 1, not a percentage.")
    if not _all_close(both["share_given"], both["share"], 0.001):
        sums = rows.groupby("year")["share"].sum().astype(float)
        of_all_stores = " Yours is of all stores together." if (abs(sums - 1) < 0.01).all() else ""
        raise Wrong(f"The share should be of the same store's revenue in the same year.{of_all_stores}")
    if others := [name for name in ("staff_id", "year", "orders") if types[name] not in ("long", "integer")]:
        raise Wrong(f"{others[0]} has the type {types[others[0]]} in the log. Cast it to BIGINT.")
    return Right(f"{len(rows)} rows that any engine can read; the shares of each store and year add up to 1.")


def _star_schema(lake: Lake) -> DuckDBPyConnection:
    """A connection with views over gold, and the view `sales`: without rejected orders."""
    db = lake.duckdb()
    for name in _TABLES:  # pinned: several queries follow, and otherwise each would read six logs
        db.sql(f"ATTACH '{lake.uri('gold', name)}' AS pinned_{name} (TYPE delta, PIN_SNAPSHOT)")
        db.sql(f"CREATE VIEW {name} AS FROM pinned_{name}")
    db.sql("""
        CREATE VIEW all_sales AS
        SELECT f.*, s.store_name, staff_id, customer_id, c.city, d.year
        FROM fact_sales AS f JOIN dim_customers AS c USING (customer_sk) JOIN dim_stores AS s USING (store_sk)
        JOIN dim_staffs USING (staff_sk) JOIN dim_date AS d USING (date_sk)
    """)
    db.sql("CREATE VIEW sales AS FROM all_sales WHERE order_status <> 3")
    return db


def _opened_files(reads: dict[str, Any]) -> int:
    """How many files were opened: "3 of 17" is 3."""
    return int(reads["files"].split(" ")[0]) if reads["files"] else reads["requests"]


def _require_columns(frame: pd.DataFrame, columns: list[str]) -> None:
    if missing := [name for name in columns if name not in frame.columns]:
        raise Wrong(f"The column {missing[0]} is missing. The columns should be {', '.join(columns)}.")


def _are_close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(abs(a - b) <= 0.01 for a, b in zip(one, other, strict=True))


def _all_close(given: pd.Series, expected: pd.Series, tolerance: float) -> bool:
    return bool(((given.astype(float) - expected).abs() <= tolerance).all())
