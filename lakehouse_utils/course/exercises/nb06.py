"""The exercises of notebook 06: a window, a predicate that skips files, two answers from history, a mart."""

import pandas as pd
from deltalake import DeltaTable

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise

_TABLES = ("fact_sales", "dim_customers", "dim_products", "dim_stores", "dim_staffs", "dim_date")


@exercise(
    "06.1",
    "Find each store's best month",
    expects=pd.DataFrame,
)
def best_months(answer, lake):
    """A row a store: the month with the largest revenue."""
    _need(answer, ["store_name", "month", "revenue"])
    with _star(lake) as db:
        ranked = """
            SELECT s.store_name, date_trunc('month', order_date)::DATE AS month, sum(net_amount)::DOUBLE AS revenue
            FROM {} AS s GROUP BY store_name, month
            QUALIFY rank() OVER (PARTITION BY s.store_name ORDER BY revenue {}) = 1
        """
        best, worst, with_rejected = (
            {store: (month, revenue) for store, month, revenue in db.sql(ranked.format(*which)).fetchall()}
            for which in (("sales", "DESC"), ("sales", "ASC"), ("all_sales", "DESC"))
        )
    if len(answer) == 1 and len(best) > 1:
        raise Wrong("That is one month of one store: PARTITION BY store_name ranks the months of each store apart.")
    if len(answer) > len(best):
        raise Wrong(f"There are {len(best)} stores and {len(answer)} rows: keep rank 1 only, with QUALIFY.")
    given = {row.store_name: (pd.Timestamp(row.month).date(), float(row.revenue)) for row in answer.itertuples()}
    if missing := set(best) - set(given):
        raise Wrong(f"There is no row for {min(missing)}.")
    if all(given[store][0] == worst[store][0] for store in best):
        raise Wrong("Those are the months with the smallest revenue: ORDER BY revenue DESC.")
    if all(abs(given[store][1] - with_rejected[store][1]) < 1 for store in best) and with_rejected != best:
        raise Wrong("Those sums have rejected orders in them: ask the view sales.")
    for store, (month, revenue) in best.items():
        if given[store][0] != month:
            raise Wrong(f"{given[store][0]:%B %Y} is not the best month of {store}. A month has a year, too.")
        if abs(given[store][1] - revenue) > 1:
            raise Wrong(f"The month of {store} is right, its revenue isn't: sum net_amount over the view sales.")
    return Right(f"{len({month for month, _ in best.values()})} different months for {len(best)} stores.")


@exercise(
    "06.2",
    "Make a query skip files",
    expects=str,
)
def skip_files(answer, lake):
    """SQL that gives the visits of February by page, and opens only the files that hold February."""
    right = "SELECT page, count(*) FROM visits WHERE day BETWEEN '2025-02-01' AND '2025-02-28' GROUP BY page"
    with lake.duckdb() as db:
        db.sql(f"CREATE VIEW visits AS FROM delta_scan('{lake.uri('web', 'visits')}')")
        wanted, given = dict(db.sql(right).fetchall()), db.sql(answer)
        if given is None or len(given.columns) != 2:
            raise Wrong("The query should give two columns: the page, and the number of visits.")
        given = dict(given.fetchall())
        least, opened = (_files(views.reads(db, sql)) for sql in (right, answer))
    if set(given) != set(wanted):
        raise Wrong("The pages are others: the query should give a row for each page.")
    if sum(given.values()) > sum(wanted.values()):
        raise Wrong("That is more than February had. BETWEEN takes both ends in: is a day of March among them?")
    if given != wanted:
        raise Wrong("Those are not all visits of February, or not only those.")
    if opened > least:
        raise Wrong(f"The rows are right, but {opened} files are opened where {least} would do: day must stand bare.")
    return Right(f"The same rows, from {least} files.")


