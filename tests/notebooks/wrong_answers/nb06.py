"""Wrong answers to the exercises of notebook 06."""

_MONTHS = """answer = db.sql('''
    SELECT store_name, date_trunc('month', order_date) AS month, sum(net_amount)::DOUBLE AS revenue
    FROM sales GROUP BY store_name, month {}
''').df()"""

_MOVED = """answer = db.sql('''
    WITH before AS (SELECT city, sum(net_amount)::DOUBLE AS revenue FROM sales GROUP BY city),
    now AS (
        SELECT c.city, sum(net_amount)::DOUBLE AS revenue
        FROM sales JOIN dim_customers AS c USING (customer_id) {where} GROUP BY c.city
    )
    SELECT city, {first}.revenue AS at_sale, {second}.revenue AS today
    FROM before {join} JOIN now USING (city) {keep}
''').df()"""

_STAFF = """write_deltalake(lake.uri("gold", "mart_staff"), db.sql('''
    SELECT staff_id, year::BIGINT AS year, {orders}, sum(net_amount)::DECIMAL(18, 4) AS revenue,
        ({share})::DOUBLE AS share
    FROM {source} GROUP BY store_name, staff_id, year
''').to_arrow_reader(), mode="{mode}", {schema}storage_options=lake.storage_options)
answer = DeltaTable(lake.uri("gold", "mart_staff"), storage_options=lake.storage_options)"""

_RIGHT = {
    "orders": "count(DISTINCT order_id) AS orders",
    "share": "revenue / sum(revenue) OVER (PARTITION BY store_name, year)",
    "source": "sales",
    "mode": "overwrite",
    "schema": 'schema_mode="overwrite", ',
}


def _staff(**other):
    return _STAFF.format(**_RIGHT | other)


WRONG_ANSWERS = [
    ("06.1", _MONTHS.format("QUALIFY rank() OVER (ORDER BY revenue DESC) = 1"), "PARTITION BY store_name"),
    ("06.1", _MONTHS.format("ORDER BY revenue DESC"), "Keep only rank 1"),
    ("06.1", _MONTHS.format("QUALIFY rank() OVER (PARTITION BY store_name ORDER BY revenue) = 1"), "smallest revenue"),
    (
        "06.1",
        _MONTHS.format("QUALIFY rank() OVER (PARTITION BY store_name ORDER BY revenue DESC) = 1").replace(
            "FROM sales", "FROM fact_sales JOIN dim_stores USING (store_sk)"
        ),
        "include rejected orders",
    ),
    (
        "06.2",
        """answer = '''
    SELECT page, count(*) AS visits FROM visits WHERE year(day) = 2025 AND month(day) = 2 GROUP BY page
'''""",
        "Compare day itself",
    ),
    (
        "06.2",
        """answer = '''
    SELECT page, count(*) AS visits FROM visits WHERE day BETWEEN '2025-02-01' AND '2025-03-01' GROUP BY page
'''""",
        "is a day of March among them",
    ),
    (
        "06.2",
        """answer = '''
    SELECT page, count(*) AS visits FROM visits WHERE day::VARCHAR LIKE '2025-02-%' GROUP BY page
'''""",
        "Compare day itself",
    ),
    ("06.2", "answer = db.sql('SELECT page FROM visits')", "it is of type DuckDBPyRelation"),
    (
        "06.3",
        _MOVED.format(where="", first="before", second="now", join="", keep="WHERE at_sale <> today"),
        "Without is_current",
    ),
    (
        "06.3",
        _MOVED.format(where="WHERE c.is_current", first="before", second="now", join="", keep=""),
        "Keep only cities where the two columns differ",
    ),
    (
        "06.3",
        _MOVED.format(
            where="WHERE c.is_current", first="now", second="before", join="", keep="WHERE abs(at_sale - today) > 0.01"
        ),
        "two columns are swapped",
    ),
    ("06.4", _staff(orders="count(*) AS orders"), "counts order lines"),
    ("06.4", _staff(share="revenue / sum(revenue) OVER (PARTITION BY year)"), "Yours is of all stores together"),
    ("06.4", _staff(share="100 * revenue / sum(revenue) OVER (PARTITION BY store_name, year)"), "not a percentage"),
    (
        "06.4",
        _staff(
            source="(SELECT f.*, s.store_name, staff_id, year FROM fact_sales AS f"
            " JOIN dim_stores AS s USING (store_sk)"
            " JOIN dim_staffs USING (staff_sk) JOIN dim_date USING (date_sk))"
        ),
        "rejected don't count",
    ),
    ("06.4", _staff() + "\n" + _staff(mode="append", schema=""), "Did a second run append"),
    (
        "06.4",
        'answer = DeltaTable(lake.uri("gold", "fact_sales"), storage_options=lake.storage_options)',
        "The table should be at",
    ),
]
