"""Wrong answers to the exercises of notebook 04."""

_MERGE = """reset_stocks()
DeltaTable(stocks, storage_options=lake.storage_options).merge(
    db.sql(f"FROM delta_scan('{{stocks}}', version => 0) WHERE {where}").to_arrow_table(),
    "{on}", source_alias="s", target_alias="t",
).when_matched_update({{"quantity": "s.quantity"}}).execute()
answer = DeltaTable(stocks, storage_options=lake.storage_options)"""
_KEY = "t.store_id = s.store_id AND t.product_id = s.product_id"

_FEED = """feed = pa.table(DeltaTable(prices, storage_options=lake.storage_options).load_cdf({first})).to_pandas()
answer = {{}}
for product in (77, 95):
    rows = feed[feed["product_id"] == product].groupby("_commit_version")["list_price"]
    answer[product] = [int(version) for version in rows.{of_a_commit}]"""

WRONG_ANSWERS = [
    ("04.1", _FEED.format(first=2, of_a_commit="nunique().loc[lambda n: n > 1].index"), "feed begins at version 2"),
    (
        "04.1",
        _FEED.format(first=1, of_a_commit="size().index"),
        "In version 1 product 77 has the same price as in the version before",
    ),
    (
        "04.1",
        """table = DeltaTable(prices, storage_options=lake.storage_options)
versions = [entry["version"] for entry in table.history() if "num_updated_rows" in entry.get("operationMetrics", {})
            or entry.get("operationMetrics", {}).get("num_target_rows_updated")]
answer = {77: versions, 95: versions}""",
        "In version 1 product 77 has the same price as in the version before",
    ),
    (
        "04.1",
        "answer = {77: [3, 4, 6, 7, 8], 95: [3, 4, 6, 7, 8]}",
        "In version 3 product 95 has the same price as in the version before",
    ),
    ("04.1", "answer = {77: [0, 3, 4, 6, 7, 8], 95: [0, 1, 4, 6, 7, 8]}", "for the first time"),
    ("04.1", "answer = {77: [3, 4], 95: [1, 4]}", "A restore changes rows as well"),
    ("04.1", "answer = {77: [3, 4, 6, 7, 8], 95: [1, 4, 6, 7, 8, 99]}", "no version 99"),
    ("04.1", "answer = {95: [1, 4, 6, 7, 8]}", "keys of the dict should be 77 and 95"),
    ("04.1", "answer = {77: None, 95: [1, 4, 6, 7, 8]}", "whole numbers"),
    (
        "04.2",
        """table = DeltaTable(prices, storage_options=lake.storage_options)
table.load_as_version(new_york_time + "Z")
answer = table.count()""",
        "five hours too early",
    ),
    (
        "04.2",
        """table = DeltaTable(prices, storage_options=lake.storage_options)
table.load_as_version(datetime.fromisoformat(new_york_time))
answer = table.count()""",
        "five hours too early",
    ),
    (
        "04.2",
        """table = DeltaTable(prices, storage_options=lake.storage_options)
table.load_as_version(new_york_time + "+05:00")
answer = table.count()""",
        "the wrong sign",
    ),
    (
        "04.2",
        """table = DeltaTable(prices, storage_options=lake.storage_options)
in_utc = datetime.fromisoformat(new_york_time) + timedelta(hours=5)
table.load_as_version(in_utc.isoformat() + "-05:00")
answer = table.count()""",
        "added the five hours twice",
    ),
    (
        "04.2",
        """answer = DeltaTable(prices, storage_options=lake.storage_options).count()""",
        "count of the newest version",
    ),
    (
        "04.3",
        """reset_stocks()
table = DeltaTable(stocks, storage_options=lake.storage_options)
table.restore(0)
answer = table""",
        "A restore undoes everything that came later",
    ),
    ("04.3", _MERGE.format(where="product_id <= 20 AND store_id <> 2", on=_KEY), "overwrote 2 later counts"),
    (
        "04.3",
        _MERGE.format(where="product_id <= 20", on=f"{_KEY} AND t.quantity = 0"),
        "that part of Sam's change was intended",
    ),
    (
        "04.3",
        _MERGE.format(where="product_id <= 20 AND store_id <> 2", on=f"{_KEY} AND t.quantity = 0").replace(
            ".execute()", ".when_not_matched_insert_all().execute()"
        ),
        "a clause that inserts",
    ),
    (
        "04.3",
        _MERGE.format(where="product_id <= 20 AND store_id = 1", on=f"{_KEY} AND t.quantity = 0"),
        "do not yet have their old quantity",
    ),
    (
        "04.3",
        """reset_stocks()
answer = DeltaTable(stocks, storage_options=lake.storage_options)""",
        "no commit came after version 2",
    ),
]