@exercise(
    "06.3",
    "Follow the customers who moved",
    expects=pd.DataFrame,
)
def moved(answer, lake):
    """Cities whose revenue at the sale differs from that of the customers who live there now."""
    _need(answer, ["city", "at_sale", "today"])
    with _star(lake) as db:
        rows = db.sql("""
            SELECT city, sum(at_sale)::DOUBLE, sum(today)::DOUBLE FROM (
                SELECT city, net_amount AS at_sale, 0 AS today FROM sales
                UNION ALL
                SELECT c.city, 0, net_amount
                FROM sales JOIN dim_customers AS c USING (customer_id) WHERE c.is_current
            ) WHERE city IS NOT NULL GROUP BY city
        """).fetchall()
    everywhere = {city: (at_sale, today) for city, at_sale, today in rows}
    wanted = {city: sums for city, sums in everywhere.items() if abs(sums[0] - sums[1]) > 0.005}
    if answer["city"].isna().any():
        raise Wrong("A row has no city: leave out sales without a known customer.")
    if answer[["at_sale", "today"]].isna().any(axis=None):
        raise Wrong("A city has NULL in a column: coalesce(x, 0) makes a zero of it.")
    given = {row.city: (float(row.at_sale), float(row.today)) for row in answer.itertuples()}
    known = [city for city in given if city in everywhere]
    if known and all(_close(given[city], everywhere[city][::-1]) for city in known if city in wanted):
        raise Wrong("The two columns are the other way round.")
    if any(given[city][1] > everywhere[city][1] + 0.01 for city in known):
        raise Wrong("In a city, today is too much: without is_current, a sale counts for each address of its customer.")
    if all(city in given for city in wanted) and len(given) > len(wanted):
        raise Wrong(f"{len(given)} cities are too many: keep those where the two columns differ.")
    if missing := sorted(set(wanted) - set(given)):
        raise Wrong(f"{missing[0]} is missing: a city may be in one of the two sums only, so a FULL JOIN is wanted.")
    if off := [city for city in wanted if not _close(given[city], wanted[city])]:
        raise Wrong(f"The numbers of {off[0]} are others. Revenue is that of the view sales.")
    return Right(f"{len(wanted)} cities won or lost by people who moved.")


@exercise(
    "06.4",
    "Publish a mart of the staff",
    expects=DeltaTable,
)
def staff(answer, lake):
    """gold/mart_staff: a row for each staff_id and year."""
    there = lake.delta("gold", "mart_staff")
    if there is None or answer.table_uri.rstrip("/") != lake.uri("gold", "mart_staff"):
        raise Wrong('The table should be at lake.uri("gold", "mart_staff").')
    rows = there.to_pyarrow_table().to_pandas()
    _need(rows, ["staff_id", "year", "orders", "revenue", "share"])
    with _star(lake) as db:
        right = db.sql("""
            SELECT staff_id, year, count(DISTINCT order_id) AS orders, count(*) AS lines,
                sum(net_amount)::DOUBLE AS revenue, revenue / sum(revenue) OVER (PARTITION BY store_name, year) AS share
            FROM sales GROUP BY store_name, staff_id, year
        """).df()
    if rows.duplicated(["staff_id", "year"]).any():
        raise Wrong('A staff_id has two rows in one year: did a second run append? mode="overwrite" replaces.')
    types = {field.name: str(field.type.type) for field in there.schema().fields}
    both = right.merge(rows, on=["staff_id", "year"], suffixes=("", "_given"), how="outer", indicator=True)
    if (both["_merge"] != "both").any():
        raise Wrong(f"Each staff_id and year with sales should have a row: {len(right)} rows, and not {len(rows)}.")
    if (both["orders_given"].astype(float) == both["lines"]).all():
        raise Wrong("The orders are lines of orders: count(DISTINCT order_id).")
    if (both["orders_given"].astype(float) != both["orders"]).any():
        raise Wrong("The numbers of orders are others: orders that were rejected don't count.")
    if not _all_close(both["revenue_given"], both["revenue"], 0.01):
        raise Wrong("The revenue is another one: sum net_amount over the view sales.")
    if _all_close(both["share_given"], 100 * both["share"], 0.1):
        raise Wrong("The share should be between 0 and 1, not a percentage.")
    if not _all_close(both["share_given"], both["share"], 0.001):
        sums = rows.groupby("year")["share"].sum().astype(float)
        of_all = " Yours is of all stores together." if (abs(sums - 1) < 0.01).all() else ""
        raise Wrong(f"The share should be of the same store's revenue in the same year.{of_all}")
    if large := [name for name in ("staff_id", "year", "orders") if types[name] not in ("long", "integer")]:
        raise Wrong(f"{large[0]} is of the type {types[large[0]]} in the log: cast it to BIGINT.")
    return Right(f"{len(rows)} rows that any engine can read; the shares of each store and year sum to 1.")


def _star(lake):
    """A connection with views over gold, and the view `sales`: without rejected orders."""
    db = lake.duckdb()
    for name in _TABLES:  # pinned: several queries follow, and each would read six logs
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


def _files(read):
    """How many files were opened: "3 of 17" is 3."""
    return int(read["files"].split(" ")[0]) if read["files"] else read["requests"]


def _need(frame, columns):
    if missing := [name for name in columns if name not in frame.columns]:
        raise Wrong(f"The column {missing[0]} is missing; wanted are {', '.join(columns)}.")


def _close(one, other):
    return all(abs(a - b) <= 0.01 for a, b in zip(one, other, strict=True))


def _all_close(one, other, distance):
    return bool(((one.astype(float) - other).abs() <= distance).all())
