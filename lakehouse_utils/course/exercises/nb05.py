"""The exercises of notebook 05: predict what maintenance leaves, choose a layout by measuring, repair and vacuum."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline.sql import literal

PREDICTED = (
    9,
    2,
    5,
    frozenset({0, 1, 2, 6, 7}),
)  # of 05.1: version, live files, files in the folder, readable versions
_APPENDS = 6  # of the notebook's new_table, which make the versions 0 to 5
_FEWEST_FILES = 6  # with fewer, there is little to skip
_CUSTOMER, _PAGE = 200, 420  # as in the notebook's QUESTIONS
_CUSTOMER_QUERIES, _PAGE_QUERIES = 1_000, 9_000  # per day
_TOLERANCE = 0.05  # DuckDB rounds the bytes, and may join two requests into one
_AUDITED_VERSION = 5


@exercise("05.1", "Predict what maintenance leaves", expects=(tuple, list))
def check_prediction(answer: Any, lake: Lake) -> Right:  # noqa: ANN401, ARG001
    """The version, the live files, the files in the folder, and the readable versions after six calls."""
    version, live, in_folder, readable = _prediction(answer)
    if version != PREDICTED[0]:
        raise Wrong(_about_version(version))
    if live != PREDICTED[1]:
        raise Wrong(
            "The number of live files is not right. "
            + (
                "The append after the compactions adds a file."
                if live == 1
                else "The first compaction replaces six files by one. Which call adds or removes live files after it?"
            )
        )
    if surplus := sorted(readable - PREDICTED[3]):
        raise Wrong(
            f"Version {surplus[0]} cannot be read any more: the last vacuum deleted a file that it needs."
            if surplus[0] in (3, 4, 5)
            else f"Version {surplus[0]} was not asked for. Give those of the versions 0 to 7 that can be read."
        )
    if missing := sorted(PREDICTED[3] - readable):
        kept = "version 2 needs all its files, and they are kept" if missing[0] <= 2 else "all its files are live"
        raise Wrong(f"Version {missing[0]} can still be read: {kept}.")
    if in_folder != PREDICTED[2]:
        raise Wrong(f"The number of files in the folder is not right. {_about_folder(in_folder)}")
    return Right("The versions that can be read are those whose files are live or kept.")


def _prediction(answer: Any) -> tuple[int, int, int, set[int]]:  # noqa: ANN401
    if len(answer) != len(PREDICTED):
        raise Wrong(f"The answer has {len(answer)} values. It should have four: three numbers, and a list of versions.")
    *numbers, readable = answer
    if not all(isinstance(number, Integral) and not isinstance(number, bool) for number in numbers):
        raise Wrong("The first three values should be whole numbers: version, live files, files in the folder.")
    is_collection = isinstance(readable, Iterable) and not isinstance(readable, str)
    if not is_collection or not all(isinstance(each, Integral) for each in readable):
        raise Wrong("The last value should be a list of versions, such as [0, 1].")
    version, live, in_folder = (int(number) for number in numbers)
    return version, live, in_folder, {int(each) for each in readable}


def _about_version(version: int) -> str:
    start = f"The version is not {version}. "
    if version == 7:
        return start + "A vacuum that deletes files writes to the log, too."
    if version == 8:
        return start + "A vacuum that deletes files writes two commits: its start and its end."
    if version == 10:
        return start + "The second compaction finds nothing to do, so it makes no commit. And versions start at 0."
    if version in (11, 12):
        return start + "Without dry_run=False, vacuum only lists files, and makes no commit."
    return start + "new_table makes the versions 0 to 5. Which of the other calls make a commit?"


def _about_folder(in_folder: int) -> str:
    if in_folder == PREDICTED[1]:
        return "keep_versions=[2] keeps files, too."
    if in_folder == 8:
        return "The last vacuum deletes the files that neither the newest version nor version 2 needs."
    if in_folder == PREDICTED[1] + 1:
        return "Version 2 has the rows of three appends, and each append wrote one file."
    return "Count the live files, and the files of version 2."


@exercise("05.2", "Choose a layout by a measurement", expects=(tuple, list))
def check_layout(answer: Any, lake: Lake) -> Right:  # noqa: ANN401
    """The table that is sorted by page, and the GB that the day's queries read from it."""
    table, given = _table_and_number(answer, lake)
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    if table.version() < _APPENDS:
        raise Wrong("The table is still as new_table wrote it. Make the two layouts with z_order, then measure them.")
    if len(adds) < _FEWEST_FILES:
        files = f"{len(adds)} file{'s' * (len(adds) != 1)}"
        raise Wrong(
            f"The table has only {files}, so there is little to skip. Pass target_size=int(70_000 * SCALE) to z_order."
        )
    for_page, for_customer = (
        sum(add[f"min.{column}"] <= value <= add[f"max.{column}"] for add in adds)
        for column, value in (("page_id", _PAGE), ("customer_id", _CUSTOMER))
    )
    if for_page > 2:
        other = "a table sorted by page_id" if for_customer > 2 else "page_id, not customer_id"
        raise Wrong(
            f"In this table a page is in {for_page} of {len(adds)} files, and nine of ten queries ask for a page."
            f" Measure {other}."
        )
    page, customer = (
        _reads(lake, table, column, value) for column, value in (("page_id", _PAGE), ("customer_id", _CUSTOMER))
    )
    expected = _per_day(page, customer, "bytes") / 1e9
    if _is_close(given, expected):
        return Right(
            f"{expected:.1f} GB: a page is in {for_page} of {len(adds)} files, which outweighs that each query for a"
            f" customer reads {for_customer}."
        )
    raise Wrong(_about_number(given, page, customer))


