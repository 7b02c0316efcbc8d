"""The exercises of notebook 05: compact a table, choose its order, and vacuum it safely."""

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake

_PAGE = 77
_MOST_FILES_READ, _FEWEST_FILES = 2, 8
_NEWEST_OF_NEW_TABLE = 5  # the notebook's new_table makes six appends
_AUDITED_VERSION = 5


@exercise(
    "05.1",
    "Compact to one file per day",
    expects=DeltaTable,
)
def check_compacted_days(answer: DeltaTable, lake: Lake) -> Right:
    """One live file in each partition, made by OPTIMIZE, with the rows unchanged."""
    table = _newest(answer, lake, "daily")
    files = views.files(table)
    if "day" not in files.columns:
        raise Wrong("The table is no longer partitioned by day, because it was rewritten. Use optimize on the table.")
    most = int(files.groupby("day").size().max())
    new_files = (files["commit"] > _NEWEST_OF_NEW_TABLE).any()
    if most > 1:
        if not new_files:
            raise Wrong(
                f"A day still has {most} files. Either nothing was compacted yet, or target_size is too small for two"
                " files."
            )
        if (files.groupby("day").size() == 1).any():
            raise Wrong(f"Some days are compacted, but another day still has {most} files. Compact all partitions.")
        raise Wrong(f"A day still has {most} files. Is target_size smaller than a day? Leave it out.")
    commits = views.commits(table)
    operations = set(commits["operation"][commits["version"] > _NEWEST_OF_NEW_TABLE])
    if "OPTIMIZE" not in operations:
        raise Wrong(
            "Each day has one file, but the rows were rewritten, so readers of changes see every row as changed. Use"
            " optimize."
        )
    if table.count() != _at(lake, "daily", _NEWEST_OF_NEW_TABLE).count():
        raise Wrong("The number of rows has changed. Call new_table again, and only compact.")
    if others := sorted(operations - {"OPTIMIZE", "SET TBLPROPERTIES", "VACUUM START", "VACUUM END"}):
        raise Wrong(
            f"Each day has one file, but the log also has a commit {others[0]}. Call new_table again, and only compact."
        )
    return Right(f"{len(files)} days in {len(files)} files, and no row has changed.")


@exercise(
    "05.2",
    "Choose the column to order by",
    expects=DeltaTable,
)
def check_order(answer: DeltaTable, lake: Lake) -> Right:
    """By the statistics in the log, at most two files may hold the page."""
    table = _newest(answer, lake, "pages")
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    read = sum(add["min.page_id"] <= _PAGE <= add["max.page_id"] for add in adds)
    if len(adds) < _FEWEST_FILES:
        if table.version() <= _NEWEST_OF_NEW_TABLE:
            raise Wrong(
                f"The table is still as new_table wrote it, and the query reads {read} of {len(adds)} files. Order it."
            )
        raise Wrong(
            f"The table has {len(adds)} file{'s' * (len(adds) != 1)} now, so there is little to skip. Pass target_size."
        )
    if read <= _MOST_FILES_READ:
        return Right(f"The query reads {read} of {len(adds)} files. Only page_id has a range that excludes files.")
    result = f"The query reads {read} of {len(adds)} files"
    if read > 0.9 * len(adds):
        raise Wrong(
            f"{result}: the table is ordered by another column than page_id, or the list has a column whose values take"
            " more bits."
        )
    raise Wrong(f"{result}. That is better, but the list also has a column that this query does not need.")


@exercise(
    "05.3",
    "Vacuum and keep what the auditors need",
    expects=DeltaTable,
)
def check_vacuum(answer: DeltaTable, lake: Lake) -> Right:
    """The files of version 5 and of the newest version exist, and there is no other data file."""
    table = _newest(answer, lake, "archive")
    objects = views.objects(lake, "exercise", "archive")
    data_files = set(objects["key"][objects["state"] != "log"])
    audited_table = _audited(lake)
    audited, live = _paths(audited_table), _paths(table)
    if live - data_files:
        raise Wrong("The newest version has lost files, which vacuum never causes. Call new_table again.")
    if audited - data_files:
        raise Wrong(
            f"Version {_AUDITED_VERSION} has lost files, so the auditors can no longer read it. Name the version to"
            " keep."
        )
    if audited_table.count() <= table.count():
        raise Wrong(
            "The newest version should not have the deleted rows. Delete files, but don't restore version"
            f" {_AUDITED_VERSION}."
        )
    unneeded = data_files - audited - live
    orphans = set(objects["key"][objects["state"] == "orphan"])
    if unneeded and unneeded == orphans:
        raise Wrong(
            "The crashed writer's file is still there. A lite vacuum uses the log, and no commit names that file."
        )
    if unneeded:
        raise Wrong(
            f"Data files that are not needed are still there: {len(unneeded)}. Was it a dry run, is the retention too"
            " long, or do you keep a version that the task does not ask for?"
        )
    return Right(f"Version {_AUDITED_VERSION} and the newest version can be read, and nothing else takes up storage.")


def _newest(answer: DeltaTable, lake: Lake, name: str) -> DeltaTable:
    """The newest version of the table exercise/`name`, if the answer is that table."""
    if not answer.table_uri.rstrip("/").endswith(f"/exercise/{name}"):
        raise Wrong(f"That is a different table. The answer should be {name}, the table that new_table gave you.")
    return open_table(lake, "exercise", name)


def _audited(lake: Lake) -> DeltaTable:
    """The version that the auditors read, if the log still has it."""
    try:
        table = lake.delta("exercise", "archive", version=_AUDITED_VERSION)
    except DeltaError:
        table = None
    if table is None:
        raise Wrong(
            f"Version {_AUDITED_VERSION} cannot be opened: the log was cleaned up too, and its commits are gone. Run"
            " the cell again, and delete data files only: vacuum, without cleanup_metadata."
        )
    return table


def _at(lake: Lake, name: str, version: int) -> DeltaTable:
    return open_table(lake, "exercise", name, version=version)


def _paths(table: DeltaTable) -> set[str]:
    return {add["path"] for add in pa.table(table.get_add_actions(flatten=True)).to_pylist()}
