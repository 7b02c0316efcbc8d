"""Wrong answers to the exercises of notebook 08."""

_JOIN = """rows = db.sql('''
    WITH versions AS (
        SELECT customer_id, city, valid_from, valid_to,
            CASE WHEN row_number() OVER (PARTITION BY customer_id ORDER BY valid_from) = 1
                THEN TIMESTAMP '1900-01-01' ELSE valid_from END AS begins,
            coalesce(valid_to, TIMESTAMP '9999-12-31') AS ends
        FROM history_rows
    )
    SELECT visit_id, coalesce(city, 'Unknown')
    FROM visits AS v
    LEFT JOIN versions AS h ON v.customer_id = h.customer_id AND v.time >= begins AND v.time < ends
''').fetchall()
answer = dict(rows)"""

_LOAD = """def load(source, target):
    cursor = target.transaction_version("source")
    begin = 0 if cursor is None else cursor + 1
    if begin > source.version():
        return
    rows = source.load_cdf(starting_version=begin, ending_version=source.version())
    changes = pa.table(rows).to_pandas()
    inserted = changes.loc[changes["_change_type"] == "insert", ["id", "time"]]
    done = CommitProperties(app_transactions=[Transaction("source", source.version())])
    new = pa.Table.from_pandas(inserted, preserve_index=False)
    write_deltalake(target, new, mode="append", commit_properties=done)


answer = load"""

_ROWS_LATER = """def load_in_two_commits(source, target):
    begin = target.transaction_version("source")
    load(source, target)  # commits the cursor alone
    changes = pa.table(source.load_cdf(starting_version=0 if begin is None else begin + 1).read_all()).to_pandas()
    inserted = changes.loc[changes["_change_type"] == "insert", ["id", "time"]]
    write_deltalake(target, pa.Table.from_pandas(inserted, preserve_index=False), mode="append")


answer = load_in_two_commits"""


def _with(code: str, *changes: tuple[str, str]) -> str:
    """The code, with these parts replaced."""
    for old, new in changes:
        assert old in code, old
        code = code.replace(old, new)
    return code


