"""The views of a table, against tables whose every file and commit is chosen by the test."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from lakehouse_utils.course import views
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.delta_log import MissingCommitError


def write(lake: Lake, ids: list[int], names: list[str | None] | None = None, **options: object) -> DeltaTable:
    """Append rows to `t` in one commit."""
    rows = pa.table({"id": ids, "name": names or [f"n{id}" for id in ids]})
    write_deltalake(lake.uri("t"), rows, **({"mode": "append", "storage_options": lake.storage_options} | options))
    return lake.delta("t")


def merge(table: DeltaTable, ids: list[int], names: list[str]) -> None:
    """Update rows of `table` by id, and insert those with another id."""
    source = pa.table({"id": ids, "name": names})
    merger = table.merge(source, "t.id = s.id", source_alias="s", target_alias="t")
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


def row(frame: pd.DataFrame, position: int) -> list[object]:
    """One row of a frame, by its position."""
    return frame.iloc[position].tolist()


# -- files


def test_files_after_several_commits(lake: Lake) -> None:
    """The live files are numbered by commit, and a compacted table has one file, of the compacting commit."""
    write(lake, [30, 31])
    write(lake, [10, 11, 12])
    table = write(lake, [20])
    frame = views.files(table, ["id"])
    assert list(frame.columns) == ["file", "commit", "size_kb", "rows", "min id", "max id"]
    assert frame[["file", "commit", "rows", "min id", "max id"]].values.tolist() == [
        ["part 1", 0, 2, 30, 31],
        ["part 2", 1, 3, 10, 12],
        ["part 3", 2, 1, 20, 20],
    ]
    assert (frame["size_kb"] == 1).all()
    table.optimize.compact()
    assert row(views.files(table, "id")[["file", "commit", "rows", "min id", "max id"]], 0) == ["part 1", 3, 6, 10, 31]


def test_files_of_a_partitioned_table(lake: Lake) -> None:
    """Files of one commit are numbered by their partition, which has its own column."""
    table = write(lake, [2, 1, 3], ["b", "a", "b"], partition_by=["name"])
    assert views.files(table)[["file", "name", "rows"]].values.tolist() == [["part 1", "a", 1], ["part 2", "b", 2]]


def test_files_of_a_local_table(tmp_path: Path) -> None:
    """A table in a local folder has the same views as one on S3."""
    write_deltalake(tmp_path, pa.table({"id": [1, 2]}))
    assert views.files(DeltaTable(tmp_path), "id")[["commit", "rows", "max id"]].values.tolist() == [[0, 2, 2]]


def test_files_of_an_unknown_column(lake: Lake) -> None:
    """A column that the table does not have is an error that names the table's columns."""
    with pytest.raises(LakehouseError, match=r"no column idd\. Its columns are id, name\."):
        views.files(write(lake, [1]), ["idd"])


def test_files_of_an_empty_table(lake: Lake) -> None:
    """A table without files gives an empty frame, and its commits are still shown."""
    table = write(lake, [1])
    table.delete()
    assert views.files(table, ["id"]).empty
    assert views.commits(table)["operation"].tolist() == ["WRITE", "DELETE"]


def test_files_without_statistics(lake: Lake) -> None:
    """Where the log has no statistics of a column, its min and max are empty."""
    table = write(lake, [1, 2], [None, None])
    assert pd.isna(views.files(table, ["name"])["min name"][0])


# -- objects


def test_objects_of_a_table(lake: Lake) -> None:
    """Objects are log files, live files, old files, and orphans that no commit names."""
    table = write(lake, [1, 2])
    table.delete("id = 1")
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("t", "stray.parquet"), Body=b"x" * 2600)
    frame = views.objects(lake, "t")
    assert frame["state"].tolist() == ["log", "log", "old", "live", "orphan"]
    assert frame["key"][0] == "_delta_log/00000000000000000000.json"
    assert row(frame, 4) == ["stray.parquet", 3, "orphan"]


