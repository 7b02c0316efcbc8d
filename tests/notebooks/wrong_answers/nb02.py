"""Wrong answers to the exercises of notebook 02."""

_PRODUCTS = """uri = lake.uri("try", f"products-{datetime.now():%H%M%S%f}")
full, daily = (add_origin(read_as_text(file), file) for file in sorted(landing.glob("*/products.csv"))[:2])
write_deltalake(uri, full, storage_options=lake.storage_options)
"""
_OPEN = "answer = DeltaTable(uri, storage_options=lake.storage_options)"

_STOCKS = """uri = lake.uri("try", f"stocks-{datetime.now():%H%M%S%f}")
for rows in stocks.values():
    write_deltalake(uri, rows, mode="append", partition_by=["_batch"], storage_options=lake.storage_options)
"""

_AGAIN = """uri = lake.uri("try", f"again-{datetime.now():%%H%%M%%S%%f}")
DeltaTable.create(uri, two.schema, storage_options=lake.storage_options)


def load(batch, fingerprint, rows):
    table = DeltaTable(uri, storage_options=lake.storage_options)
    properties = CommitProperties(app_transactions=[Transaction(batch, fingerprint)])
    %s


for delivery in deliveries:
    load(*delivery)
answer = DeltaTable(uri, storage_options=lake.storage_options)
"""

WRONG_ANSWERS = [
    ("02.1", _PRODUCTS + _OPEN, "The rows of daily are missing"),
    (
        "02.1",
        _PRODUCTS
        + f"""write_deltalake(uri, daily, mode="overwrite", schema_mode="overwrite",
                storage_options=lake.storage_options)
{_OPEN}""",
        "The rows of full are missing",
    ),
    (
        "02.1",
        _PRODUCTS
        + f"""write_deltalake(uri, daily.drop_columns("updated_at"), mode="append",
                storage_options=lake.storage_options)
{_OPEN}""",
        "The column updated_at of daily is missing",
    ),
    (
        "02.1",
        _PRODUCTS
        + f"""for _ in range(2):
    write_deltalake(uri, daily, mode="append", schema_mode="merge", storage_options=lake.storage_options)
{_OPEN}""",
        "rows are in the table twice",
    ),
    (
        "02.2",
        _STOCKS
        + f"""write_deltalake(uri, corrected, mode="overwrite", storage_options=lake.storage_options)
{_OPEN}""",
        "The batch 2026-01-02 is missing",
    ),
    (
        "02.2",
        _STOCKS
        + f"""write_deltalake(uri, corrected, mode="overwrite", predicate="_batch >= '2026-01-03'",
                storage_options=lake.storage_options)
{_OPEN}""",
        "The batch 2026-01-04 is missing",
    ),
    (
        "02.2",
        _STOCKS
        + f"""write_deltalake(uri, corrected, mode="append", storage_options=lake.storage_options)
{_OPEN}""",
        "An append replaces nothing",
    ),
    (
        "02.2",
        _STOCKS
        + f"""DeltaTable(uri, storage_options=lake.storage_options).delete("_batch = '2026-01-03'")
write_deltalake(uri, corrected, mode="append", storage_options=lake.storage_options)
{_OPEN}""",
        "it took 2 commits",
    ),
    ("02.2", _STOCKS + _OPEN, "quantities other than 0"),
    (
        "02.2",
        _STOCKS
        + """answer = DeltaTable(uri, storage_options=lake.storage_options)
answer.update(new_values={"quantity": "0"})""",
        "Quantities of other batches",
    ),
    (
        "02.3",
        _AGAIN % 'write_deltalake(table, rows, mode="append", commit_properties=properties)',
        "Rows are in the table twice",
    ),
    (
        "02.3",
        _AGAIN
        % """if table.transaction_version(batch) is None:
        write_deltalake(table, rows, mode="overwrite", predicate=f"_batch = '{batch}'",
                        commit_properties=properties)""",
        "The correction was not loaded",
    ),
    (
        "02.3",
        _AGAIN
        % """if table.transaction_version(batch) != fingerprint:
        write_deltalake(table, rows, mode="overwrite", commit_properties=properties)""",
        "The batch 2026-01-02 is missing",
    ),
    (
        "02.3",
        _AGAIN % """write_deltalake(table, rows, mode="overwrite", predicate=f"_batch = '{batch}'")""",
        "there are 5 commits with rows, and 3 are enough",
    ),
    (
        "02.3",
        _AGAIN
        % """if (table.transaction_version(batch) or 0) < fingerprint:
        write_deltalake(table, rows, mode="overwrite", predicate=f"_batch = '{batch}'",
                        commit_properties=properties)""",
        "The correction was not loaded",
    ),
    (
        "02.3",
        "loaded = {}\n"
        + _AGAIN
        % """if loaded.get(batch) != fingerprint:
        loaded[batch] = fingerprint
        write_deltalake(table, rows, mode="overwrite", predicate=f"_batch = '{batch}'")""",
        "the log does not record what was loaded",
    ),
    ("02.3", _AGAIN % "pass", "The table is empty"),
]
