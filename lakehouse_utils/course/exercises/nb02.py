"""The checks of notebook 02: predict what writes leave, replace one batch, load a corrected batch once."""

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake

PREDICTED = (3, 11, 2, 4)
_TRIES = {  # by position: the numbers that a mistake leads to, and the hint that fits it
    0: {
        4: "Versions begin with 0, and a call that writes nothing makes no version.",
        5: "Which of the six calls write nothing? They make no version, and versions begin with 0.",
        6: "Which of the six calls write nothing? They make no version, and versions begin with 0.",
        2: "The first write makes version 0, each later commit the next one. Does the last call commit?",
    },
    1: {
        24: "The overwrite replaces all rows that were there before it. You added its rows to them.",
        33: "The overwrite replaces all rows that were there before it, and ignore adds none.",
        20: "Of the calls after the overwrite, one is refused: mode='error' is the default.",
        9: "The last call appends to what the overwrite left. It does not replace it.",
        2: "The last call appends nine rows: only the call without a mode is refused.",
        13: "The overwrite removes the rows that the two appends wrote.",
        22: "The overwrite replaces the rows of both appends, not only those of the second.",
    },
    2: {
        4: "The overwrite removes the files of both appends from the table. Which files are live after it?",
        3: "The overwrite removes the files of both appends from the table. Which files are live after it?",
        1: "The overwrite left one live file, and a call after it adds another.",
    },
    3: {
        2: "An overwrite deletes nothing from the bucket: the files that it removed from the table stay in the folder.",
        3: "Count all data files that were ever written. Each call that commits wrote one.",
        1: "Count all data files that were ever written. Each call that commits wrote one.",
        5: "Count the calls that commit: each wrote one file, and the refused and the ignored write none.",
        6: "Count the calls that commit: each wrote one file, and the refused and the ignored write none.",
        8: "The question is about the Parquet files. The commits are JSON files, in the folder _delta_log.",
    },
}
_NAMES = ("version", "number of rows", "number of live files", "number of Parquet files in the folder")


@exercise("02.1", "Predict what six writes leave", expects=(tuple, list))
def check_prediction(answer: Sequence[object], _lake: Lake) -> Right:
    """The answer has the version, the rows, the live files and the files in the folder after the six writes."""
    if len(answer) != len(PREDICTED) or not all(isinstance(each, int | np.integer) for each in answer):
        raise Wrong("The answer must be four whole numbers: version, rows, live files, Parquet files in the folder.")
    for position, (given, right) in enumerate(zip(answer, PREDICTED, strict=True)):
        if given != right:
            hint = _TRIES[position].get(
                int(str(given)), "Go through the calls one by one: what does each add and remove?"
            )
            raise Wrong(f"The {_NAMES[position]} is not {given}. {hint}")
    return Right(
        "Four of the six calls made a commit. The overwrite removed two files from the table, not from the folder."
    )


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


_TABLE = pa.schema([("product_id", pa.string()), ("_batch", pa.string()), ("_source_line", pa.int64())])
_Load = Callable[[str, str, int, pa.Table], object]


def _stocks(batch: str, count: int) -> pa.Table:
    lines = range(1, count + 1)
    columns = [pa.array([str(line) for line in lines]), pa.array([batch] * count), pa.array(lines, pa.int64())]
    return pa.Table.from_arrays(columns, schema=_TABLE)


@exercise("02.3", "Load a batch that is delivered again with corrections", expects=Callable)
def check_repeated_batches(answer: _Load, lake: Lake) -> Right:
    """The function loads what is new, once and in one commit, and does not overwrite what another program loads."""
    first, middle, last = "2026-01-02", "2026-01-03", "2026-01-04"
    uri = _new_table(lake)
    for batch, fingerprint, count in [(middle, 85, 10), (first, 94, 12), (last, 50, 9)]:
        _call(answer, uri, batch, fingerprint, _stocks(batch, count))
    _require(lake, uri, {first: 12, middle: 10, last: 9}, "three batches were loaded")
    if _writes(lake, uri) != 3:
        raise Wrong(f"After three batches there are {_writes(lake, uri)} commits with rows. One per batch is enough.")
    if not _notes(lake, uri):
        raise Wrong(
            "The log does not record what was loaded. If load keeps that anywhere else, it is lost after a restart."
            " Write a Transaction with the fingerprint in the same commit as the rows."
        )
    _call(answer, uri, middle, 85, _stocks(middle, 10))
    _require(lake, uri, {first: 12, middle: 10, last: 9}, "a batch arrived again with the same fingerprint")
    if _writes(lake, uri) != 3:
        raise Wrong(
            "A batch arrived again with the same fingerprint, and load wrote it again. Read the transaction's number"
            " before you write. Does the commit record the fingerprint as that number?"
        )
    _call(answer, uri, first, 97, _stocks(first, 7))
    _require(lake, uri, {first: 7, middle: 10, last: 9}, "a correction with 7 rows and a larger fingerprint arrived")
    _call(answer, uri, middle, 71, _stocks(middle, 5))
    _require(lake, uri, {first: 7, middle: 5, last: 9}, "a correction with 5 rows and a smaller fingerprint arrived")
    _call(answer, uri, middle, 71, _stocks(middle, 5))
    if (writes := _writes(lake, uri)) != 5:
        raise Wrong(
            f"Five deliveries were new, and there are {writes} commits with rows. Between two commits, a reader sees a"
            " table that is neither the old nor the new one. Replace a batch in one commit, and only if it is new."
        )
    _call(answer, uri, middle, 85, _stocks(middle, 10))
    if _counts(lake, uri)[middle] != 10:
        raise Wrong(
            "A batch went back to an earlier content, and load skipped it. Compare with the fingerprint of the batch's"
            " last load."
        )
    _require_refusal(answer, lake)
    return Right("What was new was loaded, in one commit each. What another program had loaded was not overwritten.")


