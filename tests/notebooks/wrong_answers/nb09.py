"""Wrong answers to the exercises of notebook 09."""

_RIGHT = """def sell(open_table, pause, product_id, pieces):
    for attempt in range(5):
        table = open_table()
        stock = table.to_pandas().set_index("product_id")["quantity"]
        if stock[product_id] < pieces:
            return False
        try:
            left = stock[product_id] - pieces
            table.update({"quantity": str(left)}, predicate=f"product_id = {product_id}")
            return True
        except CommitFailedError:
            if attempt == 4:
                raise
            pause(random.uniform(0, 0.05 * 2**attempt))


answer = sell"""


def _with(*changes: tuple[str, str]) -> str:
    """The right answer, with these parts replaced."""
    code = _RIGHT
    for old, new in changes:
        assert old in code, old
        code = code.replace(old, new)
    return code


_READ_ONCE = _with(
    (
        "    for attempt",
        '    stock = open_table().to_pandas().set_index("product_id")["quantity"]\n    for attempt',
    ),
    ('        stock = table.to_pandas().set_index("product_id")["quantity"]\n', ""),
)
_RAISE_AT_END = "            if attempt == 4:\n                raise\n"
_OPEN_IN_TRY = """        try:
            table = open_table()
            stock = table.to_pandas().set_index("product_id")["quantity"]
            if stock[product_id] < pieces:
                return False
"""
_FILES = """import json
from urllib.parse import unquote
folder = lake.key("shop", "deliveries", "")
stored = {entry["Key"].removeprefix(folder) for entry in lake.objects(folder)}
data_files = {name for name in stored if not name.startswith("_delta_log/")}
named = set()
for name in stored - data_files:
    commit = lake.s3.get_object(Bucket=lake.bucket, Key=folder + name)["Body"].read().decode()
    for action in map(json.loads, commit.splitlines()):
        named |= {unquote(action[kind]["path"]) for kind in ("add", "remove") if kind in action}
"""