def _table_and_number(answer: Any, lake: Lake) -> tuple[DeltaTable, float]:  # noqa: ANN401
    if len(answer) != 2:
        raise Wrong(f"The answer has {len(answer)} values. It should have two: the table, and its GB per day.")
    table, number = answer
    if isinstance(number, DeltaTable):
        raise Wrong("The values are in the wrong order: first the table, then its GB per day.")
    if not isinstance(table, DeltaTable):
        raise Wrong(f"The first value should be the table, a DeltaTable, but it is of type {type(table).__name__}.")
    if isinstance(number, bool) or not isinstance(number, Real):
        raise Wrong(f"The second value should be a number, but it is of type {type(number).__name__}.")
    return _newest(table, lake), float(number)


def _reads(lake: Lake, table: DeltaTable, column: str, value: int) -> dict[str, Any]:
    """What one query of the notebook's `measure` reads."""
    source = f"delta_scan({literal(table.table_uri)})"
    with lake.duckdb() as db:
        return views.reads(db, f"SELECT sum(seconds), max(session) FROM {source} WHERE {column} = {value}")


def _per_day(page: dict[str, Any], customer: dict[str, Any], unit: str) -> float:
    return float(_PAGE_QUERIES * page[unit] + _CUSTOMER_QUERIES * customer[unit])


def _is_close(given: float, expected: float) -> bool:
    return abs(given - expected) <= _TOLERANCE * expected


def _about_number(given: float, page: dict[str, Any], customer: dict[str, Any]) -> str:
    per_day = _per_day(page, customer, "bytes")
    per_page, per_customer = page["bytes"] / 1e9, customer["bytes"] / 1e9
    hints = {
        per_day: "That is in bytes. A GB is 1,000,000,000 bytes.",
        per_day / 1e6: "That is in MB. A GB is 1,000,000,000 bytes.",
        per_day / 2**30: "That is in GiB. A GB is 1,000,000,000 bytes.",
        _per_day(page, customer, "requests"): "That is the number of requests. Use the bytes.",
        _CUSTOMER_QUERIES * per_page
        + _PAGE_QUERIES * per_customer: "The two queries are swapped: 9,000 ask for a page.",
        5_000 * (per_page + per_customer): "Weigh the queries: 9,000 ask for a page, and 1,000 for a customer.",
        _PAGE_QUERIES * per_page: "The queries for a customer are missing. They read much more than those for a page.",
        per_page + per_customer: "That is one query of each kind. Multiply each by how often it runs per day.",
    }
    if given == round(per_day / 1e9):
        return "The table is right, and the number is rounded too much. Give at least two decimal places."
    for wrong, hint in hints.items():
        if _is_close(given, wrong):
            return f"The table is right, but not the number. {hint}"
    return "The table is right, but not the number. Was it measured on the other table, or with other queries?"