def test_objects_of_a_table_with_encoded_paths(lake: Lake) -> None:
    """A file whose partition value has a space is live, or old, although the log URL-encodes its path."""
    table = write(lake, [1, 2], ["New York", "São Paulo"], partition_by=["name"])
    table.delete("id = 2")
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("t", "name=New%20York", "stray.parquet"), Body=b"x")
    frame = views.objects(lake, "t")
    assert frame["state"].tolist() == ["log", "log", "live", "orphan", "old"]
    assert views.files(lake.delta("t"))[["name", "commit"]].values.tolist() == [["New York", 0]]


def test_objects_of_a_folder_without_a_log(lake: Lake) -> None:
    """In a folder that is not a table every object is an orphan; a folder without objects gives an empty frame."""
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("raw", "a.csv"), Body=b"x")
    assert views.objects(lake, "raw")["state"].tolist() == ["orphan"]
    assert views.objects(lake, "nothing").empty


# -- commits


def test_commits_of_each_operation(lake: Lake) -> None:
    """Each commit is one row that says in words what the operation did to files and rows."""
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


def test_commits_of_an_older_version(lake: Lake) -> None:
    """The commits end at the version at which the table is open."""
    write(lake, [1])
    write(lake, [2])
    assert views.commits(lake.delta("t", version=0))["version"].tolist() == [0]


def test_commits_after_a_log_clean_up(lake: Lake) -> None:
    """Commits whose files are gone are missing, and the files that they added are still shown."""
    for number in range(3):
        table = write(lake, [number])
    table.create_checkpoint()
    lake.s3.delete_object(Bucket=lake.bucket, Key=lake.key("t", "_delta_log", f"{0:020}.json"))
    table = lake.delta("t")
    assert views.commits(table)["version"].tolist() == [1, 2]
    assert views.files(table, ["id"])[["file", "rows"]].values.tolist() == [["part 1", 1], ["part 2", 1], ["part 3", 1]]


def test_commit_of_a_version(lake: Lake) -> None:
    """A commit file is shown action by action, with the details of each in words."""
    write(lake, [1, 2], configuration={"delta.appendOnly": "false"})
    frame = views.commit(lake, "t")
    assert dict(frame.values.tolist()) == {
        "commitInfo": frame["details"][frame["action"] == "commitInfo"].item(),
        "protocol": "reader 1, writer 2",
        "metaData": "id long, name string; delta.appendOnly = false",
        "add": "part 1: 2 rows, 1 kB",
    }


def test_commit_json_of_a_version(lake: Lake) -> None:
    """The JSON of a commit file is the file's own text, apart from line breaks and blanks."""
    write(lake, [1, 2], configuration={"delta.appendOnly": "false"})
    text = views.commit_json(lake, "t", version=0)
    raw = lake.s3.get_object(Bucket=lake.bucket, Key=lake.key("t", "_delta_log", f"{0:020}.json"))["Body"].read()
    assert text.replace(" ", "").replace("\n", "") == raw.decode().replace(" ", "").replace("\n", "")
    assert len(text.splitlines()) > 20


def test_commit_of_a_missing_version(lake: Lake) -> None:
    """A version without a commit file is an error that names the table and the version."""
    write(lake, [1, 2])
    for view in (views.commit, views.commit_json):
        with pytest.raises(MissingCommitError, match=rf"{lake.uri('t')} has no commit file for version 7"):
            view(lake, "t", version=7)


def test_commit_with_a_transaction(lake: Lake) -> None:
    """The details of a transaction are the application and its version."""
    write(lake, [1, 2], commit_properties=CommitProperties(app_transactions=[Transaction("job", 7)]))
    assert ["txn", "job is at 7"] in views.commit(lake, "t").values.tolist()


def test_commits_with_change_data(lake: Lake) -> None:
    """Files of the change data feed are counted."""
    table = write(lake, [1, 2], configuration={"delta.enableChangeDataFeed": "true"})
    table.delete("id = 1")
    assert "change data: 1 file" in views.commits(table)["what"][1]


