"""Wrong answers to the exercises of notebook 04."""

_FOLLOW = """def answer(copy, feed):
    for row in %s:
        if row["_change_type"] == "delete":
            copy.pop(row["product_id"], None)
        elif row["_change_type"] != "update_preimage":
            copy[row["product_id"]] = row["list_price"]
"""

_MERGE = """stocks = stocks_with_mistake()
answer = DeltaTable(stocks, storage_options=options)
old = db.sql(f"FROM delta_scan('{{stocks}}', version => 0) WHERE {where}").to_arrow_table()
merge = answer.merge(old, "{on}", "s", "t")
merge.when_matched_update({{"quantity": "s.quantity"}}).execute()"""
_KEY = "t.store_id = s.store_id AND t.product_id = s.product_id"
_STILL_ZERO = f"{_KEY} AND t.quantity = 0"

WRONG_ANSWERS = [
    ("04.1", "answer = (7, 7, 9, 11, 0)", "number of the newest version is not 7. Versions begin with 0"),
    ("04.1", "answer = (4, 7, 9, 11, 0)", "the version numbers go on, and never back"),
    ("04.1", "answer = (6, 8, 9, 11, 0)", "The last call deletes one row"),
    ("04.1", "answer = (6, 10, 9, 11, 0)", "restore(2) succeeds"),
    ("04.1", "answer = (6, 5, 9, 11, 0)", "What does version 2 contain?"),
    ("04.1", "answer = (6, 7, 7, 11, 0)", "stays at the version at which it was opened"),
    ("04.1", "answer = (6, 7, 9, 9, 0)", "Which rows does the next call add?"),
    ("04.1", "answer = (6, 7, 9, 13, 0)", "it replaces the rows, and adds none"),
    ("04.1", "answer = [6, 7, 9, 11, 6]", "delta-rs opens the first version"),
    ("04.1", "answer = (6, 7, 9, 11, -1)", "delta-rs opens the first version"),
    ("04.1", "answer = (60, 7, 9, 11, 0)", "Go through the calls one by one"),
    ("04.1", "answer = (6, 7, 9, 11)", "five whole numbers"),
    ("04.1", 'answer = (6, 7, 9, 11, "an error")', "five whole numbers"),
    ("04.1", "answer = 6", "it is of type int"),
    ("04.2", "answer = follow", "update_preimage is the row *before* the change"),
    ("04.2", _FOLLOW % "feed", "Apply the versions in order"),
    ("04.2", _FOLLOW % 'sorted(feed, key=lambda row: str(row["_commit_version"]))', "in order, as numbers"),
    ("04.2", _FOLLOW % 'sorted(feed, key=lambda row: -row["_commit_version"])', "Apply the versions in order"),
    (
        "04.2",
        _FOLLOW % 'sorted(feed, key=lambda row: row["_commit_version"])',
        "Within a version, apply the deletes first",
    ),
    (
        "04.2",
        _FOLLOW % 'sorted(feed, key=lambda row: (row["_change_type"] != "delete", row["_commit_version"]))',
        "Deletes come first only within a version",
    ),
    (
        "04.2",
        _FOLLOW
        % 'sorted((row for row in feed if row["_change_type"] != "delete"), key=lambda r: r["_commit_version"])',
        "must not be in the dict any more",
    ),
    (
        "04.2",
        _FOLLOW
        % 'sorted((row for row in feed if "update" in row["_change_type"]), key=lambda r: r["_commit_version"])',
        "A product was inserted, and follow must add it",
    ),
    (
        "04.2",
        """def answer(copy, feed):
    newest = {}
    for row in sorted(feed, key=lambda row: (row["_commit_version"], row["_change_type"] != "delete")):
        if row["_change_type"] == "delete":
            newest.pop(row["product_id"], None)
        elif row["_change_type"] != "update_preimage":
            newest[row["product_id"]] = row["list_price"]
    return newest""",
        "A product that the feed does not mention is missing",
    ),
    (
        "04.2",
        """def answer(copy, feed):
    deleted = {(row["_commit_version"], row["product_id"]) for row in feed if row["_change_type"] == "delete"}
    inserted = {(row["_commit_version"], row["product_id"]) for row in feed if row["_change_type"] == "insert"}
    for row in sorted(feed, key=lambda row: row["_commit_version"]):
        if (row["_commit_version"], row["product_id"]) in deleted & inserted:
            continue  # a restore
        if row["_change_type"] == "delete":
            del copy[row["product_id"]]
        elif row["_change_type"] != "update_preimage":
            copy[row["product_id"]] = row["list_price"]""",
        "A restore brought back another price",
    ),
    ("04.2", "def answer(feed):\n    return {}", "follow raised TypeError"),
    ("04.2", "answer = {}", "it is of type dict"),
    (
        "04.3",
        """stocks = stocks_with_mistake()
answer = DeltaTable(stocks, storage_options=options)
answer.restore(0)""",
        "A restore undoes everything that came later",
    ),
    ("04.3", _MERGE.format(where="product_id <= 20 AND store_id <> 2", on=_KEY), "overwrote 2 later counts"),
    ("04.3", _MERGE.format(where="store_id <> 2", on=_KEY), "overwrote 3 later counts"),
    (
        "04.3",
        _MERGE.format(where="product_id <= 20", on=_STILL_ZERO),
        "that part of Sam's change was intended",
    ),
    (
        "04.3",
        _MERGE.format(where="product_id <= 20 AND store_id <> 2", on=_STILL_ZERO).replace(
            ".execute()", ".when_not_matched_insert_all().execute()"
        ),
        "a clause that inserts",
    ),
    (
        "04.3",
        """stocks = stocks_with_mistake()
answer = DeltaTable(stocks, storage_options=options)
answer.delete("quantity = 0")""",
        "different rows than before",
    ),
    (
        "04.3",
        _MERGE.format(where="product_id <= 20 AND store_id = 1", on=_STILL_ZERO),
        "do not yet have their old quantity",
    ),
    (
        "04.3",
        """stocks = stocks_with_mistake()
answer = DeltaTable(stocks, storage_options=options)""",
        "no commit came after version 2",
    ),
    ("04.3", "answer = DeltaTable(prices, storage_options=options)", "That is a different table"),
    ("04.3", "answer = stocks_with_mistake()", "it is of type str"),
]
