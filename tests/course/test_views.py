"""What a learner sees is true: held against tables whose every file and commit is known."""

import json

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from matplotlib.figure import Figure

from lakehouse_utils.course import figures, views
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake


def write(lake: Lake, ids: list[int], names: list[str | None] | None = None, **options) -> DeltaTable:
    """Append rows to `t` in one commit."""
    rows = pa.table({"id": ids, "name": names or [f"n{id}" for id in ids]})
    where = {"mode": "append", "storage_options": lake.storage_options}
    write_deltalake(lake.uri("t"), rows, **(where | options))
    return lake.delta("t")


def merge(table: DeltaTable, ids: list[int], names: list[str]) -> None:
    source = pa.table({"id": ids, "name": names})
    merger = table.merge(source, "t.id = s.id", source_alias="s", target_alias="t")
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


def row(frame: pd.DataFrame, place: int) -> list:
    return frame.iloc[place].tolist()


# -- files


def test_files_are_the_live_ones_in_a_stable_order(lake: Lake) -> None:
    write(lake, [30, 31])
    write(lake, [10, 11, 12])
    table = write(lake, [20])
    found = views.files(table, ["id"])
    assert list(found.columns) == ["file", "commit", "size_kb", "rows", "min id", "max id"]
    assert found[["file", "commit", "rows", "min id", "max id"]].values.tolist() == [
        ["part 1", 0, 2, 30, 31],
        ["part 2", 1, 3, 10, 12],
        ["part 3", 2, 1, 20, 20],
    ]
    assert (found["size_kb"] == 1).all()
    table.optimize.compact()
    assert row(views.files(table, "id")[["file", "commit", "rows", "min id", "max id"]], 0) == ["part 1", 3, 6, 10, 31]


def test_files_of_a_partitioned_table(lake: Lake) -> None:
    table = write(lake, [2, 1, 3], ["b", "a", "b"], partition_by=["name"])
    assert views.files(table)[["file", "name", "rows"]].values.tolist() == [["part 1", "a", 1], ["part 2", "b", 2]]


def test_files_of_an_empty_table_and_of_unknown_columns(lake: Lake) -> None:
    table = write(lake, [1])
    with pytest.raises(LakehouseError, match="no column idd; it has id, name"):
        views.files(table, ["idd"])
    table.delete()
    assert views.files(table, ["id"]).empty
    assert views.commits(table)["operation"].tolist() == ["WRITE", "DELETE"]


def test_files_without_statistics_have_empty_ranges(lake: Lake) -> None:
    table = write(lake, [1, 2], [None, None])
    assert pd.isna(views.files(table, ["name"])["min name"][0])


def test_objects_say_what_is_live_old_and_orphan(lake: Lake) -> None:
    table = write(lake, [1, 2])
    table.delete("id = 1")
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("t", "stray.parquet"), Body=b"x" * 2600)
    found = views.objects(lake, "t")
    assert found["state"].tolist() == ["log", "log", "old", "live", "orphan"]
    assert found["key"][0] == "_delta_log/00000000000000000000.json"
    assert row(found, 4) == ["stray.parquet", 3, "orphan"]


def test_objects_of_a_folder_that_is_no_table(lake: Lake) -> None:
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("raw", "a.csv"), Body=b"x")
    assert views.objects(lake, "raw")["state"].tolist() == ["orphan"]
    assert views.objects(lake, "nothing").empty


# -- commits


def test_commits_in_words(lake: Lake) -> None:
    table = write(lake, list(range(1000)))
    table.update(predicate="id = 1", new_values={"name": "x"})
    table.delete("id < 10")
    merge(table, [10, 2000, 2001], ["a", "b", "c"])
    table = write(lake, [3000])
    table.optimize.compact()
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert views.commits(table).values.tolist() == [
        [0, "WRITE", "+1 file; rows: 1,000 written; schema of 2 columns"],
        [1, "UPDATE", "+1 −1 files; rows: 1 updated, 999 copied"],
        [2, "DELETE", "+1 −1 files; rows: 10 deleted, 990 copied"],
        [3, "MERGE", "+1 −1 files; rows: 2 inserted, 1 updated, 989 copied"],
        [4, "WRITE", "+1 file; rows: 1 written"],
        [5, "OPTIMIZE", "+1 −2 files"],
        [6, "VACUUM START", "5 unused objects"],
        [7, "VACUUM END", "5 unused objects"],
    ]


