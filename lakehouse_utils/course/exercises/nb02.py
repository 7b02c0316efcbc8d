"""The exercises of notebook 02: append with a new column, replace one batch, load a corrected batch once."""

from collections import Counter

from deltalake import DeltaTable

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake


@exercise(
    "02.1",
    "Append a batch with a new column",
    hint="`write_deltalake(place, full, ...)`, then `daily` with another mode and a schema_mode, then"
    " `DeltaTable(place, ...)`.",
    expects=DeltaTable,
)
def products(answer, lake):
    """Two files in one table, each row once, with the second file's additional column."""
    fields = {field.name: field.type.type for field in answer.schema().fields}
    wanted = ["product_id", "list_price", "_source_file", "_source_line"]
    if missing := [name for name in wanted if name not in fields]:
        raise Wrong(f"The table has no column {missing[0]}. Write the rows of full and daily as they are.")
    rows = _rows(answer, ["_source_file", "_source_line"])
    if "2026-01-03/products.csv" not in rows["_source_file"].values:
        raise Wrong("The rows of daily are not there yet: append them, and open the table after that.")
    if "2026-01-01/products.csv" not in rows["_source_file"].values:
        raise Wrong("The rows of full are gone: an overwrite puts the new rows in place of the old ones. Append.")
    if rows.duplicated().any():
        raise Wrong(f"{rows.duplicated().sum()} rows are there twice: was a write run twice? Take a new place.")
    if "updated_at" not in fields:
        raise Wrong("The column updated_at of daily is lost. Leave it in, and let schema_mode add it to the table.")
    if fields["list_price"] != "string":
        raise Wrong("list_price is no text any more: write the rows as they are.")
    return Right(f"{len(rows):,} rows of two files; those of the first have no updated_at, and lost nothing.")


@exercise(
    "02.2",
    "Correct one batch",
    hint="`write_deltalake(place, corrected, mode=..., predicate=..., ...)`, then `DeltaTable(place, ...)`.",
    expects=DeltaTable,
)
def one_batch(answer, lake):
    """The batch 2026-01-03 replaced, the others as they were, in one commit on top of the stub's four."""
    was = _rows(_as_of(answer, 3, lake), ["_batch", "quantity", "_source_line"])
    before = was["_batch"].value_counts().to_dict()
    rows = _rows(answer, ["_batch", "quantity", "_source_line"])
    now = rows["_batch"].value_counts().to_dict()
    if lost := sorted(set(before) - set(now)):
        raise Wrong(f"The batch {lost[0]} is gone. Which rows does your predicate mean, if there is one?")
    if now["2026-01-03"] > before["2026-01-03"]:
        raise Wrong("The old rows of 2026-01-03 are still there, beside the new ones: append replaces nothing.")
    if changed := [batch for batch in before if now[batch] != before[batch]]:
        raise Wrong(f"The batch {changed[0]} has {now[changed[0]]} rows now; it had {before[changed[0]]}.")
    if set(rows["quantity"][rows["_batch"] == "2026-01-03"]) != {"0"}:
        raise Wrong("The batch 2026-01-03 has quantities other than 0: write corrected, and open the table after it.")
    others = ({*batch[batch["_batch"] != "2026-01-03"].itertuples(index=False, name=None)} for batch in (was, rows))
    if next(others) != next(others):
        raise Wrong("Quantities of other batches have changed as well: which rows does your predicate mean?")
    if answer.version() != 4:
        raise Wrong(
            f"The rows are right, but it took {answer.version() - 3} commits. In between, a reader sees a table that is"
            " neither the old nor the new one: one overwrite with a predicate is enough."
        )
    return Right("One commit put one file in place of another, and left three alone.")


@exercise(
    "02.3",
    "Load a batch that comes again, corrected",
    hint="In `load`: open the table, compare `transaction_version(batch)` with the fingerprint, overwrite the batch.",
    expects=DeltaTable,
)
def corrected_batch(answer, lake):
    """Five deliveries, three of them news: the newest rows of both batches, by three commits."""
    rows = _rows(answer, ["_batch", "_source_line"])
    counts = Counter(rows["_batch"])
    if not counts:
        raise Wrong("The table is empty: does load write, and was the table opened after all loads?")
    if rows.duplicated().any():
        raise Wrong("There are rows twice: a delivery was appended to what was there. Let it replace its batch.")
    if gone := [batch for batch in ("2026-01-02", "2026-01-03") if batch not in counts]:
        raise Wrong(f"The batch {gone[0]} is gone: an overwrite without a predicate replaces the whole table.")
    if counts["2026-01-02"] != 5:
        raise Wrong(
            f"The correction didn't come through: 2026-01-02 has {counts['2026-01-02']} rows, not 5. A transaction of"
            " that batch is no reason to stop; one with the same number is."
        )
    writes = [commit["version"] for commit in answer.history() if commit["operation"] != "CREATE TABLE"]
    if len(writes) != 3:
        raise Wrong(
            f"The rows are right, but {len(writes)} commits wrote, where 3 are enough. Is the fingerprint in the"
            " commit, as the transaction's number, and do you ask for it before?"
        )
    names = answer.table_uri.removeprefix(lake.uri("")).strip("/").split("/")
    if not all("txn" in set(views.commit(lake, *names, version=version)["action"]) for version in writes):
        raise Wrong(
            "The rows are right today, but the log has no note of what was loaded. What load remembers elsewhere is"
            " lost at the next start: write a Transaction with the fingerprint in the same commit as the rows."
        )
    return Right("Five deliveries, three commits: what was known changed nothing, and what was new took its place.")


def _rows(table: DeltaTable, columns: list[str]):
    return table.to_pyarrow_table(columns=columns).to_pandas()


def _as_of(table: DeltaTable, version: int, lake: Lake) -> DeltaTable:
    return DeltaTable(table.table_uri, version=version, storage_options=lake.storage_options)
