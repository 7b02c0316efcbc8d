"""Wrong answers to the exercises of notebook 03."""

_LINES = 'my_lines, lines = new_table("my_lines", batch("order_items", 1)), batch("order_items", 4)\n'
_LINE = '"target.order_id = source.order_id AND target.item_id = source.item_id", "source", "target"'
_COUNT = """my_stocks = new_table("my_stocks", batch("stocks", 1, "(store_id, product_id) <> (2, 8)"))
counted = batch("stocks", 1, "store_id = 2 AND quantity > 3").to_pandas()
counted["quantity"] -= 1
"""
_ADDRESSES = '''my_addresses = new_table("my_addresses", db.sql("""
    SELECT customer_id, street, city, zip_code,
           TIMESTAMPTZ '2026-01-01 00:00:00+00' AS valid_from,
           NULL::TIMESTAMPTZ AS valid_to, true AS is_current
    FROM customers WHERE _batch = '2026-01-01'
""").to_arrow_table())
my_addresses.update({"street": "NULL", "city": "'Harlow Falls'", "zip_code": "'14303'"},
                    predicate="customer_id = 464")
new = batch("customers", 4)
close = {"valid_to": "source.updated_at", "is_current": "false"}
row = {name: f"source.{name}" for name in ("customer_id", "street", "city", "zip_code")}
row |= {"valid_from": "source.updated_at", "is_current": "true"}
keyed = new.append_column("merge_key", new["customer_id"])
'''

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
        "03.3",
        _ADDRESSES
        + """answer = [
    my_addresses.merge(keyed, "target.customer_id = source.merge_key", "source", "target")
    .when_matched_update({name: f"source.{name}" for name in ("street", "city", "zip_code")})
    .when_not_matched_insert(row).execute() for _ in range(2)
]""",
        "That is an upsert",
    ),
    (
        "03.3",
        _ADDRESSES
        + """answer = [
    my_addresses.merge(keyed, "target.customer_id = source.merge_key AND target.is_current", "source", "target")
    .when_matched_update(close).when_not_matched_insert(row).execute()
]
answer *= 2""",
        "there is no new one",
    ),
    (
        "03.3",
        _ADDRESSES
        + """answer = [
    my_addresses.merge(keyed, "target.customer_id = source.merge_key AND target.is_current", "source", "target")
    .when_matched_update(close).when_not_matched_insert(row).execute() for _ in range(2)
]""",
        "must not close a row that has the same time",
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
        "03.3",
        _ADDRESSES
        + """answer = [
    my_addresses.merge(keyed, "target.customer_id = source.merge_key AND target.is_current", "source", "target")
    .when_matched_update(close, predicate="source.updated_at > target.valid_from")
    .when_not_matched_insert(row).execute() for _ in range(2)
]""",
        "with NULL as the key, to insert",
    ),
    (
        "03.3",
        _ADDRESSES
        + """def move():
    old = my_addresses.to_pyarrow_table()
    staged = db.sql("SELECT * FROM keyed UNION ALL BY NAME SELECT keyed.* EXCLUDE merge_key, NULL AS merge_key"
                    " FROM keyed JOIN old USING (customer_id) WHERE is_current AND keyed.updated_at > valid_from")
    return my_addresses.merge(
        staged.to_arrow_table(), "target.customer_id = source.merge_key AND target.is_current", "source", "target"
    ).when_matched_update(close).when_not_matched_insert(row).execute()
answer = [move(), move()]""",
        "has no current row: the second run closed the new address",
    ),
    (
        "03.3",
        _ADDRESSES
        + """def move():
    staged = db.sql("FROM keyed UNION ALL BY NAME SELECT * EXCLUDE merge_key, NULL AS merge_key FROM keyed"
                    " WHERE customer_id <= 1500").to_arrow_table()
    return my_addresses.merge(
        staged, "target.customer_id = source.merge_key AND target.is_current", "source", "target"
    ).when_matched_update(close, predicate="source.updated_at > target.valid_from").when_not_matched_insert(
        row).execute()
answer = [move(), move()]""",
        "current rows and must have one",
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
        _ADDRESSES
        + """def move():
    old = my_addresses.to_pyarrow_table()
    moved = db.sql('''SELECT keyed.* FROM keyed JOIN old USING (customer_id)
        WHERE is_current AND keyed.updated_at > valid_from AND (keyed.street <> old.street
            OR keyed.city <> old.city OR keyed.zip_code <> old.zip_code)''').to_arrow_table()
    staged = db.sql("FROM moved UNION ALL BY NAME SELECT * EXCLUDE merge_key, NULL AS merge_key FROM moved"
                    " UNION ALL BY NAME SELECT keyed.* FROM keyed ANTI JOIN old USING (customer_id)")
    return my_addresses.merge(
        staged.to_arrow_table(), "target.customer_id = source.merge_key AND target.is_current", "source", "target"
    ).when_matched_update(close).when_not_matched_insert(row).execute()
answer = [move(), move()]""",
        "Compare with IS DISTINCT FROM",
    ),
    ("03.3", "answer = [metrics]", "must be a list of the metrics of two runs"),
]