def _require_refusal(load: _Load, lake: Lake) -> None:
    """Raises Wrong if `load` overwrites a correction that another program loads after `load` has read the number."""
    uri, batch = _new_table(lake), "2026-01-03"
    _call(load, uri, batch, 85, _stocks(batch, 10))
    read_number = DeltaTable.transaction_version
    was_loaded: list[bool] = []

    def read_number_then_load(table: DeltaTable, app_id: str) -> int | None:
        number = read_number(table, app_id)
        if not was_loaded:
            was_loaded.append(True)
            write_deltalake(
                DeltaTable(uri, storage_options=lake.storage_options),
                _stocks(batch, 3),
                mode="overwrite",
                predicate=f"_batch = '{batch}'",
                commit_properties=CommitProperties(app_transactions=[Transaction(batch, 60)]),
            )
        return number

    with patch.object(DeltaTable, "transaction_version", read_number_then_load), suppress(Exception):
        load(uri, batch, 71, _stocks(batch, 5))
    if not was_loaded:
        raise Wrong("Use table.transaction_version(batch) to find out what is loaded. load did not call it.")
    if _counts(lake, uri) != {batch: 3}:
        raise Wrong(
            "Another program loaded a correction after load had read the number, and load overwrote it. Write with the"
            " handle that read the number, not by address or with a new handle: then the commit is refused. Let that"
            " error through."
        )


def _new_table(lake: Lake) -> str:
    uri = lake.uri("exercises", f"02.3-{secrets.token_hex(4)}")
    DeltaTable.create(uri, _TABLE, storage_options=lake.storage_options)
    return uri


def _call(load: _Load, uri: str, batch: str, fingerprint: int, rows: pa.Table) -> None:
    try:
        load(uri, batch, fingerprint, rows)
    except Exception as error:  # noqa: BLE001 - a learner's function may raise anything
        text = (str(error).splitlines() or [""])[0][:200]
        raise Wrong(f"load({batch!r}, {fingerprint}) raised {type(error).__name__}: {text}") from None


def _counts(lake: Lake, uri: str) -> dict[str, int]:
    table = DeltaTable(uri, storage_options=lake.storage_options).to_pyarrow_table(columns=["_batch"])
    return dict(Counter(table["_batch"].to_pylist()))


def _writes(lake: Lake, uri: str) -> int:
    history = DeltaTable(uri, storage_options=lake.storage_options).history()
    return sum(commit["operation"] != "CREATE TABLE" for commit in history)


def _notes(lake: Lake, uri: str) -> bool:
    names = uri.removeprefix(lake.uri("")).strip("/").split("/")
    last = DeltaTable(uri, storage_options=lake.storage_options).version()
    return "txn" in set(views.commit(lake, *names, version=last)["action"])


def _require(lake: Lake, uri: str, expected: dict[str, int], event: str) -> None:
    """Raises Wrong if the batches of a table do not have these numbers of rows."""
    counts = _counts(lake, uri)
    if not counts:
        raise Wrong("The table is empty. Does load write the rows to uri?")
    for batch, count in expected.items():
        given = counts.get(batch, 0)
        if given == 0:
            raise Wrong(
                f"After {event}, the batch {batch} is missing. Which rows does your overwrite replace? Its predicate"
                " must select one batch."
            )
        if given > count:
            old = "its old rows are still there" if "correction" in event else "its rows are in the table twice"
            raise Wrong(
                f"After {event}, the batch {batch} has {given} rows and not {count}: {old}. If the correction was"
                " skipped, compare whether the fingerprint differs, not whether it is larger or smaller. If it was"
                " appended, replace the rows instead."
            )
        if given < count:
            raise Wrong(f"After {event}, the batch {batch} has {given} rows and not {count}.")


def _rows(table: DeltaTable, columns: list[str]) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pyarrow_table(columns=columns).to_pandas()
    return frame
