"""Wrong answers to the exercises of notebook 00."""

_COUNT = """answer = db.sql(f"SELECT count(*) FROM delta_scan('{%s}') WHERE %s").fetchone()[0]"""

_BRAND = """answer = db.sql(f'''
    SELECT brand_name, sum({what}) AS revenue
    FROM delta_scan('{{sales}}') AS s JOIN delta_scan('{{products}}') USING (product_sk)
    WHERE {rows}
    GROUP BY brand_name ORDER BY revenue {order}
''').fetchone()"""
_BOTH = "category_name = 'Electric Bikes' AND year(order_date) = 2025"
_SINCE = "category_name = 'Electric Bikes' AND order_date >= '2025-01-01'"


def _brand(what: str = "net_amount", rows: str = _BOTH, order: str = "DESC") -> str:
    return _BRAND.format(what=what, rows=rows, order=order)


_REJECTED = """rejected = lake.uri("quarantine", "orders")
answer = db.sql(f'''
    SELECT %s FROM delta_scan('{rejected}') %s
''').df()"""
_COLUMNS = "_source_file, _source_line, reason"

WRONG_ANSWERS = [
    ("00.1", _COUNT % ("silver", "true"), "the number of all orders"),
    ("00.1", _COUNT % ("silver", "store_id = 2"), "all orders of store 2"),
    ("00.1", _COUNT % ("silver", "shipped_date IS NULL"), "the orders of all stores"),
    ("00.1", _COUNT % ("silver", "store_id = 2 AND shipped_date = NULL"), "nothing is equal to NULL"),
    ("00.1", _COUNT % ("silver", "store_id = 2 AND shipped_date IS NOT NULL"), "that were shipped"),
    ("00.1", _COUNT % ("silver", "store_id = 2 OR shipped_date IS NULL"), "Use AND"),
    ("00.1", _COUNT % ("bronze", "store_id = '2' AND shipped_date IS NULL"), "That is the bronze table"),
    ("00.1", _COUNT % ("bronze", "store_id = '2' AND shipped_date = 'NULL'"), "That is the bronze table"),
    ("00.1", _COUNT % ("silver", "store_id = 1 AND shipped_date IS NULL"), "another number of such orders"),
    (
        "00.1",
        (_COUNT % ("silver", "store_id = 2 AND shipped_date IS NULL")).removesuffix(".fetchone()[0]"),
        "it is of type DuckDBPyRelation",
    ),
    ("00.2", _brand("s.list_price", _SINCE), "the colleague's result"),
    ("00.2", _brand(rows=_SINCE), "the orders of 2026 are included"),
    ("00.2", _brand("s.list_price"), "the price of one piece"),
    ("00.2", _brand("quantity * s.list_price"), "without the discount"),
    ("00.2", _brand("1"), "the number of order lines"),
    ("00.2", _brand("quantity"), "the number of bikes"),
    ("00.2", _brand(rows="year(order_date) = 2025"), "That includes all categories"),
    ("00.2", _brand(rows="category_name = 'Electric Bikes'"), "That includes all years"),
    ("00.2", _brand(order="ASC"), "Sort with DESC"),
    ("00.2", _brand() + "[0]", "it is of type str"),
    ("00.2", _brand() + "[::-1]", "the brand's name, and its revenue"),
    ("00.2", 'answer = ("Kestrel", 186424)', "is not the result"),
    ("00.3", _REJECTED % ("reason", ""), "The column _source_file is missing"),
    ("00.3", _REJECTED % (_COLUMNS, "WHERE layer = 'silver'"), "2 of the 7 rejected rows are missing"),
    ("00.3", _REJECTED % (_COLUMNS, "LIMIT 5"), "2 of the 7 rejected rows are missing"),
    (
        "00.3",
        """answer = db.sql(f"SELECT _source_file, _source_line FROM delta_scan('{bronze}')").df()""",
        "which have no reason",
    ),
    (
        "00.3",
        """answer = db.sql(f"SELECT *, 'rejected' AS reason FROM delta_scan('{bronze}')").df()""",
        "of your rows were not rejected",
    ),
    ("00.3", _REJECTED % ("_source_file, _source_line, raw AS reason", ""), "is not the one in quarantine"),
    ("00.3", _REJECTED % (_COLUMNS, "JOIN range(2) ON true"), "7 rows are in the answer twice"),
]
