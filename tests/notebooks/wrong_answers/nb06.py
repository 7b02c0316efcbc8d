"""Wrong answers to the exercises of notebook 06."""

_VISITS = """answer = '''SELECT {} FROM visits WHERE {} GROUP BY page'''"""

_MOVED = """answer = db.sql('''
    WITH before AS (SELECT store_name, city, sum(net_amount)::DOUBLE AS revenue FROM {source} GROUP BY ALL),
    now AS (
        SELECT store_name, c.city, sum(net_amount)::DOUBLE AS revenue
        FROM {source} JOIN dim_customers AS c USING (customer_id) {where} GROUP BY ALL
    )
    SELECT store_name, city, {at_sale} AS at_sale, {today} AS today
    FROM before {join} JOIN now USING (store_name, city) {keep}
''').df()"""

_RIGHT_MOVED = {
    "source": "sales",
    "where": "WHERE c.is_current",
    "at_sale": "coalesce(before.revenue, 0)",
    "today": "coalesce(now.revenue, 0)",
    "join": "FULL",
    "keep": "WHERE at_sale <> today AND city IS NOT NULL",
}


def _moved(**other):
    return _MOVED.format(**_RIGHT_MOVED | other)


_STAFF = """write_deltalake(lake.uri("gold", "mart_staff"), db.sql('''
    SELECT staff_id, {year}, {orders}, {pieces}, sum(net_amount)::DECIMAL(18, 4) AS revenue,
        ({share})::DOUBLE AS share
    FROM {source} GROUP BY store_name, staff_id, year
''').to_arrow_reader(), mode="{mode}", {schema}storage_options=lake.storage_options)
answer = DeltaTable(lake.uri("gold", "mart_staff"), storage_options=lake.storage_options)"""

_RIGHT = {
    "year": "year::BIGINT AS year",
    "orders": "count(DISTINCT order_id) AS orders",
    "pieces": "sum(quantity)::BIGINT AS pieces",
    "share": "revenue / sum(revenue) OVER (PARTITION BY store_name, year)",
    "source": "sales",
    "mode": "overwrite",
    "schema": 'schema_mode="overwrite", ',
}


def _staff(**other):
    return _STAFF.format(**_RIGHT | other)


WRONG_ANSWERS = [
    (
        "06.1",
        """answer = '''
    SELECT page, count(*) AS visits FROM visits WHERE month(day) = 2 GROUP BY page
'''""",
        "Compare day itself",
    ),
    (
        "06.1",
        """answer = '''
    SELECT page, count(*) AS visits FROM visits WHERE day BETWEEN '2025-02-01' AND '2025-03-01' GROUP BY page
'''""",
        "is a day of March among them",
    ),
    (
        "06.1",
        """answer = '''
    SELECT page, count(*) AS visits FROM visits WHERE day::VARCHAR LIKE '2025-02-%' GROUP BY page
'''""",
        "Compare day itself",
    ),
    ("06.1", "answer = db.sql('SELECT page FROM visits')", "it is of type DuckDBPyRelation"),
    ("06.1", _VISITS.format("page, count(*)", "visited_at >= '2025-02-01' AND visited_at < '2025-03-01'"), "time zone"),
    ("06.1", _VISITS.format("count(*), page", "day >= '2025-02-01' AND day < '2025-03-01'"), "columns are swapped"),
    ("06.1", _VISITS.format("page, count(*)", "day >= '2025-02-01' AND day < '2025-02-28'"), "Is its last day among"),
    ("06.1", _VISITS.format("page, count(*)", "day >= '2024-02-01' AND day < '2024-03-01'"), "of the year 2025"),
    ("06.2", _moved(where=""), "Without is_current"),
    ("06.2", _moved(keep="WHERE city IS NOT NULL"), "Keep only rows where the two columns differ"),
    ("06.2", _moved(at_sale="coalesce(now.revenue, 0)", today="coalesce(before.revenue, 0)"), "columns are swapped"),
    ("06.2", _moved(join="", at_sale="before.revenue", today="now.revenue"), "An INNER JOIN loses it"),
    (
        "06.2",
        _moved(at_sale="before.revenue", keep="WHERE before.revenue IS DISTINCT FROM today AND city IS NOT NULL"),
        "turns NULL into zero",
    ),
    ("06.2", _moved(keep="WHERE at_sale <> today"), "has no city"),
    (
        "06.2",
        _moved(
            source="(SELECT f.net_amount, c.city, customer_id, store_name FROM fact_sales AS f"
            " JOIN dim_customers AS c USING (customer_sk) JOIN dim_stores AS s USING (store_sk))"
        ),
        "rejected orders",
    ),
    ("06.2", _moved() + '.groupby("city", as_index=False)[["at_sale", "today"]].sum()', "store_name is missing"),
    (
        "06.2",
        _moved(keep="WHERE city IS NOT NULL")
        + """
answer["today"] += 1e-9 * (answer["at_sale"] == answer["today"])""",
        "differ only by rounding",
    ),
    ("06.3", _staff(mode="error", schema=""), "A second run would add"),  # first: the table does not exist yet
    ("06.3", _staff(year="year"), "year has the type integer"),
    ("06.3", _staff(pieces="sum(quantity) AS pieces"), "pieces has the type decimal(38,0)"),
    ("06.3", _staff(orders="count(*) AS orders"), "counts order lines"),
    ("06.3", _staff(share="revenue / sum(revenue) OVER (PARTITION BY year)"), "Yours is of all stores together"),
    ("06.3", _staff(share="100 * revenue / sum(revenue) OVER (PARTITION BY store_name, year)"), "not a percentage"),
    (
        "06.3",
        _staff(
            source="(SELECT f.*, s.store_name, staff_id, year FROM fact_sales AS f"
            " JOIN dim_stores AS s USING (store_sk)"
            " JOIN dim_staffs USING (staff_sk) JOIN dim_date USING (date_sk))"
        ),
        "rejected don't count",
    ),
    ("06.3", _staff() + "\n" + _staff(mode="append", schema=""), "Did a second run append"),
    (
        "06.3",
        'answer = DeltaTable(lake.uri("gold", "fact_sales"), storage_options=lake.storage_options)',
        "The table should be at",
    ),
]