# -- changes


def test_changes_between_two_versions(lake: Lake) -> None:
    """Inserted, updated and deleted rows are shown in both directions, and the table stays at its version."""
    table = write(lake, [1, 2, 3, 4], ["a", "b", None, "d"])
    merge(table, [2, 3, 5], ["B", "c", "e"])
    table.delete("id = 1")
    assert views.changes(table, 0, table.version(), "id").values.tolist() == [
        [1, "deleted", "a"],
        [2, "updated", "b → B"],
        [3, "updated", "NULL → c"],
        [5, "inserted", "e"],
    ]
    backwards = views.changes(table, table.version(), 0, "id")
    assert backwards["change"].tolist() == ["inserted", "updated", "updated", "deleted"]
    assert views.changes(table, 1, 1, ["id"]).empty
    assert table.version() == lake.delta("t").version()


@pytest.fixture
def two_prices(lake: Lake) -> DeltaTable:
    """A table with two versions that differ in one price and in all values of `_batch`."""
    for batch, price in (("a", 1.5), ("b", 2.5)):
        columns = {"k": ["x", "x"], "n": [1, 2], "same": [1, 1], "_batch": [batch, batch], "price": [price, None]}
        write_deltalake(lake.uri("t"), pa.table(columns), mode="overwrite", storage_options=lake.storage_options)
    return lake.delta("t")


def test_changes_without_columns(two_prices: DeltaTable) -> None:
    """Only columns that differ are shown, without the pipeline's own columns."""
    frame = views.changes(two_prices, 0, 1, ["k", "n"])
    assert list(frame.columns) == ["k", "n", "change", "price"]
    assert frame.values.tolist() == [["x", 1, "updated", "1.5 → 2.5"]]


def test_changes_with_columns(two_prices: DeltaTable) -> None:
    """Columns that are asked for are compared, also the pipeline's own."""
    assert views.changes(two_prices, 0, 1, ["k", "n"], columns=["_batch"])["_batch"].tolist() == ["a → b", "a → b"]


def test_changes_by_columns_that_are_not_a_key(two_prices: DeltaTable) -> None:
    """A key whose values occur more than once is an error that names the version."""
    with pytest.raises(LakehouseError, match="k is not a key at version 0: a value occurs more than once"):
        views.changes(two_prices, 0, 1, "k")


# -- reads


def test_reads_where_files_are_skipped(lake: Lake) -> None:
    """A query that skips files reads fewer files and bytes with fewer requests, and the same each time."""
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
    assert json.dumps(one)


def test_reads_and_the_settings_of_the_connection(lake: Lake) -> None:
    """The connection's cache is on or off as before, also after a query that fails."""
    write(lake, [1])
    with lake.duckdb() as db:
        for cached in ("true", "false"):
            db.execute(f"SET enable_external_file_cache = {cached}")
            views.reads(db, "SELECT 1")
            assert str(db.sql("SELECT current_setting('enable_external_file_cache')").fetchone()[0]).lower() == cached
        with pytest.raises(Exception, match="nothing"):
            views.reads(db, "FROM nothing")
        assert not db.sql("SELECT current_setting('enable_external_file_cache')").fetchone()[0]


# -- readers


def test_readers_of_a_plain_table(lake: Lake) -> None:
    """Every reader reads a table without features."""
    write(lake, [1, 2])
    assert views.readers(lake, lake.uri("t")) == dict.fromkeys(
        ("delta_scan", "QueryBuilder", "to_pyarrow_table", "scan_delta"), "reads"
    )


def test_readers_of_a_table_with_column_mapping(lake: Lake) -> None:
    """A reader that returns only NULL is told apart from one that refuses the table."""
    write(lake, [1, 2], configuration={"delta.columnMapping.mode": "name"})
    assert views.readers(lake, lake.uri("t")) == {
        "delta_scan": "reads",
        "QueryBuilder": "reads",
        "to_pyarrow_table": "only NULL",
        "scan_delta": "refuses",
    }
