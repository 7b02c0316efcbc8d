"""The reader of Delta logs, against tables that delta-rs writes."""

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from support.s3_gateway import Gateway

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake, delta_log
from lakehouse_utils.lake.delta_log import Action, Commit, DeltaLog, MissingCommitError

FOREIGN_TABLES = Path(__file__).parent / "foreign_tables"


def transaction(app_id: str, version: int) -> CommitProperties:
    return CommitProperties(app_transactions=[Transaction(app_id, version)])


def append(lake: Lake, *ids: int, **options: object) -> DeltaTable:
    """Append rows to `t` in one commit."""
    rows = pa.table({"id": list(ids)})
    write_deltalake(lake.uri("t"), rows, mode="append", storage_options=lake.storage_options, **options)
    return lake.delta("t")


def delete_from_log(lake: Lake, name: str) -> None:
    """Remove one file of the log of `t`, as a clean-up does."""
    lake.s3.delete_object(Bucket=lake.bucket, Key=lake.key("t", "_delta_log", name))


# -- commits


def test_parse_a_commit() -> None:
    """A commit has its actions in order, by kind, and the operation of its commitInfo."""
    text = '{"commitInfo":{"operation":"WRITE"}}\n{"add":{"path":"a"}}\n\n{"add":{"path":"b"}}\n'
    commit = Commit.parse(3, text)
    assert commit.version == 3
    assert commit.actions[1] == Action("add", {"path": "a"})
    assert [add["path"] for add in commit.of_kind("add")] == ["a", "b"]
    assert commit.operation == "WRITE"
    assert Commit.parse(3, "").operation == ""


def test_commits_read_in_both_ways(lake: Lake) -> None:
    """The log is the same, read with the lake's client and with the table's own options."""
    for number in range(12):
        table = append(lake, number)
    by_lake, by_table = DeltaLog.of_ref(lake.table("t")), DeltaLog.of_table(table)
    assert by_lake.versions() == by_table.versions() == list(range(12))
    commits = by_table.commits_up_to(9)
    assert [commit.version for commit in commits] == list(range(10))
    assert commits == list(by_lake.commits(range(10)))
    assert {commit.operation for commit in commits} == {"WRITE"}


def test_commits_of_a_local_table(tmp_path: Path) -> None:
    """The log of a table in a local folder is read as well."""
    write_deltalake(tmp_path, pa.table({"id": [1]}))
    assert [commit.operation for commit in DeltaLog.of_table(DeltaTable(tmp_path)).commits_up_to(0)] == ["WRITE"]


def test_versions_beside_other_files(lake: Lake) -> None:
    """Checkpoints and files of a clean-up are not commits, and a removed commit is missing."""
    for number in range(3):
        table = append(lake, number)
    table.create_checkpoint()
    delete_from_log(lake, f"{0:020}.json")
    assert DeltaLog.of_ref(lake.table("t")).versions() == DeltaLog.of_table(table).versions() == [1, 2]


def test_a_missing_commit(lake: Lake) -> None:
    """A commit without a file is an error with the table and the version, also after pickle."""
    table = append(lake, 1)
    for log in (DeltaLog.of_ref(lake.table("t")), DeltaLog.of_table(table)):
        with pytest.raises(MissingCommitError, match="no commit file for version 7") as info:
            log.commit(7)
        with pytest.raises(MissingCommitError):
            list(log.commits([0, 7]))
    error = pickle.loads(pickle.dumps(info.value))
    assert (error.uri, error.version, str(error)) == (lake.uri("t"), 7, str(info.value))


# -- how far a load has got


def test_progress_of_several_applications(lake: Lake) -> None:
    """The last version of each application is found, and None for one that never committed."""
    for number in range(3):
        table = append(lake, number, commit_properties=transaction("a", number))
    table = append(lake, 9, commit_properties=transaction("b", 40))
    of = delta_log.transactions(lake.table("t"), table).get
    for app_id, version in (("a", 2), ("b", 40), ("c", None)):
        assert of(app_id) == table.transaction_version(app_id) == version


