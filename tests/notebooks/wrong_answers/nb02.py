"""Wrong answers to the exercises of notebook 02."""

_OPEN = "answer = DeltaTable(uri, storage_options=options)"

_STOCKS = """uri = lake.uri("try", f"stocks-{datetime.now():%H%M%S%f}")
for rows in stocks.values():
    write_deltalake(uri, rows, mode="append", partition_by=["_batch"], storage_options=options)
"""

_LOAD = """def answer(uri, batch, fingerprint, rows):
    table = DeltaTable(uri, storage_options=options)
    note = {"commit_properties": CommitProperties(app_transactions=[Transaction(batch, fingerprint)])}
    replace = {"mode": "overwrite", "predicate": f"_batch = '{batch}'"}
    known = table.transaction_version(batch)
    %s
"""

WRONG_ANSWERS = [
    ("02.1", "answer = (4, 11, 2, 4)", "The version is not 4. Versions begin with 0"),
    ("02.1", "answer = (5, 11, 2, 4)", "The version is not 5. Which of the six calls write nothing?"),
    ("02.1", "answer = (3, 24, 2, 4)", "The number of rows is not 24. The overwrite replaces all rows"),
    (
        "02.1",
        "answer = (3, 20, 2, 4)",
        "The number of rows is not 20. Of the calls after the overwrite, one is refused",
    ),
    ("02.1", "answer = (3, 2, 2, 4)", "The number of rows is not 2. The last call appends nine rows"),
    ("02.1", "answer = (3, 11, 4, 4)", "The number of live files is not 4. The overwrite removes the files"),
    ("02.1", "answer = (3, 11, 1, 4)", "The number of live files is not 1. The overwrite left one live file"),
    ("02.1", "answer = (3, 11, 2, 2)", "An overwrite deletes nothing from the bucket"),
    ("02.1", "answer = (3, 11, 2, 8)", "The commits are JSON files"),
    ("02.1", "answer = (7, 11, 2, 4)", "Go through the calls one by one"),
    ("02.1", "answer = (3, 11, 2)", "four whole numbers"),
    ("02.1", "answer = 3", "it is of type int"),
    (
        "02.2",
        _STOCKS
        + f"""write_deltalake(uri, corrected, mode="overwrite", storage_options=options)
{_OPEN}""",
        "The batch 2026-01-02 is missing",
    ),
    (
        "02.2",
        _STOCKS
        + f"""write_deltalake(uri, corrected, mode="overwrite", predicate="_batch >= '2026-01-03'",
                storage_options=options)
{_OPEN}""",
        "The batch 2026-01-04 is missing",
    ),
    (
        "02.2",
        _STOCKS
        + f"""write_deltalake(uri, corrected, mode="append", storage_options=options)
{_OPEN}""",
        "An append replaces nothing",
    ),
    (
        "02.2",
        _STOCKS
        + f"""DeltaTable(uri, storage_options=options).delete("_batch = '2026-01-03'")
write_deltalake(uri, corrected, mode="append", storage_options=options)
{_OPEN}""",
        "it took 2 commits",
    ),
    ("02.2", _STOCKS + _OPEN, "quantities other than 0"),
    (
        "02.2",
        _STOCKS
        + """answer = DeltaTable(uri, storage_options=options)
answer.update(new_values={"quantity": "0"})""",
        "Quantities of other batches",
    ),
    ("02.3", _LOAD % "pass", "The table is empty"),
    ("02.3", _LOAD % 'write_deltalake(table, rows, mode="append", **note)', "its rows are in the table twice"),
    (
        "02.3",
        _LOAD % 'write_deltalake(table, rows, mode="overwrite", **note)',
        "the batch 2026-01-02 is missing. Which rows does your overwrite replace?",
    ),
    ("02.3", _LOAD % "write_deltalake(table, rows, **replace)", "The log does not record what was loaded"),
    ("02.3", _LOAD % "write_deltalake(table, rows, **replace, **note)", "load wrote it again"),
    (
        "02.3",
        _LOAD
        % """replace["predicate"] = f"_batch >= '{batch}'"
    if known != fingerprint:
        write_deltalake(table, rows, **replace, **note)""",
        "the batch 2026-01-03 is missing. Which rows does your overwrite replace?",
    ),
    (
        "02.3",
        _LOAD
        % """replace["predicate"] = f"_batch <= '{batch}'"
    if known != fingerprint:
        write_deltalake(table, rows, **replace, **note)""",
        "is missing. Which rows does your overwrite replace?",
    ),
    (
        "02.3",
        """def load(uri, batch, fingerprint, rows):
    table = DeltaTable(uri, storage_options=options)
    name = f"{batch}:{fingerprint}"
    if table.transaction_version(name) is None:
        note = CommitProperties(app_transactions=[Transaction(name, 1)])
        predicate = f"_batch = '{batch}'"
        write_deltalake(table, rows, mode="overwrite", predicate=predicate, commit_properties=note)


answer = load""",
        "went back to an earlier content",
    ),
    (
        "02.3",
        _LOAD
        % """if known is None:
        write_deltalake(table, rows, **replace, **note)""",
        "its old rows are still there",
    ),
    (
        "02.3",
        _LOAD
        % """if known is None or fingerprint > known:
        write_deltalake(table, rows, **replace, **note)""",
        "a smaller fingerprint arrived, the batch 2026-01-03 has 10 rows and not 5",
    ),
    (
        "02.3",
        _LOAD
        % """if known is None or fingerprint < known:
        write_deltalake(table, rows, **replace, **note)""",
        "a larger fingerprint arrived, the batch 2026-01-02 has 12 rows and not 7",
    ),
    (
        "02.3",
        _LOAD
        % """if known is None or fingerprint >= known:
        write_deltalake(table, rows, **replace, **note)""",
        "load wrote it again",
    ),
    (
        "02.3",
        _LOAD
        % """if known != fingerprint:
        table.delete(replace["predicate"])
        write_deltalake(table, rows, mode="append", **note)""",
        "commits with rows",
    ),
    (
        "02.3",
        _LOAD
        % """if known != fingerprint:
        write_deltalake(uri, rows, **replace, **note, storage_options=options)""",
        "Write with the handle that read the number",
    ),
    (
        "02.3",
        _LOAD
        % """if known != fingerprint:
        table = DeltaTable(uri, storage_options=options)
        write_deltalake(table, rows, **replace, **note)""",
        "Write with the handle that read the number",
    ),
    (
        "02.3",
        "loaded = {}\n"
        + _LOAD
        % """if loaded.get(batch) != fingerprint:
        loaded[batch] = fingerprint
        write_deltalake(table, rows, **replace)""",
        "it is lost after a restart",
    ),
    ("02.3", _LOAD % "write_deltalake(table, fingerprint)", "raised"),
]