@exercise("05.3", "Find the fault, repair the table, and vacuum it", expects=DeltaTable)
def check_archive(answer: DeltaTable, lake: Lake) -> Right:
    """Each row once, without the deleted ones; the files of version 5 and of the newest version, and no other file."""
    table = _newest(answer, lake)
    if not _name(table).startswith("archive"):
        raise Wrong("That is a different table. The answer should be archive, the table that the cell makes.")
    prefix = lake.key("exercise", _name(table), "")
    data_files = {
        key
        for entry in lake.objects(prefix)
        if not (key := entry["Key"].removeprefix(prefix)).startswith("_delta_log/")
    }
    audited_table = _audited(lake, _name(table))
    audited, live = _paths(audited_table), _paths(table)
    if live - data_files:
        raise Wrong("The newest version has lost files, which vacuum never causes. Run the cell again.")
    if audited - data_files:
        raise Wrong(
            f"Version {_AUDITED_VERSION} has lost files, so the auditors can no longer read it. Is {_AUDITED_VERSION}"
            " in keep_versions?"
        )
    _require_rows(table.to_pyarrow_table(), audited_table.to_pyarrow_table())
    unneeded = data_files - audited - live
    if unneeded and all(name.startswith("part-of-a-crash") for name in unneeded):
        raise Wrong(
            "The crashed writer's file is still there. A lite vacuum uses the log, and no commit names that file."
        )
    if unneeded:
        raise Wrong(
            f"Data files that are not needed are still there: {len(unneeded)}. Was it a dry run, is the retention too"
            " long, do you keep a version that was not asked for, or did a commit come after the vacuum?"
        )
    return Right(f"Each row is there once, and only the files of version {_AUDITED_VERSION} and the newest are left.")


def _require_rows(rows: pa.Table, before: pa.Table) -> None:
    """Raise Wrong if `rows` are not the rows `before` the fault, less those that the delete removes."""
    if missing := [name for name in before.column_names if name not in rows.column_names]:
        raise Wrong(f"The table has lost the column {missing[0]}. A repair keeps all columns.")
    if surplus := [name for name in rows.column_names if name not in before.column_names]:
        raise Wrong(f"Version {_AUDITED_VERSION} has no column {surplus[0]}. A repair adds none.")
    is_deleted = pc.fill_null(pc.greater(before["seconds"], 200), fill_value=False)
    expected = before.filter(pc.invert(is_deleted))
    if len(rows) in (2 * len(expected), 2 * len(before)):
        raise Wrong("Each row is still there twice. Which commit removes files that the commit before it had removed?")
    if len(rows) == len(before):
        raise Wrong("The rows that the delete had removed are back. A restore undoes every later commit, so repeat it.")
    if len(rows) == len(expected) - expected["seconds"].null_count:
        raise Wrong("The rows without seconds are lost. NULL > 200 is not true, so the delete had kept them.")
    if len(rows) == len(expected) - pc.sum(pc.equal(expected["seconds"], 200)).as_py():
        raise Wrong("The rows with exactly 200 seconds are lost. Is 200 > 200 true?")
    if len(rows) != len(expected):
        raise Wrong(
            f"The table has {len(rows):,} rows. It should have the {len(expected):,} rows of version"
            f" {_AUDITED_VERSION} that the delete keeps, each once."
        )
    key = [("viewed_at", "ascending")]
    if not rows.select(expected.column_names).cast(expected.schema).sort_by(key).equals(expected.sort_by(key)):
        raise Wrong(
            f"The number of rows is right, but not their values. They should be the rows of version {_AUDITED_VERSION}"
            " that the delete keeps, unchanged."
        )


def _name(table: DeltaTable) -> str:
    return table.table_uri.rstrip("/").rpartition("/")[2]


def _newest(answer: DeltaTable, lake: Lake) -> DeltaTable:
    """The newest version of the answer's table, if new_table made it."""
    if answer.table_uri.rstrip("/") != lake.uri("exercise", _name(answer)):
        raise Wrong("That is a different table. Use a table that new_table made.")
    return open_table(lake, "exercise", _name(answer))


def _audited(lake: Lake, name: str) -> DeltaTable:
    """The version that the auditors read, if the log still has it."""
    try:
        table = lake.delta("exercise", name, version=_AUDITED_VERSION)
    except DeltaError:
        table = None
    if table is None:
        raise Wrong(
            f"Version {_AUDITED_VERSION} cannot be opened: the log was cleaned up too, and its commits are gone. Run"
            " the cell again, and delete data files only: vacuum, without cleanup_metadata."
        )
    return table


def _paths(table: DeltaTable) -> set[str]:
    return {add["path"] for add in pa.table(table.get_add_actions(flatten=True)).to_pylist()}