WRONG_ANSWERS = [
    ("08.1", _with(_JOIN, ("AND v.time >= begins AND v.time < ends", "AND valid_to IS NULL")), "current version"),
    ("08.1", _with(_JOIN, ("LEFT JOIN", "INNER JOIN")), "A LEFT JOIN keeps it"),
    ("08.1", _with(_JOIN, ("v.time >= begins AND v.time < ends", "v.time > begins AND v.time <= ends")), "exclusive"),
    ("08.1", _with(_JOIN, (">= begins", ">= valid_from")), "before it"),
    ("08.1", _with(_JOIN, ("coalesce(city, 'Unknown')", "city")), "'Unknown'"),
    ("08.1", _with(_JOIN, ("AND v.time < ends", "AND v.time < valid_to")), "less than NULL"),
    ("08.1", _with(_JOIN, ("v.customer_id = h.customer_id", "v.customer_id > 0")), "never lived in"),
    (
        "08.1",
        """first = history_rows.drop_duplicates("customer_id").set_index("customer_id")["city"]
answer = dict(zip(visits["visit_id"], visits["customer_id"].map(first).fillna("Unknown"), strict=True))""",
        "first version. Compare the times",
    ),
    (
        "08.1",
        """known = visits.dropna().sort_values("time")
rows = pd.merge_asof(
    known, history_rows.sort_values("valid_from"), left_on="time", right_on="valid_from", by="customer_id"
)
answer = dict(zip(rows["visit_id"], rows["city"], strict=True)) | {6: "Unknown"}""",
        "Visit 1 is before the customer's first version",
    ),
    ("08.1", _JOIN + "\nanswer = {city: visit for visit, city in answer.items()}", "no visit '"),
    ("08.1", _JOIN + "\nanswer = {visit: city.upper() for visit, city in answer.items()}", "no city 'LIMA'"),
    ("08.1", "answer = {7: 'Lima'}", "no visit 7"),
    ("08.1", "answer = 7", "it is of type int"),
    ("08.2", 'answer = {"bronze.customers"}', "updated_at"),
    ("08.2", 'answer = {"silver.customers"}', "every record"),
    ("08.2", 'answer = {"bronze.customers", "silver.customers", "silver.customers_history"}', "without a change"),
    ("08.2", 'answer = {"bronze.customers", "silver.customers", "gold.dim_customers"}', "Did the history"),
    ("08.2", 'answer = {"bronze.customers", "silver.customers", "gold.fact_sales"}', "computed again"),
    (
        "08.2",
        'answer = ["bronze.customers", "silver.customers", "silver.customers_history", "gold.fact_sales"]',
        "computed again",
    ),
    ("08.2", "answer = set()", "every record"),
    ("08.2", 'answer = {"bronze.customers", "silver.customers", "bronze.orders"}', "not one of the five"),
    (
        "08.2",
        """new = {"silver.customers_history": lake.delta("silver", "customers_history").version() == 3}
answer = {"bronze.customers", "silver.customers"} | {name for name, is_new in new.items() if is_new}""",
        "only moves the cursor",
    ),
    ("08.2", 'answer = "bronze.customers"', "it is of type str"),
    ("08.2", 'answer = {"customers"}', "not one of the five"),
    ("08.3", _with(_LOAD, ("cursor + 1", "cursor")), "more than once"),
    ("08.3", _with(_LOAD, ("0 if cursor is None else cursor + 1", "cursor + 1 if cursor else 0")), "with `is None`"),
    (
        "08.3",
        _with(
            _LOAD,
            ("    begin = 0 if cursor is None else cursor + 1\n", "    begin = cursor or 0\n"),
            ("if begin > source.version()", "if begin == source.version()"),
            ('"insert", ["id"', '"insert") & (changes["_commit_version"] > (cursor or 0)), ["id"'),
            ("changes.loc[changes", "changes.loc[(changes"),
        ),
        "id 1 is missing. The cursor 0 is a version too",
    ),
    (
        "08.3",
        _with(
            _LOAD,
            ("pa.table(rows).to_pandas()", "pa.table(rows)"),
            (
                """inserted = changes.loc[changes["_change_type"] == "insert", ["id", "time"]]""",
                """new = changes.filter(pc.equal(changes["_change_type"], "insert")).select(["id", "time"])""",
            ),
            ("    new = pa.Table.from_pandas(inserted, preserve_index=False)\n", ""),
            ("def load(", "import pyarrow.compute as pc\n\n\ndef load("),
        ),
        "string_view: cast it to string",
    ),
    (
        "08.3",
        _with(
            _LOAD,
            ("pa.table(rows).to_pandas()", "pa.table(rows.read_all()).sort_by('_change_type').to_pandas()"),
        ),
        "string_view: cast it to string",
    ),
    ("08.3", _with(_LOAD, ("preserve_index=False", "schema=3")), "Your function raised TypeError"),
    ("08.3", _with(_LOAD, ('== "insert"', '!= "update_preimage"')), "more than once"),
    ("08.3", _with(_LOAD, (", commit_properties=done", "")), "application transaction"),
    (
        "08.3",
        _with(_LOAD, ('Transaction("source", source.version())', 'Transaction("source", begin)')),
        "The cursor is",
    ),
    (
        "08.3",
        """def load(source, target):
    copied = target.to_pyarrow_table().to_pandas()
    rows = source.to_pyarrow_table().to_pandas()
    new = rows[rows["time"] > (copied["time"].max() if len(copied) else 0)]
    done = CommitProperties(app_transactions=[Transaction("source", source.version())])
    if len(new):
        write_deltalake(target, pa.table(new), mode="append", commit_properties=done)


answer = load""",
        "id 3 is missing",
    ),
    (
        "08.3",
        _with(
            _LOAD,
            (
                'mode="append", commit_properties=done)',
                'mode="append")\n    write_deltalake(target, new.slice(0, 0), mode="append", commit_properties=done)',
            ),
        ),
        "2 commits",
    ),
    ("08.3", _with(_LOAD, ("    if begin > source.version():\n        return\n", "")), "no new version"),
    (
        "08.3",
        _with(
            _LOAD,
            ("ending_version=source.version()", "ending_version=begin"),
        ),
        "id 1 is missing",
    ),
    (
        "08.3",
        _with(_LOAD, (", ending_version=source.version()", "")),
        "id 7 is in target more than once. Without `ending",
    ),
    (
        "08.3",
        """def load(source, target):
    if target.transaction_version("source") != source.version():
        copied, rows = target.to_pyarrow_table().to_pandas(), source.to_pyarrow_table().to_pandas()
        new = pa.Table.from_pandas(rows[~rows["id"].isin(copied["id"])], preserve_index=False)
        done = CommitProperties(app_transactions=[Transaction("source", source.version())])
        write_deltalake(target, new, mode="append", commit_properties=done)


answer = load""",
        "id 9 is missing. Read the feed",
    ),
    (
        "08.3",
        """def load(source, target):
    if target.transaction_version("source") != source.version():
        done = CommitProperties(app_transactions=[Transaction("source", source.version())])
        write_deltalake(target, source.to_pyarrow_table(), mode="overwrite", commit_properties=done)


answer = load""",
        "should append",
    ),
    (
        "08.3",
        _with(
            _LOAD,
            ("def load(", "position = [None]\n\n\ndef load("),
            ('target.transaction_version("source")', "position[0]"),
        ).replace(", commit_properties=done)", ")\n    position[0] = source.version()"),
        "no application transaction",
    ),
    (
        "08.3",
        _with(
            _LOAD, ('Transaction("source", source.version())', 'Transaction("source", source.version() + 1)')
        ).replace("0 if cursor is None else cursor + 1", "cursor or 0"),
        "The cursor is 2, but",
    ),
    (
        "08.3",
        _LOAD.replace("new, mode", "new.slice(0, 0), mode").replace("answer = load", _ROWS_LATER),
        "separate rows",
    ),
]
