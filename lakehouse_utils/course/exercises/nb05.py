"""The exercises of notebook 05: compact, choose an order, and vacuum without harm."""

import pyarrow as pa
from deltalake import DeltaTable

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise

_PAGE = 77
_MOST_READ, _FEWEST_FILES = 2, 8
_KEPT = 5  # the auditors' version


@exercise(
    "05.1",
    "Compact to one file a day",
    expects=DeltaTable,
)
def one_file_a_day(answer, lake):
    """One live file in each partition, by an OPTIMIZE, with the rows as they were."""
    table = _newest(answer, lake, "daily")
    files = views.files(table)
    if "day" not in files.columns:
        raise Wrong("The table is no longer partitioned by day: it was written anew. Compact it where it is.")
    most = int(files.groupby("day").size().max())
    touched = sum(file.commit > 5 for file in files.itertuples())
    if most > 1:
        if not touched:
            raise Wrong(f"A day still has {most} files: nothing was compacted yet, or target_size has no room for two.")
        if (files.groupby("day").size() == 1).any():
            raise Wrong(f"Some days are compacted, and another still has {most} files: compact all partitions.")
        raise Wrong(f"A day still has {most} files: is target_size smaller than a day? Leave it out.")
    done = {commit.operation for commit in views.commits(table).itertuples() if commit.version > 5}
    if "OPTIMIZE" not in done:
        raise Wrong(
            "One file a day, but the rows were written anew, so readers of changes see each as a change. Use optimize."
        )
    if table.count() != _at(lake, "daily", 5).count():
        raise Wrong("The number of rows has changed: call fresh again, and only compact.")
    if other := sorted(done - {"OPTIMIZE", "SET TBLPROPERTIES", "VACUUM START", "VACUUM END"}):
        raise Wrong(f"One file a day, but the log has a commit {other[0]} as well: call fresh again, and only compact.")
    return Right(f"{len(files)} days in {len(files)} files, and no row has changed.")


@exercise(
    "05.2",
    "Choose the column to order by",
    expects=DeltaTable,
)
def column_to_order_by(answer, lake):
    """At most two files may hold the page, by the statistics in the log."""
    table = _newest(answer, lake, "pages")
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    read = sum(add["min.page_id"] <= _PAGE <= add["max.page_id"] for add in adds)
    if len(adds) < _FEWEST_FILES:
        if table.version() <= _KEPT:
            raise Wrong(f"The table is as fresh wrote it, and the query reads {read} of {len(adds)} files: order it.")
        raise Wrong(
            f"The table has {len(adds)} file{'s' * (len(adds) != 1)} now, so there is little to skip: pass target_size."
        )
    if read <= _MOST_READ:
        return Right(f"The query reads {read} of {len(adds)} files. Only page_id has a range that rules files out.")
    said = f"The query reads {read} of {len(adds)} files"
    if read > 0.9 * len(adds):
        raise Wrong(
            f"{said}: the order follows another column than page_id, or one whose values take more bits is in the list."
        )
    raise Wrong(f"{said}. Better, but page_id shares the order with a column that this query doesn't need.")


@exercise(
    "05.3",
    "Vacuum and keep what the auditors need",
    expects=DeltaTable,
)
def vacuum_with_care(answer, lake):
    """The files of version 5 and of the newest are there, and no other data file is."""
    table = _newest(answer, lake, "archive")
    there = views.objects(lake, "exercise", "archive")
    data = set(there["key"][there["state"] != "log"])
    wanted, live = _paths(_at(lake, "archive", _KEPT)), _paths(table)
    if live - data:
        raise Wrong("The newest version has lost files. Call fresh again: vacuum never does that.")
    if wanted - data:
        raise Wrong(f"Version {_KEPT} has lost files: the auditors can't read it any more. Say which version to keep.")
    if _at(lake, "archive", _KEPT).count() <= table.count():
        raise Wrong(f"The newest version should be without the deleted rows: free files, don't go back to {_KEPT}.")
    useless = data - wanted - live
    orphans = set(there["key"][there["state"] == "orphan"])
    if useless and useless == orphans:
        raise Wrong("The crashed writer's file is still there: lite goes by the log, and no commit names that file.")
    if useless:
        raise Wrong(
            f"Data files of no use are still there: {len(useless)}. Was it a dry run, is the retention too"
            " long, or do you keep a version that nobody asked for?"
        )
    return Right(f"Version {_KEPT} and the newest can be read, and nothing else takes up room.")


def _newest(answer: DeltaTable, lake, name: str) -> DeltaTable:
    """The table exercise/`name` as it is now, if that is what the answer is."""
    if not answer.table_uri.rstrip("/").endswith(f"/exercise/{name}"):
        raise Wrong(f"That is another table: the answer should be {name}, the one that fresh gave you.")
    return lake.delta("exercise", name)


def _at(lake, name: str, version: int) -> DeltaTable:
    return lake.delta("exercise", name, version=version)


def _paths(table: DeltaTable) -> set[str]:
    return set(pa.table(table.get_add_actions(flatten=True))["path"].to_pylist())
