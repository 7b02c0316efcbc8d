"""Wrong answers to the exercises of notebook 00."""

_CATEGORIES = """dates = lake.uri("gold", "dim_date")
answer = db.sql(f'''
    SELECT category_name, MEASURE
    FROM delta_scan('{sales}') AS s
    JOIN delta_scan('{products}') USING (product_sk)
    JOIN delta_scan('{dates}') USING (date_sk)
    WHERE CONDITION
    GROUP BY category_name ORDER BY 2 DESC LIMIT 1
''').fetchone()"""
_REVENUE = _CATEGORIES.replace("MEASURE", "round(sum(net_amount))")
_IN_2025 = _CATEGORIES.replace("CONDITION", "year = 2025")

_REJECTED = """rejected = lake.uri("quarantine", "orders")
answer = db.sql(f'''
    SELECT COLUMNS
    FROM delta_scan('{rejected}')
''').df()"""

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
    ("00.1", 'answer = rows["quarantine"]', "That is the quarantine table"),
    ("00.1", 'answer = rows["silver"] + rows["quarantine"]', "the sum of several tables"),
    ("00.1", 'answer = rows["bronze"] - rows["quarantine"]', "still has orders that were delivered twice"),
    ("00.1", "answer = 1600", "a different number of rows"),
    ("00.2", _REVENUE.replace("CONDITION", "true"), "the revenue of all years"),
    ("00.2", _IN_2025.replace("MEASURE", "count(*)"), "sells the most pieces"),
    (
        "00.2",
        _IN_2025.replace("MEASURE", "round(sum(quantity * s.list_price))"),
        "before the discount",
    ),
    ("00.2", _IN_2025.replace("MEASURE", "round(sum(s.list_price))"), "The category is right, but not its amount"),
    (
        "00.2",
        _REVENUE.replace("CONDITION", "year = 2025").replace("DESC", "ASC"),
        "Sort with DESC",
    ),
    ("00.2", _REVENUE.replace("CONDITION", "year = 2024"), "does not have the highest revenue in 2025"),
    ("00.2", _REVENUE.replace("CONDITION", "year = 2025") + "[0]", "it is of type str"),
    ("00.2", 'answer = ("Santa Brisa Bikes", 1_000_000)', "No category is called"),
    ("00.3", _REJECTED.replace("COLUMNS", "reason"), "The column _source_file is missing"),
    (
        "00.3",
        """answer = db.sql(f"SELECT _source_file, _source_line FROM delta_scan('{bronze}')").df()""",
        "Only the quarantine table has it",
    ),
    (
        "00.3",
        _REJECTED.replace("COLUMNS", "_source_file, _source_line, reason").replace(
            "')\n", "') WHERE layer = 'silver'\n"
        ),
        "Is there a WHERE or a LIMIT that should not be there",
    ),
    (
        "00.3",
        """answer = db.sql(f"SELECT _source_file, _source_line, 'late' AS reason FROM delta_scan('{bronze}')").df()""",
        "Did you query another table",
    ),
    (
        "00.3",
        _REJECTED.replace("COLUMNS", "_source_file, _source_line, left(reason, 5) AS reason"),
        "but not all reasons",
    ),
]