def test_progress_of_no_table(lake: Lake) -> None:
    """A table that does not exist has no progress."""
    assert delta_log.transactions(lake.table("t"), None).get("a") is None


@pytest.mark.parametrize("clean_up", [False, True])
def test_progress_after_a_checkpoint(lake: Lake, clean_up: bool) -> None:
    """Transactions before the checkpoint are read from it, so their commit files may be gone."""
    for number in range(2):
        table = append(lake, number, commit_properties=transaction("a", number))
    table.create_checkpoint()
    table = append(lake, 9, commit_properties=transaction("b", 40))
    if clean_up:
        delete_from_log(lake, f"{0:020}.json")
    of = delta_log.transactions(lake.table("t"), table).get
    assert (of("a"), of("b")) == (1, 40)


def test_progress_of_an_older_version(lake: Lake) -> None:
    """A table that is open at a version before the checkpoint has the progress of that version."""
    append(lake, 1, commit_properties=transaction("a", 1))
    append(lake, 2, commit_properties=transaction("a", 2)).create_checkpoint()
    assert delta_log.transactions(lake.table("t"), lake.delta("t", version=0)).get("a") == 1


def test_progress_when_the_log_is_refused(lake: Lake, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that may not be read is an error of the lake, and not silently no progress."""
    append(lake, 1, commit_properties=transaction("a", 1))
    for name, value in gateway.environment(gateway.issue()).items():
        monkeypatch.setenv(name, value)
    behind = Lake.open(lake.root)
    table = behind.delta("t")
    gateway.answer(f"/{lake.bucket}/{lake.key('t', '_delta_log', '')}", 403, "AccessDenied")
    with pytest.raises(LakehouseError, match="Could not read the log of t"):
        delta_log.transactions(behind.table("t"), table)


# -- files


def test_live_files_with_letters_beyond_ascii(lake: Lake) -> None:
    """The addresses are those of the objects, without percent signs."""
    write_deltalake(lake.uri("ö"), pa.table({"id": [1]}), storage_options=lake.storage_options)
    (uri,) = delta_log.live_files(lake.table("ö"), lake.delta("ö"))
    assert uri.startswith(lake.uri("ö"))
    assert lake.duckdb().sql(f"FROM read_parquet('{uri}')").fetchall() == [(1,)]


def test_is_empty(lake: Lake) -> None:
    """A table without files, or that does not exist, is empty."""
    table = append(lake, 1)
    assert not delta_log.is_empty(table)
    table.delete()
    assert delta_log.is_empty(table)
    assert delta_log.is_empty(None)


# -- deletion vectors


@pytest.mark.parametrize("name", ["vectors_delete", "vectors_partition", "vectors_checkpoint"])
def test_deletion_vector_path_is_a_file(name: str) -> None:
    """The path that is decoded from the log is that of a file beside the data files."""
    log = DeltaLog.of_table(table := DeltaTable(FOREIGN_TABLES / name)).commits_up_to(table.version())
    paths = {delta_log.deletion_vector_path(add) for commit in log for add in commit.of_kind("add")} - {None}
    assert paths
    for path in paths:
        assert (FOREIGN_TABLES / name / path).is_file()


def test_deletion_vector_path_of_other_actions() -> None:
    """A vector in the log itself has no file, and an action without a vector has none either."""
    assert delta_log.deletion_vector_path({"path": "a"}) is None
    inline = {"storageType": "i", "pathOrInlineDv": "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"}
    assert delta_log.deletion_vector_path({"path": "a", "deletionVector": inline}) is None


def test_live_add_actions_of_a_foreign_table() -> None:
    """Deleted rows are not counted, and the result can be shown."""
    adds = delta_log.live_add_actions(DeltaTable(FOREIGN_TABLES / "vectors_delete"))
    expected = json.loads((FOREIGN_TABLES / "expected.json").read_text(encoding="utf-8"))
    assert sum(add["num_records"] for add in adds) == len(expected["vectors_delete"])
