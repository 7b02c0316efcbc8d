"""Wrong answers to the exercises of notebook 00."""

WRONG_ANSWERS = [
    (
        "00.1",
        """orders = lake.uri("bronze", "orders")
answer = db.sql(f"SELECT count(*) FROM delta_scan('{orders}')").fetchone()[0]""",
        "That is the bronze table",
    ),
    (
        "00.1",
        """orders = lake.uri("silver", "orders")
answer = db.sql(f"SELECT count(*) FROM delta_scan('{orders}')")""",
        "it is of type DuckDBPyRelation",
    ),
    ("00.1", "answer = 1600", "a different number of rows"),
    (
        "00.2",
        """sales, products = lake.uri("gold", "fact_sales"), lake.uri("gold", "dim_products")
answer = db.sql(f'''
    SELECT brand_name
    FROM delta_scan('{sales}') JOIN delta_scan('{products}') USING (product_sk)
    GROUP BY brand_name ORDER BY sum(net_amount)
''').fetchone()[0]""",
        "Sort with DESC",
    ),
    ("00.2", 'answer = "Coyote"', "does not have the highest revenue"),
    ("00.2", 'answer = "Santa Brisa Bikes"', "No brand is called"),
    (
        "00.3",
        """rejected = lake.uri("quarantine", "orders")
answer = db.sql(f"SELECT reason FROM delta_scan('{rejected}')").df()""",
        "The column _source_file is missing",
    ),
    (
        "00.3",
        """rejected = lake.uri("quarantine", "orders")
answer = db.sql(f'''
    SELECT _source_file, _source_line, reason FROM delta_scan('{rejected}') WHERE layer = 'silver'
''').df()""",
        "Is there a WHERE or a LIMIT that should not be there",
    ),
]
