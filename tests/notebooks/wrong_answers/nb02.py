"""Wrong answers to the exercises of notebook 02."""

_PRODUCTS = """place = lake.uri("try", f"products-{datetime.now():%H%M%S%f}")
full, daily = (with_origin(read_as_text(file), file) for file in sorted(landing.glob("*/products.csv"))[:2])
write_deltalake(place, full, storage_options=lake.storage_options)
"""
_OPEN = "answer = DeltaTable(place, storage_options=lake.storage_options)"

_STOCKS = """place = lake.uri("try", f"stocks-{datetime.now():%H%M%S%f}")
for rows in stocks.values():
    write_deltalake(place, rows, mode="append", partition_by=["_batch"], storage_options=lake.storage_options)
"""

_AGAIN = """place = lake.uri("try", f"again-{datetime.now():%%H%%M%%S%%f}")
DeltaTable.create(place, two.schema, storage_options=lake.storage_options)


def load(batch, fingerprint, rows):
    table = DeltaTable(place, storage_options=lake.storage_options)
    noted = CommitProperties(app_transactions=[Transaction(batch, fingerprint)])
    %s


for delivery in deliveries:
    load(*delivery)
answer = DeltaTable(place, storage_options=lake.storage_options)
"""

WRONG_ANSWERS = [
    ("02.1", _PRODUCTS + _OPEN, "The rows of daily are not there yet"),
    (
        "02.1",
        _PRODUCTS
        + f"""write_deltalake(place, daily, mode="overwrite", schema_mode="overwrite",
                storage_options=lake.storage_options)
{_OPEN}""",
        "The rows of full are gone",
    ),
    (
        "02.1",
        _PRODUCTS
        + f"""write_deltalake(place, daily.drop_columns("updated_at"), mode="append",
                storage_options=lake.storage_options)
{_OPEN}""",
        "updated_at of daily is lost",
    ),
    (
        "02.1",
        _PRODUCTS
        + f"""for _ in range(2):
    write_deltalake(place, daily, mode="append", schema_mode="merge", storage_options=lake.storage_options)
{_OPEN}""",
        "rows are there twice",
    ),
    (
        "02.2",
        _STOCKS
        + f"""write_deltalake(place, corrected, mode="overwrite", storage_options=lake.storage_options)
{_OPEN}""",
        "The batch 2026-01-02 is gone",
    ),
    (
        "02.2",
        _STOCKS
        + f"""write_deltalake(place, corrected, mode="overwrite", predicate="_batch >= '2026-01-03'",
                storage_options=lake.storage_options)
{_OPEN}""",
        "The batch 2026-01-04 is gone",
    ),
    (
        "02.2",
        _STOCKS
        + f"""write_deltalake(place, corrected, mode="append", storage_options=lake.storage_options)
{_OPEN}""",
        "append replaces nothing",
    ),
    (
        "02.2",
        _STOCKS
        + f"""DeltaTable(place, storage_options=lake.storage_options).delete("_batch = '2026-01-03'")
write_deltalake(place, corrected, mode="append", storage_options=lake.storage_options)
{_OPEN}""",
        "it took 2 commits",
    ),
    ("02.2", _STOCKS + _OPEN, "quantities other than 0"),
    (
        "02.2",
        _STOCKS
        + """answer = DeltaTable(place, storage_options=lake.storage_options)
answer.update(new_values={"quantity": "0"})""",
        "Quantities of other batches",
    ),
    (
        "02.3",
        _AGAIN % 'write_deltalake(table, rows, mode="append", commit_properties=noted)',
        "There are rows twice",
    ),
    (
        "02.3",
        _AGAIN
        % """if table.transaction_version(batch) is None:
        write_deltalake(table, rows, mode="overwrite", predicate=f"_batch = '{batch}'", commit_properties=noted)""",
        "The correction didn't come through",
    ),
    (
        "02.3",
        _AGAIN
        % """if table.transaction_version(batch) != fingerprint:
        write_deltalake(table, rows, mode="overwrite", commit_properties=noted)""",
        "The batch 2026-01-02 is gone",
    ),
    (
        "02.3",
        _AGAIN % """write_deltalake(table, rows, mode="overwrite", predicate=f"_batch = '{batch}'")""",
        "5 commits wrote, where 3 are enough",
    ),
    (
        "02.3",
        _AGAIN
        % """if (table.transaction_version(batch) or 0) < fingerprint:
        write_deltalake(table, rows, mode="overwrite", predicate=f"_batch = '{batch}'", commit_properties=noted)""",
        "The correction didn't come through",
    ),
    (
        "02.3",
        "known = {}\n"
        + _AGAIN
        % """if known.get(batch) != fingerprint:
        known[batch] = fingerprint
        write_deltalake(table, rows, mode="overwrite", predicate=f"_batch = '{batch}'")""",
        "the log has no note",
    ),
    ("02.3", _AGAIN % "pass", "The table is empty"),
]
