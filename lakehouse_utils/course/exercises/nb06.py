"""The exercises of notebook 06: a predicate that skips files, two answers from history, a mart."""

from typing import Any, cast

import pandas as pd
from deltalake import DeltaTable
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake

_TABLES = ("fact_sales", "dim_customers", "dim_products", "dim_stores", "dim_staffs", "dim_date")
_CENT_FRACTION = 0.005  # a smaller difference between two sums is one of rounding


@exercise(
    "06.1",
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
        pairs = result.fetchall()
        fewest, opened = (_opened_files(views.reads(db, sql)) for sql in (solution, answer))
    if pairs and {second for _, second in pairs} <= set(expected):
        raise Wrong("The two columns are swapped: first the page, then the number of visits.")
    if len(pairs) > len({page for page, _ in pairs}):
        raise Wrong("A page has more than one row. Group by the page only.")
    given = dict(pairs)
    if not given:
        raise Wrong("The query finds no visits. They are of the year 2025.")
    if set(given) != set(expected):
        raise Wrong("The pages are not the expected ones. The query should give one row per page.")
    if sum(given.values()) > sum(expected.values()):
        raise Wrong("That is more than February had. BETWEEN includes both ends: is a day of March among them?")
    if given != expected:
        raise Wrong(
            "Those are not all visits of February. Is its last day among them? BETWEEN includes both ends, < not."
        )
    if opened > fewest and "visited_at" in answer:
        raise Wrong(
            f"The rows are right, but the query opens {opened} files, and {fewest} would be enough. DuckDB skips no"
            " file by a timestamp with time zone: add a condition on day."
        )
    if opened > fewest:
        raise Wrong(
            f"The rows are right, but the query opens {opened} files, and {fewest} would be enough. Compare day itself,"
            " without a function or a cast."
        )
    return Right(f"The same rows, from {fewest} files.")


@exercise(
    "06.2",
    "Follow the customers who moved",
    expects=pd.DataFrame,
)
def check_moved_customers(answer: pd.DataFrame, lake: Lake) -> Right:
    """Cities whose revenue at the sale differs from that of the customers who live there now."""
    _require_columns(answer, ["store_name", "city", "at_sale", "today"])
    with _star_schema(lake) as db:
        rows = db.sql("""
            SELECT store_name, city, sum(at_sale)::DOUBLE, sum(today)::DOUBLE FROM (
                SELECT store_name, city, net_amount AS at_sale, 0 AS today FROM sales
                UNION ALL
                SELECT store_name, c.city, 0, net_amount
                FROM sales JOIN dim_customers AS c USING (customer_id) WHERE c.is_current
            ) WHERE city IS NOT NULL GROUP BY store_name, city
        """).fetchall()
    everywhere = {(store, city): (at_sale, today) for store, city, at_sale, today in rows}
    expected = {key: sums for key, sums in everywhere.items() if abs(sums[0] - sums[1]) > _CENT_FRACTION}
    if answer["city"].isna().any():
        raise Wrong("A row has no city. Leave out sales without a known customer.")
    if answer[["at_sale", "today"]].isna().any(axis=None):
        raise Wrong("A row has NULL in a column. coalesce(x, 0) turns NULL into zero.")
    if answer.duplicated(["store_name", "city"]).any():
        raise Wrong("A city of a store has more than one row. Group by store and city, and join by both.")
    given = {
        (row["store_name"], row["city"]): (float(row["at_sale"]), float(row["today"]))
        for row in answer.to_dict("records")
    }
    shared = [key for key in given if key in everywhere]
    differing = [key for key in shared if not _are_close(given[key], everywhere[key])]
    if differing and all(_are_close(given[key], everywhere[key][::-1]) for key in shared):
        raise Wrong("The two columns are swapped.")
    if any(given[key][0] > everywhere[key][0] + 0.01 for key in shared):
        raise Wrong("In a city, at_sale is too high. Take the city from the view sales, which has no rejected orders.")
    if any(given[key][1] > everywhere[key][1] + 0.01 for key in shared):
        raise Wrong("In a city, today is too high. Without is_current, a sale counts once per address of its customer.")
    if any(0 < abs(at_sale - today) < _CENT_FRACTION for at_sale, today in given.values()):
        raise Wrong(
            "Some rows differ only by rounding: a sum of DOUBLE depends on the order of the rows. Compare sums of"
            " DECIMAL, or round."
        )
    if all(key in given for key in expected) and len(given) > len(expected):
        raise Wrong(f"{len(given)} rows are too many. Keep only rows where the two columns differ.")
    if missing := sorted(set(expected) - set(given)):
        raise Wrong(_missing(missing, expected))
    if different := [key for key in expected if not _are_close(given[key], expected[key])]:
        raise Wrong(f"The numbers of {different[0][1]} are not right. Use the revenue from the view sales.")
    return Right(f"{len(expected)} times, a city of a store gained or lost revenue because customers moved.")


def _missing(missing: list[tuple[str, str]], expected: dict[tuple[str, str], tuple[float, float]]) -> str:
    store, city = missing[0]
    if all(0 in expected[key] for key in missing):
        return (
            f"{city} is missing at {store}: it is in only one of the two sums. An INNER JOIN loses it; use a FULL JOIN."
        )
    return f"{city} is missing at {store}. Compare the sums of each store and city."


@exercise(
    "06.3",
    "Publish a mart of the staff",
    expects=DeltaTable,
)
def check_staff_mart(answer: DeltaTable, lake: Lake) -> Right:
    """gold/mart_staff has one row per staff_id and year."""
    table = lake.delta("gold", "mart_staff")
    if table is None or answer.table_uri.rstrip("/") != lake.uri("gold", "mart_staff"):
        raise Wrong('The table should be at lake.uri("gold", "mart_staff").')
    rows = table.to_pyarrow_table().to_pandas()
    _require_columns(rows, ["staff_id", "year", "orders", "pieces", "revenue", "share"])
    with _star_schema(lake) as db:
        expected = db.sql("""
            SELECT staff_id, year, count(DISTINCT order_id) AS orders, count(*) AS lines,
                sum(quantity)::BIGINT AS pieces, sum(net_amount)::DOUBLE AS revenue,
                revenue / sum(revenue) OVER (PARTITION BY store_name, year) AS share
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
    if not _all_close(both["pieces_given"], both["pieces"], 0):
        raise Wrong("The numbers of pieces are not right. Sum quantity over the view sales.")
    if not _all_close(both["revenue_given"], both["revenue"], 0.01):
        raise Wrong("The revenue is not right. Sum net_amount over the view sales.")
    if _all_close(both["share_given"], 100 * both["share"], 0.1):
        raise Wrong("The share should be between 0 and 1, not a percentage.")
    if not _all_close(both["share_given"], both["share"], 0.001):
        sums = rows.groupby("year")["share"].sum().astype(float)
        of_all_stores = " Yours is of all stores together." if (abs(sums - 1) < 0.01).all() else ""
        raise Wrong(f"The share should be of the same store's revenue in the same year.{of_all_stores}")
    if others := [name for name in ("staff_id", "year", "orders", "pieces") if types[name] != "long"]:
        raise Wrong(
            f"{others[0]} has the type {types[others[0]]} in the log. Cast it to BIGINT, and write with"
            ' schema_mode="overwrite": otherwise the table keeps its types.'
        )
    if _never_replaces(table):
        raise Wrong('A second run would add every row again, or fail. Write with mode="overwrite", or merge.')
    return Right(f"{len(rows)} rows that any engine can read; the shares of each store and year add up to 1.")


def _never_replaces(table: DeltaTable) -> bool:
    """Whether all commits only added rows, so that a second run would add every row again, or fail."""
    return not any(
        commit["operation"] in ("DELETE", "MERGE") or commit.get("operationParameters", {}).get("mode") == "Overwrite"
        for commit in table.history()
    )


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
