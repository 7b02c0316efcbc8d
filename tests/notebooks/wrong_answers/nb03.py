"""Wrong answers to the exercises of notebook 03."""

_LINES = 'my_lines, lines = new_table("my_lines", batch("order_items", 1)), batch("order_items", 4)\n'
_LINE = '"target.order_id = source.order_id AND target.item_id = source.item_id", "source", "target"'
_COUNT = """my_stocks = new_table("my_stocks", batch("stocks", 1, "(store_id, product_id) <> (2, 8)"))
counted = batch("stocks", 1, "store_id = 2 AND quantity > 3").to_pandas()
counted["quantity"] -= 1
"""
_OFFERS = '''my_products, offers = accessories()
rows = db.sql("""FROM offers WHERE FILTER
    QUALIFY row_number() OVER (PARTITION BY product_id ORDER BY updated_at ORDER_OF_ROWS) = 1""").to_arrow_table()
answer = (
    my_products.merge(rows, "target.product_id = source.product_id", "source", "target")
    .when_matched_update_all(predicate="PREDICATE")
    .when_not_matched_insert_all()
    .execute()
)'''
_NEWEST = _OFFERS.replace("FILTER", "product_id IS NOT NULL").replace("ORDER_OF_ROWS", "DESC")
_NEWER = "source.updated_at > target.updated_at"
_NAME, _PRICE = (f"(target.{column} IS DISTINCT FROM source.{column})" for column in ("name", "price"))
_PREDICATE = f"{_NEWER} AND ({_NAME} OR {_PRICE})"

WRONG_ANSWERS = [
    (
        "03.1",
        _LINES
        + """answer = (
    my_lines.merge(lines, "target.order_id = source.order_id", "source", "target")
    .when_matched_update_all(predicate=NEWER).when_not_matched_insert_all().execute()
)""",
        "The predicate needs the whole key",
    ),
    (
        "03.1",
        _LINES + f"answer = my_lines.merge(lines, {_LINE}).when_not_matched_insert_all().execute()",
        "Is there a clause for rows that match",
    ),
    (
        "03.1",
        _LINES
        + f"""answer = (
    my_lines.merge(lines, {_LINE})
    .when_matched_update_all(predicate="source.updated_at > target.updated_at")
    .when_not_matched_insert_all().execute()
)""",
        "is its predicate true if target.updated_at is NULL",
    ),
    (
        "03.1",
        _LINES + f"answer = my_lines.merge(lines, {_LINE}).when_matched_update_all().execute()",
        "Is there a clause for rows that do not match",
    ),
    (
        "03.1",
        _LINES
        + """my_lines.merge(lines, "false", "source", "target").when_not_matched_insert_all().execute()
answer = metrics""",
        "is in the table twice",
    ),
    (
        "03.1",
        _LINES + f"answer = my_lines.merge(lines, {_LINE}).when_not_matched_insert_all()",
        "What does `.execute()` return?",
    ),
    (
        "03.2",
        _COUNT
        + """answer = (
    my_stocks.merge(counted, SAME_SHELF, "source", "target")
    .when_matched_update_all().when_not_matched_insert_all().when_not_matched_by_source_delete().execute()
)""",
        "rows of stores 1 and 3 were deleted",
    ),
    (
        "03.2",
        _COUNT
        + """answer = (
    my_stocks.merge(counted, SAME_SHELF + " AND target.store_id = 2", "source", "target")
    .when_matched_update_all().when_not_matched_insert_all().when_not_matched_by_source_delete().execute()
)""",
        "In the predicate of the merge itself it does not help",
    ),
    (
        "03.2",
        _COUNT
        + """answer = (
    my_stocks.merge(counted, SAME_SHELF, "source", "target")
    .when_matched_update_all().when_not_matched_insert_all().execute()
)""",
        "Which clause deletes?",
    ),
    (
        "03.2",
        _COUNT
        + """answer = (
    my_stocks.merge(counted, SAME_SHELF, "source", "target")
    .when_not_matched_insert_all().when_not_matched_by_source_delete(predicate="target.store_id = 2").execute()
)""",
        "Which clause updates",
    ),
    (
        "03.2",
        _COUNT
        + """answer = (
    my_stocks.merge(counted, SAME_SHELF, "source", "target")
    .when_matched_update_all().when_not_matched_by_source_delete(predicate="target.store_id = 2").execute()
)""",
        "Which clause inserts?",
    ),
    (
        "03.2",
        _COUNT
        + """answer = (
    my_stocks.merge(counted, SAME_SHELF, "source", "target").when_matched_update_all().when_not_matched_insert_all()
    .when_not_matched_by_source_delete(predicate="source.store_id = 2").execute()
)""",
        "can only use target",
    ),
    (
        "03.2",
        _COUNT
        + """my_stocks.delete("store_id = 2")
answer = my_stocks.merge(counted, SAME_SHELF, "source", "target").when_not_matched_insert_all().execute()""",
        "made by DELETE and MERGE. Use one MERGE",
    ),
    (
        "03.2",
        _COUNT
        + """answer = (
    my_stocks.merge(counted, SAME_SHELF, "source", "target")
    .when_matched_update_all().when_not_matched_insert_all().execute()
)
kept = ", ".join(map(str, counted["product_id"]))
my_stocks.delete(f"store_id = 2 AND product_id NOT IN ({kept})")""",
        "made by MERGE and DELETE. Use one MERGE",
    ),
    (
        "03.3",
        _OFFERS.replace("FILTER", "true").replace("ORDER_OF_ROWS", "DESC").replace("PREDICATE", _PREDICATE),
        "There is a row without a product_id",
    ),
    ("03.3", _NEWEST.replace("DESC", "ASC").replace("PREDICATE", _PREDICATE), "the price of its older offer"),
    ("03.3", _NEWEST.replace("PREDICATE", f"{_NAME} OR {_PRICE}"), "is older than the row, and must not win"),
    ("03.3", _NEWEST.replace("PREDICATE", _NEWER), "its name and its price are the same"),
    ("03.3", _NEWEST.replace("PREDICATE", f"{_NEWER} AND {_PRICE}"), "has a new name and the old price"),
    ("03.3", _NEWEST.replace("PREDICATE", f"{_NEWER} AND {_NAME}"), "The price of product 3 was NULL"),
    (
        "03.3",
        _NEWEST.replace("PREDICATE", f"{_NEWER} AND ((target.name <> source.name) OR (target.price <> source.price))"),
        "The price of product 3 was NULL",
    ),
    ("03.3", _NEWEST.replace("PREDICATE", f"{_NEWER} AND ({_NAME} AND {_PRICE})"), "No product was updated"),
    (
        "03.3",
        _NEWEST.replace("PREDICATE", _PREDICATE).replace("    .when_not_matched_insert_all()\n", ""),
        "Which clause inserts",
    ),
    (
        "03.3",
        _NEWEST.replace("PREDICATE", _PREDICATE).replace(
            "insert_all()\n", "insert_all()\n    .when_not_matched_by_source_delete()\n"
        ),
        "Product 7 has no offer, and is gone",
    ),
    (
        "03.3",
        _NEWEST.replace("PREDICATE", _PREDICATE) + "\nmy_products.update({'name': 'name'}, predicate='product_id = 7')",
        "Use one merge for all rules",
    ),
]
