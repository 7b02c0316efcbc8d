"""Wrong answers to the exercises of notebook 03."""

_LINES = 'my_lines, lines = new_table("my_lines", batch("order_items", 1)), batch("order_items", 4)\n'
_LINE = '"target.order_id = source.order_id AND target.item_id = source.item_id", "source", "target"'
_COUNT = """my_stocks = new_table("my_stocks", batch("stocks", 1, "(store_id, product_id) <> (2, 8)"))
counted = batch("stocks", 1, "store_id = 2 AND quantity > 3").to_pandas()
counted["quantity"] -= 1
"""
_DIFFERS = "((source.name IS DISTINCT FROM target.name) OR (source.price IS DISTINCT FROM target.price))"
_OFFERS = """my_products, offers = new_table("my_products", accessories(PRODUCTS)), accessories(OFFERS)
rows = db.sql("FROM offers WHERE {where} QUALIFY row_number() OVER (PARTITION BY product_id ORDER BY {order}) = 1")
merge = my_products.merge(rows.to_arrow_table(), "target.product_id = source.product_id", "source", "target")
answer = merge{clauses}.execute()"""
_UPDATE = '.when_matched_update_all(predicate=f"{{NEWER}} AND {differs}")'
_DELETE = '.when_matched_delete(predicate=f"{NEWER} AND source.price = 0")'
_INSERT = ".when_not_matched_insert_all()"
_GIVEN = """my_products, offers = new_table("my_products", accessories(PRODUCTS)), accessories(OFFERS)
differs = "(source.name <> target.name OR source.price <> target.price)"
merge = (
    my_products.merge(newest(offers, "product_id"), "target.product_id = source.product_id", "source", "target")
    .when_matched_update_all(predicate=f"{NEWER} AND {differs}")
    .when_matched_delete(predicate=f"{NEWER} AND source.price = 0")
    .when_not_matched_insert_all()
)
"""


def _offers(differs=_DIFFERS, where="product_id IS NOT NULL", order="updated_at DESC", clauses=None, then=""):
    """Code that is right, except for what is given."""
    update = _UPDATE.format(differs=differs)
    return _OFFERS.format(where=where, order=order, clauses=clauses or _DELETE + update + _INSERT) + then


WRONG_ANSWERS = [
    (
        "03.1",
        _LINES
        + """answer = (
    my_lines.merge(lines, "target.order_id = source.order_id", "source", "target")
    .when_matched_update_all(predicate=NEWER_OR_NULL).when_not_matched_insert_all().execute()
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
    .when_matched_update_all(predicate=NEWER)
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
        + f"""answer = (
    my_lines.merge(lines, {_LINE})
    .when_matched_update({{"quantity": "source.quantity"}})
    .when_not_matched_insert_all().execute()
)""",
        "have no updated_at",
    ),
    (
        "03.1",
        _LINES + 'answer = my_lines.merge(lines, "false", "source", "target").when_not_matched_insert_all().execute()',
        "is in the table twice",
    ),
    (
        "03.1",
        _LINES + f"answer = my_lines.merge(lines, {_LINE}).when_not_matched_insert_all()",
        "What does `.execute()` return?",
    ),
    (
        "03.1",
        _LINES
        + f"""my_lines.merge(lines, {_LINE}).when_matched_update_all().execute()
answer = my_lines.merge(lines, {_LINE}).when_not_matched_insert_all().execute()""",
        "made by MERGE and MERGE. Use one MERGE",
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
    my_stocks.merge(counted, "target.product_id = source.product_id", "source", "target")
    .when_matched_update_all().when_not_matched_insert_all()
    .when_not_matched_by_source_delete("target.store_id = 2").execute()
)""",
        "The predicate needs both columns",
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
        + """others = batch("stocks", 1, "store_id <> 2").to_pandas()
my_stocks = new_table("my_stocks", pd.concat([others, counted]))
answer = my_stocks.merge(counted, SAME_SHELF, "source", "target").when_not_matched_insert_all().execute()""",
        "made by a WRITE. Use one MERGE",
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
    ("03.3", _GIVEN + "answer = merge", "What does `.execute()` return?"),
    ("03.3", _GIVEN + "answer = merge.execute()", "There is a row without a product_id"),
    ("03.3", _offers(where="true"), "There is a row without a product_id"),
    ("03.3", _offers(where="price IS NOT NULL AND product_id IS NOT NULL"), "Product 6 is new, and is missing"),
    ("03.3", _offers(order="updated_at"), "the price of its older offer"),
    (
        "03.3",
        _offers(differs="((source.name <> target.name) OR (source.price <> target.price))"),
        "The price of product 3 was NULL",
    ),
    ("03.3", _offers(differs="source.name IS DISTINCT FROM target.name"), "Product 1 has not the price of its newest"),
    ("03.3", _offers(differs="source.price IS DISTINCT FROM target.price"), "has a new name and the old price"),
    ("03.3", _offers(differs=_DIFFERS.replace(" OR ", " AND ")), "No product was updated"),
    ("03.3", _offers(differs="true"), "its name and its price are the same"),
    (
        "03.3",
        _offers(clauses=_UPDATE.format(differs=_DIFFERS) + _DELETE + _INSERT),
        "Which of the two clauses is tried first?",
    ),
    (
        "03.3",
        _offers(clauses=_UPDATE.format(differs=f"source.price <> 0 AND {_DIFFERS}") + _DELETE + _INSERT),
        "The price of product 9 is unknown now",
    ),
    (
        "03.3",
        _offers(clauses=_UPDATE.format(differs=f"NOT (coalesce(source.price, 1) = 0) AND {_DIFFERS}") + _INSERT),
        "Which clause deletes it?",
    ),
    (
        "03.3",
        _offers(
            clauses='.when_matched_delete(predicate="source.price = 0")' + _UPDATE.format(differs=_DIFFERS) + _INSERT
        ),
        "Product 2 is gone",
    ),
    (
        "03.3",
        _offers(clauses=_DELETE + f'.when_matched_update_all(predicate="{_DIFFERS}")' + _INSERT),
        "is older than the row, and must not win",
    ),
    (
        "03.3",
        _offers(clauses=".when_matched_delete(predicate=NEWER)" + _UPDATE.format(differs=_DIFFERS) + _INSERT),
        "Product 1 is gone, but its offer does not have the price 0",
    ),
    ("03.3", _offers(clauses=_DELETE + _UPDATE.format(differs=_DIFFERS)), "Which clause inserts?"),
    (
        "03.3",
        _offers(clauses=_DELETE + _UPDATE.format(differs=_DIFFERS) + _INSERT + ".when_not_matched_by_source_delete()"),
        "Product 7 has no offer, and is gone",
    ),
    (
        "03.3",
        _offers(where="product_id IS NOT NULL OR true", then='\nmy_products.delete("product_id IS NULL")'),
        "made by MERGE and DELETE. Use one MERGE",
    ),
    (
        "03.3",
        _offers(
            clauses=_UPDATE.format(differs=_DIFFERS) + _INSERT,
            then='\nmy_products.delete("price = 0")',
        ),
        "made by MERGE and DELETE. Use one MERGE",
    ),
    ("03.3", _offers(then="\n" + "my_products = new_table('my_products', my_products.to_pyarrow_table())"), "a WRITE"),
    (
        "03.3",
        _offers(
            then="""
right_version = my_products.version()
new_table("my_products", accessories(PRODUCTS)).restore(right_version)"""
        ),
        "made by RESTORE. Use one MERGE",
    ),
]
