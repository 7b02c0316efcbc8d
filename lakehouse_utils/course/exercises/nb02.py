"""The checks of notebook 02: append with a new column, replace one batch, load a corrected batch once."""

from collections import Counter

import pandas as pd
from deltalake import DeltaTable

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake


@exercise("02.1", "Append a batch with a new column", expects=DeltaTable)
def check_new_column(answer: DeltaTable, _lake: Lake) -> Right:
    """The table has the rows of two files, each row once, and the second file's additional column."""
    types = {field.name: getattr(field.type, "type", None) for field in answer.schema().fields}
    required = ["product_id", "list_price", "_source_file", "_source_line"]
    if missing := [name for name in required if name not in types]:
        raise Wrong(f"The table has no column {missing[0]}. Write the rows of full and daily without changes.")
    rows = _rows(answer, ["_source_file", "_source_line"])
    if "2026-01-03/products.csv" not in rows["_source_file"].values:
        raise Wrong("The rows of daily are missing. Append them, and open the table after that.")
    if "2026-01-01/products.csv" not in rows["_source_file"].values:
        raise Wrong("The rows of full are missing: an overwrite replaces the old rows by the new ones. Use append.")
    if rows.duplicated().any():
        raise Wrong(f"{rows.duplicated().sum()} rows are in the table twice. Did a write run twice? Use a new address.")
    if "updated_at" not in types:
        raise Wrong("The column updated_at of daily is missing. Keep it, and let schema_mode add it to the table.")
    if types["list_price"] != "string":
        raise Wrong("list_price is no longer text. Write the rows without changes.")
    return Right(f"The table has {len(rows):,} rows of two files. Those of the first file have no updated_at value.")


@exercise("02.2", "Correct one batch", expects=DeltaTable)
def check_corrected_batch(answer: DeltaTable, lake: Lake) -> Right:
    """The batch 2026-01-03 was replaced and the others are unchanged, in one commit after the exercise's four."""
    columns = ["_batch", "quantity", "_source_line"]
    start = DeltaTable(answer.table_uri, version=3, storage_options=lake.storage_options)
    old_rows, rows = _rows(start, columns), _rows(answer, columns)
    old_counts, counts = (Counter[str](frame["_batch"]) for frame in (old_rows, rows))
    if missing := sorted(set(old_counts) - set(counts)):
        raise Wrong(f"The batch {missing[0]} is missing. Which rows does your predicate select, if you passed one?")
    if counts["2026-01-03"] > old_counts["2026-01-03"]:
        raise Wrong("The old rows of 2026-01-03 are still there, next to the new ones. An append replaces nothing.")
    if changed := [batch for batch in old_counts if counts[batch] != old_counts[batch]]:
        raise Wrong(f"The batch {changed[0]} has {counts[changed[0]]} rows. It had {old_counts[changed[0]]}.")
    if set(rows["quantity"][rows["_batch"] == "2026-01-03"]) != {"0"}:
        raise Wrong("The batch 2026-01-03 has quantities other than 0. Write corrected, and open the table after that.")
    old_others, others = (
        {*frame[frame["_batch"] != "2026-01-03"].itertuples(index=False, name=None)} for frame in (old_rows, rows)
    )
    if old_others != others:
        raise Wrong("Quantities of other batches have changed too. Which rows does your predicate select?")
    if answer.version() != 4:
        raise Wrong(
            f"The rows are right, but it took {answer.version() - 3} commits. Between them, a reader sees a table that"
            " is neither the old nor the new one. One overwrite with a predicate is enough."
        )
    return Right("One commit replaced one file, and did not touch the other three.")


@exercise("02.3", "Load a batch that is delivered again with corrections", expects=DeltaTable)
def check_repeated_batches(answer: DeltaTable, lake: Lake) -> Right:
    """Of five deliveries, three have new content: the table has the newest rows of both batches, from three commits."""
    rows = _rows(answer, ["_batch", "_source_line"])
    counts = Counter(rows["_batch"])
    if not counts:
        raise Wrong("The table is empty. Does load write, and did you open the table after all loads?")
    if rows.duplicated().any():
        raise Wrong(
            "Rows are in the table twice: a delivery was appended to the older rows of its batch. Replace them."
        )
    if missing := [batch for batch in ("2026-01-02", "2026-01-03") if batch not in counts]:
        raise Wrong(f"The batch {missing[0]} is missing: an overwrite without a predicate replaces the whole table.")
    if counts["2026-01-02"] != 5:
        raise Wrong(
            f"The correction was not loaded: 2026-01-02 has {counts['2026-01-02']} rows and not 5. Skip a delivery only"
            " if the batch's transaction has the same number, not whenever the batch has a transaction."
        )
    writes = [commit["version"] for commit in answer.history() if commit["operation"] != "CREATE TABLE"]
    if len(writes) != 3:
        raise Wrong(
            f"The rows are right, but there are {len(writes)} commits with rows, and 3 are enough. Does the commit"
            " record the fingerprint as the transaction's number, and do you read that number before you write?"
        )
    names = answer.table_uri.removeprefix(lake.uri("")).strip("/").split("/")
    if not all("txn" in set(views.commit(lake, *names, version=version)["action"]) for version in writes):
        raise Wrong(
            "The rows are right now, but the log does not record what was loaded. If load keeps that anywhere else,"
            " it is lost after a restart. Write a Transaction with the fingerprint in the same commit as the rows."
        )
    return Right(
        "Five deliveries, three commits: repeated content changed nothing, and new content replaced its batch."
    )


def _rows(table: DeltaTable, columns: list[str]) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pyarrow_table(columns=columns).to_pandas()
    return frame