def test_commits_end_at_the_version_that_is_open(lake: Lake) -> None:
    write(lake, [1])
    write(lake, [2])
    assert views.commits(lake.delta("t", version=0))["version"].tolist() == [0]


def test_commits_behind_a_checkpoint_and_a_clean_up(lake: Lake) -> None:
    for n in range(3):
        table = write(lake, [n])
    table.create_checkpoint()
    lake.s3.delete_object(Bucket=lake.bucket, Key=lake.key("t", "_delta_log", f"{0:020}.json"))
    table = lake.delta("t")
    assert views.commits(table)["version"].tolist() == [1, 2]
    assert views.files(table, ["id"])[["file", "rows"]].values.tolist() == [[f"part {n}", 1] for n in (1, 2, 3)]
    assert isinstance(figures.timeline(table), Figure)


def test_one_commit_in_words_and_as_it_is(lake: Lake) -> None:
    write(lake, [1, 2], configuration={"delta.appendOnly": "false"})
    found = views.commit(lake, "t")
    assert dict(found.values.tolist()) == {
        "commitInfo": found["details"][found["action"] == "commitInfo"].item(),
        "protocol": "reader 1, writer 2",
        "metaData": "id long, name string; delta.appendOnly = false",
        "add": "part 1: 2 rows, 1 kB",
    }
    text = views.commit_json(lake, "t", version=0)
    raw = lake.s3.get_object(Bucket=lake.bucket, Key=lake.key("t", "_delta_log", f"{0:020}.json"))["Body"].read()
    assert text.replace(" ", "").replace("\n", "") == raw.decode().replace(" ", "").replace("\n", "")
    assert len(text.splitlines()) > 20
    with pytest.raises(LakehouseError, match="no commit file of version 7"):
        views.commit(lake, "t", version=7)


def test_words_for_transactions_and_change_data(lake: Lake) -> None:
    from lakehouse_utils.pipeline.commits import transaction

    write(lake, [1, 2], configuration={"delta.enableChangeDataFeed": "true"}, commit_properties=transaction("job", 7))
    table = lake.delta("t")
    table.delete("id = 1")
    assert ["txn", "job is at 7"] in views.commit(lake, "t").values.tolist()
    assert "change data: 1 file" in views.commits(table)["what"][1]


# -- changes


def test_changes_between_two_versions(lake: Lake) -> None:
    table = write(lake, [1, 2, 3, 4], ["a", "b", None, "d"])
    merge(table, [2, 3, 5], ["B", "c", "e"])
    table.delete("id = 1")
    assert views.changes(table, 0, table.version(), "id").values.tolist() == [
        [1, "deleted", "a"],
        [2, "updated", "b → B"],
        [3, "updated", "NULL → c"],
        [5, "inserted", "e"],
    ]
    assert views.changes(table, table.version(), 0, "id")["change"].tolist() == [
        "inserted",
        "updated",
        "updated",
        "deleted",
    ]
    assert views.changes(table, 1, 1, ["id"]).empty
    assert table.version() == lake.delta("t").version()


def test_changes_show_what_differs_only(lake: Lake) -> None:
    one = pa.table({"k": ["x", "x"], "n": [1, 2], "same": [1, 1], "_batch": ["a", "a"], "price": [1.5, None]})
    two = pa.table({"k": ["x", "x"], "n": [1, 2], "same": [1, 1], "_batch": ["b", "b"], "price": [2.5, None]})
    for rows in (one, two):
        write_deltalake(lake.uri("t"), rows, mode="overwrite", storage_options=lake.storage_options)
    table = lake.delta("t")
    found = views.changes(table, 0, 1, ["k", "n"])
    assert list(found.columns) == ["k", "n", "change", "price"]
    assert found.values.tolist() == [["x", 1, "updated", "1.5 → 2.5"]]
    assert len(views.changes(table, 0, 1, ["k", "n"], columns=["_batch"])) == 2
    with pytest.raises(LakehouseError, match="k is no key at version 0"):
        views.changes(table, 0, 1, "k")


# -- reads