WRONG_ANSWERS = [
    ("09.1", _READ_ONCE, "a sale is lost"),
    (
        "09.1",
        _with(("        table = open_table()\n", ""), ("    for attempt", "    table = open_table()\n    for attempt")),
        "Open the table in each attempt",
    ),
    (
        "09.1",
        _with(("range(5)", "range(2)"), ("attempt == 4", "attempt == 1")),
        "raised the CommitFailedError after 2 attempts",
    ),
    ("09.1", _with(("except CommitFailedError", "except Exception")), "Catch only CommitFailedError"),
    ("09.1", _with(("range(5)", "range(9)"), ("attempt == 4", "attempt == 8")), "attempts instead of five"),
    ("09.1", _with(("            if attempt == 4:\n                raise\n", "")), "it returned instead"),
    ("09.1", _with(("random.uniform(0, 0.05 * 2**attempt)", "0.05 * 2**attempt")), "exactly the same pauses"),
    ("09.1", _with(("random.uniform(0, 0.05 * 2**attempt)", "random.uniform(2, 3)")), "up to 1 second"),
    (
        "09.1",
        _with(("            if attempt == 4:\n                raise\n            pause(", "            pause("))
        .replace("    for attempt", "    error = None\n    for attempt")
        .replace("except CommitFailedError:", "except CommitFailedError as refused:\n            error = refused")
        .replace("2**attempt))", "2**attempt))\n    raise error"),
        "four pauses",
    ),
    (
        "09.1",
        _with(("if stock[product_id] < pieces", "if stock[product_id] <= pieces")),
        "A sale of 10 should return True",
    ),
    ("09.1", _with(("        if stock[product_id] < pieces:\n            return False\n", "")), "should return False"),
    ("09.1", _with((', predicate=f"product_id = {product_id}"', "")), "another product"),
    (
        "09.1",
        _with(('table.update({"quantity": str(left)}', 'open_table().update({"quantity": str(left)}')),
        "a sale is lost",
    ),
    (
        "09.1",
        """def sell(open_table, pause, product_id, pieces):
    enough = f"product_id = {product_id} AND quantity >= {pieces}"
    for attempt in range(5):
        try:
            open_table().update({"quantity": f"quantity - {pieces}"}, predicate=enough)
            return True
        except CommitFailedError:
            if attempt == 4:
                raise
            pause(random.random())


answer = sell""",
        "A sale of 3 should return False",
    ),
    (
        "09.1",
        _with(
            (
                "            if attempt == 4:\n                raise\n            pause(",
                "            return False\n            pause(",
            )
        ),
        "enough were left. Your function should return True",
    ),
    ("09.1", _with(("            pause(random.uniform(0, 0.05 * 2**attempt))\n", "")), "your function made 0"),
    (
        "09.1",
        _with(
            ("    for attempt", "    table = open_table()\n    for attempt"),
            ("        table = open_table()\n        stock", "        table.update_incremental()\n        stock"),
        ),
        "opened the table once",
    ),
    (
        "09.1",
        _with(
            (
                "except CommitFailedError:\n            if attempt == 4",
                "except DeltaError:\n            if attempt == 4",
            )
        ),
        "Catch only CommitFailedError",
    ),
    (
        "09.1",
        _with(
            (
                "except CommitFailedError:\n            if attempt == 4",
                "except (CommitFailedError, OSError):\n            if attempt == 4",
            ),
            ("        table = open_table()\n", ""),
            ('        stock = table.to_pandas().set_index("product_id")["quantity"]\n', ""),
            ("        if stock[product_id] < pieces:\n            return False\n        try:\n", _OPEN_IN_TRY),
        ),
        "open_table raised an OSError",
    ),
    (
        "09.1",
        _with(
            (
                "    for attempt in range(5):\n        table = open_table()\n",
                "    table = open_table()\n    while True:\n",
            ),
            (_RAISE_AT_END, ""),
            ("random.uniform(0, 0.05 * 2**attempt)", "random.random()"),
        ),
        "Open the table in each attempt",
    ),
    (
        "09.1",
        _with(("for attempt in range(5)", "while True"), (_RAISE_AT_END, ""), ("2**attempt", "1")),
        "does not end",
    ),
    ("09.1", _with(("return False", "return None")), "A sale of 3 should return False, but it returned None"),
    (
        "09.1",
        _with(("            table.update", "            done = table.update"), ("return True", "return done")),
        "A sale of 3 should return True, but it returned {",
    ),
    (
        "09.1",
        _with(
            ("            return False", '            table.update({"quantity": "quantity"})\n            return False')
        ),
        "should not change the table",
    ),
    ("09.1", _with(("0.05 * 2**attempt", "0.2 * 2**attempt")), "up to 1 second"),
    ("09.1", "answer = 7", "it is of type int"),
    (
        "09.2",
        _FILES + "answer = sorted(data_files - {name.replace('%20', '%2520') for name in named})",
        "A live file is in your list",
    ),
    (
        "09.2",
        _FILES
        + """table = DeltaTable(lake.uri("shop", "deliveries"), storage_options=lake.storage_options)
live = {unquote(path) for path in pa.table(table.get_add_actions())["path"].to_pylist()} | {
    path for path in pa.table(table.get_add_actions())["path"].to_pylist()}
answer = sorted(data_files - live)""",
        "removed by a later commit",
    ),
    (
        "09.2",
        _FILES
        + """table = DeltaTable(deliveries, **S3)
named |= {unquote(uri).partition("/shop/deliveries/")[2] for uri in table.file_uris()}
answer = sorted(data_files - {unquote(name) for name in named})""",
        "`file_uris()` is decoded already",
    ),
    (
        "09.2",
        _FILES
        + """uris = DeltaTable(deliveries, **S3).file_uris()
answer = sorted(data_files - {unquote(uri).partition("/shop/deliveries/")[2] for uri in uris})""",
        "`file_uris()` is decoded already",
    ),
    (
        "09.2",
        _FILES.replace('("add", "remove")', '("remove",)') + "answer = sorted(data_files - named)",
        "`add` actions too",
    ),
    ("09.2", _FILES + "answer = sorted(stored - named)", "The log's own files"),
    (
        "09.2",
        _FILES + "answer = sorted(name for name in data_files - named if '/' in name)",
        "in the table's folder itself",
    ),
    ("09.2", _FILES + "answer = sorted(folder + name for name in data_files - named)", "below the table's folder"),
    ("09.2", _FILES + "answer = sorted((data_files - named), reverse=True)", "should be sorted"),
    ("09.2", _FILES + "answer = sorted(unquote(name) for name in data_files - named)", "has no object"),
    ("09.2", _FILES + "answer = sorted(name for name in data_files - named if 'New' not in name)", "is missing"),
    ("09.2", _FILES + "answer = []", "3 orphans are missing"),
    ("09.2", _FILES + "answer = ['part-1.parquet'] * 3", "2 orphans are missing"),
    ("09.2", _FILES + "answer = sorted(data_files)", "A live file is in your list"),
    (
        "09.2",
        """folder = lake.key("shop", "deliveries", "")
answer = [entry for entry in lake.objects(folder) if "part-1" in entry["Key"]]""",
        "keys as text",
    ),
    (
        "09.2",
        """table = DeltaTable(deliveries, **S3)
answer = sorted(table.vacuum(0, enforce_retention_duration=False, full=True))""",
        "not correct yet",
    ),
    ("09.2", _FILES + "answer = data_files - named", "it is of type set"),
    ("09.3", 'answer = {"version": 5, "surplus": 51}', "not the first version"),
    ("09.3", 'answer = {"version": 4, "surplus": 0}', "The version is right"),
    ("09.3", 'answer = {"version": "4", "surplus": "51"}', "should be numbers"),
    ("09.3", 'answer = {"version": 3, "surplus": 0}', "is a compaction that is right"),
    ("09.3", "answer = (4, 51)", "it is of type tuple"),
    ("09.3", 'answer = {"version": 3, "surplus": 51}', "is a compaction that is right"),
    ("09.3", 'answer = {"version": 6, "surplus": 51}', "not the first version"),
    ("09.3", 'answer = {"version": 4, "surplus": 60}', "A later commit deleted rows"),
    (
        "09.3",
        'answer = {"version": 4, "surplus": DeltaTable(payments, storage_options=lake.storage_options).count()}',
        "number of all rows",
    ),
    ("09.3", 'answer = {"version": 4, "surplus": 102}', "One row of each is right"),
    ("09.3", 'answer = {"version": 4, "rows": 51}', "keys of the dict"),
    ("09.3", 'answer = {"version": 4, "surplus": 50}', "The version is right"),
]
