"""Wrong answers to the exercises of notebook 99."""

WRONG_ANSWERS = [
    (
        "99.1",
        """bronze = lake.uri("bronze", "orders")
answer = db.sql(f"SELECT count(*) FROM delta_scan('{bronze}')").fetchone()[0]""",
        "That is the bronze table",
    ),
    ("99.1", "answer = 7", "a different number of rows"),
    ("99.1", 'answer = "1630"', "it is of type str"),
    ("99.1", """answer = db.sql(f"SELECT count(*) FROM delta_scan('{silver}')")""", "it is of type DuckDBPyRelation"),
    ("99.1", "answer = len(first_orders)", "a different number of rows"),
    (
        "99.2",
        'answer = sum(not field.name.startswith("_") for field in orders.schema().fields)',
        "leaves out the columns",
    ),
    ("99.2", "answer = 7", "a different number of columns"),
    ("99.2", "answer = orders.count()", "a different number of columns"),
    ("99.2", "answer = orders.schema().fields", "it is of type list"),
    ("99.2", 'answer = "9"', "it is of type str"),
    ("99.3", "answer = [3, 2, 1]", "not sorted"),
    ("99.3", "answer = [1, 1, 2, 3]", "more than once"),
    ("99.3", "answer = [1, 2]", "Stores are missing"),
    ("99.3", "answer = {1, 2, 3}", "it is of type set"),
    ("99.3", "answer = [1, 2, 3, 4]", "or do not exist"),
]