def test_reads_are_fewer_where_files_are_skipped(lake: Lake) -> None:
    for begin in (0, 50_000, 100_000):
        write(lake, list(range(begin, begin + 50_000)))
    with lake.duckdb() as db:
        scan = f"FROM delta_scan('{lake.uri('t')}')"
        everything = views.reads(db, f"SELECT max(name) {scan}")
        again = views.reads(db, f"SELECT max(name) {scan}")
        one = views.reads(db, f"SELECT * {scan} WHERE id = 70000")
    assert (everything["files"], one["files"]) == ("3 of 3", "1 of 3")
    assert (everything["rows"], one["rows"]) == (1, 1)
    assert one["requests"] < everything["requests"]
    assert one["bytes"] < everything["bytes"]
    assert (again["bytes"], again["requests"]) == (everything["bytes"], everything["requests"])
    figure = figures.compare_reads({"all": everything, "one": one})
    assert "“all” reads" in figure.get_suptitle()
    assert figures.compare_reads({"all": everything}, "A finding").get_suptitle() == "A finding"


def test_reads_leave_the_connection_as_it_was(lake: Lake) -> None:
    write(lake, [1])
    with lake.duckdb() as db:
        for cached in ("true", "false"):
            db.execute(f"SET enable_external_file_cache = {cached}")
            views.reads(db, "SELECT 1")
            assert str(db.sql("SELECT current_setting('enable_external_file_cache')").fetchone()[0]).lower() == cached
        with pytest.raises(Exception, match="nothing"):
            views.reads(db, "FROM nothing")
        assert not db.sql("SELECT current_setting('enable_external_file_cache')").fetchone()[0]


# -- figures


def test_ranges_say_whether_files_overlap(lake: Lake) -> None:
    rows = pa.table({"id": list(range(100)), "mixed": [n * 37 % 100 for n in range(100)]})
    for begin in range(0, 100, 10):
        part = rows.slice(begin, 10)
        write_deltalake(lake.uri("t"), part, mode="append", storage_options=lake.storage_options)
    left, right = figures.ranges(lake.delta("t"), "id", "mixed").axes
    assert left.get_title("left") == "id: files side by side"
    assert right.get_title("left").startswith("mixed: a value lies in ")
    assert right.get_title("left").endswith("of 10 files")


def test_ranges_of_dates_and_of_text(lake: Lake) -> None:
    rows = pa.table({"day": pd.to_datetime(["2026-01-01", "2026-01-05"]).date, "name": ["a", "b"]})
    write_deltalake(lake.uri("t"), rows, storage_options=lake.storage_options)
    table = lake.delta("t")
    assert isinstance(figures.ranges(table, "day"), Figure)
    with pytest.raises(LakehouseError, match="min name is no number and no time"):
        figures.ranges(table, "name")


def test_timeline_tells_how_many_files_live(lake: Lake) -> None:
    table = write(lake, [1, 2])
    table.delete("id = 1")
    assert figures.timeline(table).axes[0].get_title("left") == "2 commits wrote 2 files; live now: 1"


def test_timeline_of_a_file_that_a_restore_brought_back(lake: Lake) -> None:
    table = write(lake, [1, 2])
    table.delete("id = 1")
    table.restore(0)
    axes = figures.timeline(table).axes[0]
    assert axes.get_title("left") == "3 commits wrote 2 files; live now: 1"
    assert sorted((bar.get_x(), bar.get_width()) for bar in axes.patches) == [(0, 1), (1, 1), (2, 0.5)]


def test_timeline_of_many_commits(lake: Lake) -> None:
    for n in range(25):
        table = write(lake, [n])
    assert isinstance(figures.timeline(table), Figure)


def test_pictures_are_small_and_described(lake: Lake) -> None:
    figures.use_style()
    for n in range(12):
        table = write(lake, [n])
    for figure in (figures.timeline(table), figures.ranges(table, "id")):
        png, metadata = figures._png(figure)
        assert png.startswith(b"\x89PNG")
        assert len(png) < 40_000
        assert (figure.axes[0].get_title("left")) in metadata["alt"]
        assert figures._png(figure)[0] == png
    assert json.dumps(metadata)


def test_no_figure_stays_open(lake: Lake) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figures.timeline(write(lake, [1]))
    assert plt.get_fignums() == before
