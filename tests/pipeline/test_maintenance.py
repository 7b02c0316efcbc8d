"""Maintenance makes tables faster and smaller, changes no row, and can run beside anything."""

import datetime as dt
import itertools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from support import crashes, expected, growth, lakes
from support.selected import slow_but

from lakehouse_utils.errors import DamagedTableError, FailedTablesError, SettingError
from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.delta_log import DeltaLog
from lakehouse_utils.pipeline import compaction_plan, maintenance, rewrite, sources
from lakehouse_utils.pipeline.context import NoProgress
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.maintenance import Options
from lakehouse_utils.pipeline.report import MaintenanceReport, TableMaintenance
from lakehouse_utils.pipeline.run import Selection

FOREIGN_TABLES = Path(__file__).parents[1] / "lake" / "foreign_tables"
NO_LEASE = Options(lease_s=None)


class Recorder(NoProgress):
    """What a maintenance says: its notes, and a line for each table."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lines: dict[str, str] = {}
        self.failed: list[str] = []
        self.before_table: Callable[[str], None] = lambda _: None

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        self.before_table(f"{layer}.{table}")

    def on_table_maintained(self, layer: str, table: str, done: TableMaintenance) -> None:
        self.lines[f"{layer}.{table}"] = str(done)

    def on_table_failed(self, layer: str, table: str) -> None:
        self.failed.append(f"{layer}.{table}")

    def on_note(self, sentence: str) -> None:
        self.notes.append(sentence)


class Years:
    """A lake with many small files that only this test uses, its raw files, the job and the maintenance."""

    def __init__(self, lake: Lake, folder: Path) -> None:
        self.lake, self.folder = lake, folder
        self.described = folder / "sources.toml"
        self.said = Recorder()

    def job(self, engine: LocalEngine | None = None, **selected: tuple[str, ...]) -> lakes.RunReport:
        selected = {"layers": growth.LAYERS} | selected
        return lakes.job(self.lake, self.folder / "landing", self.described, engine=engine, **selected)

    def maintain(self, options: Options = NO_LEASE, said: Recorder | None = None) -> MaintenanceReport:
        self.said = said or Recorder()
        return maintenance.maintain(self.lake, sources.load(self.described), self.said, options)

    def deliver(self, number: int = growth.DAYS, *, late: bool = True) -> None:
        growth.deliver(self.folder, number, late=late)

    def require_expected(self) -> None:
        assert lakes.unlike(self.lake, expected.tables(self.folder / "landing", self.described)) == {}

    def files(self) -> dict[str, int]:
        return {name: len(table.file_uris()) for name, table in lakes.opened(self.lake)}

    def objects(self) -> dict[str, str]:
        return {entry["Key"]: entry["ETag"] for entry in self.lake.objects(self.lake.key(""))}

    def set_properties(self, label: str, **properties: str) -> None:
        table = self.lake.delta(*label.split("."))
        table.alter.set_table_properties({f"delta.{name}": value for name, value in properties.items()})


@pytest.fixture
def years(s3_server, s3_state_dir: Path, lake: Lake, tmp_path: Path) -> Years:
    original, folder = growth.grown(s3_server, s3_state_dir)
    lakes.copy(original, lake)
    shutil.copytree(folder, tmp_path / "years")
    return Years(lake, tmp_path / "years")


@pytest.fixture
def old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that no commit names, and checkpoints, are old at once."""
    monkeypatch.setattr(maintenance, "_MIN_ORPHAN_AGE", dt.timedelta())
    monkeypatch.setattr(maintenance, "_SETTLED", dt.timedelta())
    server_time = maintenance.server_time
    monkeypatch.setattr(maintenance, "server_time", lambda lake: server_time(lake) + dt.timedelta(minutes=1))


@pytest.fixture
def a_month_later(old_enough: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maintenance runs 31 days later; delta-rs does not, and would clean up the log with its next commit."""
    server_time = maintenance.server_time
    monkeypatch.setattr(maintenance, "server_time", lambda lake: server_time(lake) + dt.timedelta(days=31))


# -- compaction


def test_compaction_changes_no_row_and_a_second_maintenance_does_nothing(years):
    """Small files become one per table, with the same rows; then there is nothing to do, and nothing is written."""
    contents, before = lakes.contents(years.lake), years.files()
    assert {name: count for name, count in before.items() if count < growth.DAYS} == {}
    report = years.maintain(Options())
    assert years.files() == dict.fromkeys(growth.TABLES, 1)
    assert lakes.contents(years.lake) == contents
    assert {name: (done.files_before, done.files_after) for name, done in report.tables.items()} == {
        name: (count, 1) for name, count in before.items()
    }
    versions = lakes.versions(years.lake)
    assert {name: done.version for name, done in report.tables.items()} == versions

    objects = years.objects()
    again = years.maintain(Options())
    assert all(done.is_idle for done in again.tables.values())
    assert set(years.said.lines.values()) == {"nothing to do"}
    changed = {key for key, etag in years.objects().items() if objects.get(key) != etag}
    assert changed == {years.lake.key("_pipeline", "maintenance.lease")}


def test_compacted_files_are_sorted_and_have_statistics(years):
    """Silver is sorted by its key, bronze by load, and the log has their ranges, as skipping and late rows need."""
    years.maintain()
    ordered = {
        "silver.t": ["k"],
        "silver.t_history": ["k", "valid_from"],
        "bronze.t": ["_batch", "_source_file", "_source_line"],
        "quarantine.t": ["_ingested_at", "_source_line"],
    }
    for name, columns in ordered.items():
        rows = lakes.rows(years.lake.delta(*name.split(".")))
        keys = [tuple(row[column] for column in columns if row[column] is not None) for row in rows]
        assert keys == sorted(keys), name
    (silver,) = pa.table(years.lake.delta("silver", "t").get_add_actions(flatten=True)).to_pylist()
    assert (silver["min.k"], silver["max.k"], silver["num_records"]) == (0, 93, 40)
    (bronze,) = pa.table(years.lake.delta("bronze", "t").get_add_actions(flatten=True)).to_pylist()
    assert (bronze["min._batch"], bronze["max._batch"]) == ("2026-01-01", "2026-01-10")
    assert (bronze["min.v"], bronze["max.v"]) == ("bad", "v3"), "a reader that skips by some columns needs all"


def test_job_after_maintenance_does_nothing_and_then_reads_only_what_is_new(years):
    """The job is idle after a maintenance, and then reads a new batch with late rows, and no earlier row again."""
    years.maintain()
    versions = lakes.versions(years.lake)
    assert not years.job().changed_anything
    assert lakes.versions(years.lake) == versions
    years.deliver()
    report = years.job()
    assert {name: counts.rebuilt for name, counts in report.rows.items() if counts.rebuilt} == {}
    assert report.rows["silver.t"].read == 8  # the rows of the new file
    years.require_expected()


def test_files_of_bronze_that_silver_has_not_read_stay(years):
    """Silver reads new files of bronze by their names, so they are compacted only after that."""
    for number in range(growth.DAYS, 2 * growth.DAYS):
        years.deliver(number, late=False)
    years.job(layers=("bronze",))
    new = set(years.lake.delta("bronze", "t").file_uris())
    years.maintain()
    assert len(years.lake.delta("bronze", "t").file_uris()) == growth.DAYS + 1
    assert len(new & set(years.lake.delta("bronze", "t").file_uris())) == growth.DAYS
    report = years.job()
    assert report.rows["silver.t"].read == growth.DAYS * 5
    assert report.rows["silver.t"].rebuilt is None
    years.maintain()
    years.require_expected()
    assert years.files()["bronze.t"] <= 2


def test_planned_groups_pay_and_end():
    """Few or large files are left as they are; many small ones become few; what a plan leaves is not planned again."""
    layout = rewrite.Layout(8 << 20)

    def plan(*sizes: int) -> list[list[int]]:
        files = [rewrite.LiveFile(f"part-{i}.parquet", size, i) for i, size in enumerate(sizes)]
        return [[file.size_bytes for file in group] for group in compaction_plan.plan_rewrites(files, layout)]

    few, small, large = 8, 1_000, 3 << 20
    assert plan(*[small] * few) == []
    assert plan(*[small] * (few + 1)) == [[small] * (few + 1)]
    assert plan(*[8 << 20] * 100) == []
    assert plan(*[large] * 100) == [], "rewriting 3 MB for each file that disappears does not pay"
    assert plan(*[small] * 9, large) == [[small] * 9 + [large]]
    assert plan(*[small] * 9, *[large] * 30) == [[small] * 9 + [large] * 9]
    assert [len(group) for group in plan(*[1 << 20] * 300)] == [128, 128, 44]
    assert [len(group) for group in plan(*[small] * 4_001)] == [2_000, 2_000]


# -- races


class MaintainingEngine(LocalEngine):
    """The local engine; a maintenance runs just before one of its commits, after it has opened the table."""

    def __init__(self, years: Years) -> None:
        super().__init__(years.lake)
        self._years = years
        self._lock = threading.Lock()
        self.maintained: list[str] = []

    def helpers(self) -> list["MaintainingEngine"]:
        return []  # every step goes through this engine

    def _maintain(self, step: str) -> None:
        if step not in self.maintained:
            self.maintained.append(step)
            report = self._years.maintain()
            assert all(done.left_alone is None for done in report.tables.values())

    def upload_files(self, *args: Any) -> Iterator[Any]:
        for uploaded in super().upload_files(*args):
            self._maintain("append to bronze")
            yield uploaded

    def write_files(self, ref: TableRef, sql: str) -> list[Any]:
        files = super().write_files(ref, sql)
        self._maintain("append to quarantine")
        return files

    def merge(self, target: Any, *args: Any) -> Any:
        self._maintain(f"merge into {target.table.table_uri.rstrip('/').rsplit('/', 1)[-1]}")
        return super().merge(target, *args)

    def fill_table(self, ref: TableRef, *args: Any) -> DeltaTable:
        self._maintain(f"fill {ref.label}")
        return super().fill_table(ref, *args)


def test_job_whose_tables_are_compacted_before_each_of_its_commits(years):
    """The job's appends and merges, based on the versions before a compaction, are refused and made again."""
    years.deliver()
    engine = MaintainingEngine(years)
    years.job(engine)
    assert engine.maintained == ["append to bronze", "merge into t_history", "append to quarantine", "merge into t"]
    years.require_expected()
    require_no_double_rewrite(years)


STEPS = ["append to bronze", "append to quarantine", "merge into t", "merge into t_history"]


@pytest.mark.parametrize("step", slow_but(["merge into t"], STEPS, slow=["append to quarantine"]))
def test_job_with_a_compaction_before_one_commit(years, step):
    """Also if a table has many small files at just that moment."""
    years.deliver()
    engine = MaintainingEngine(years)
    engine.maintained = [other for other in STEPS if other != step]
    years.job(engine)
    assert engine.maintained[-1] == step
    years.require_expected()
    require_no_double_rewrite(years)


def test_rebuild_by_overwrite_with_a_compaction_before_its_commit(years):
    """A stale overwrite must not keep the compacted rows beside its own."""
    engine = MaintainingEngine(years)
    years.job(engine, rebuild=("silver.t", "silver.t_history"))
    assert {"fill silver.t", "fill silver.t_history"} <= set(engine.maintained)
    years.require_expected()
    require_no_double_rewrite(years)


@pytest.mark.slow
def test_compaction_with_the_job_before_each_of_its_commits(years, monkeypatch):
    """A compaction of a table that has changed in the meantime is not committed, and is planned again."""
    original, refused = rewrite._put_commit, []

    def commit_after_the_job(ref: TableRef, *args: Any) -> Any:
        if ref.label not in refused:
            years.deliver(growth.DAYS + len(refused))
            years.job()
            etag = original(ref, *args)
            refused.append(ref.label)
            assert etag is None, ref.label
            return etag
        return original(ref, *args)

    monkeypatch.setattr(rewrite, "_put_commit", commit_after_the_job)
    years.maintain()
    assert set(refused) == set(growth.TABLES)
    years.require_expected()
    require_no_double_rewrite(years)
    names = {entry["Key"].rsplit("/", 1)[-1] for entry in years.lake.objects(years.lake.key("silver", "t", ""))}
    in_log = {
        add["path"]
        for commit in DeltaLog.of_ref(years.lake.table("silver", "t")).commits_up_to(99)
        for add in commit.of_kind("add")
    }
    assert {name for name in names if name.endswith(".parquet") and "checkpoint" not in name} <= in_log


@pytest.mark.slow
def test_maintenance_within_a_maintenance(years, monkeypatch):
    """Of two compactions of one version, one is committed; the other finds nothing left to do."""
    original, entered = rewrite._put_commit, []

    def commit_after_another(ref: TableRef, *args: Any) -> Any:
        if ref.label not in entered:
            entered.append(ref.label)
            years.maintain(Options(Selection(tables=(ref.names[-1],)), lease_s=None))
        return original(ref, *args)

    contents = lakes.contents(years.lake)
    monkeypatch.setattr(rewrite, "_put_commit", commit_after_another)
    years.maintain()
    assert years.files() == dict.fromkeys(growth.TABLES, 1)
    assert lakes.contents(years.lake) == contents
    require_no_double_rewrite(years)


def test_a_commit_that_s3_refuses_while_it_is_still_written_is_not_undone(years):
    """S3 answers 409 to a repeated request while it still works on the first one, which then succeeds."""
    key = years.lake.key("silver", "t", "_delta_log", "")
    slow_requests: list[threading.Thread] = []

    def answer_409(params: dict[str, Any], **_: object) -> object:
        path = params["url_path"].lstrip("/")
        if slow_requests or not path.startswith(key) or not path.endswith(".json"):
            return None
        body = params["body"].read()
        params["body"].seek(0)

        def write() -> None:
            time.sleep(0.1)
            client = years.lake.session.client("s3", endpoint_url=years.lake.endpoint, region_name=years.lake.region)
            client.put_object(Bucket=years.lake.bucket, Key=path, Body=body, IfNoneMatch="*")

        slow_requests.append(threading.Thread(target=write))
        slow_requests[0].start()
        error = {"Error": {"Code": "ConditionalRequestConflict"}, "ResponseMetadata": {"HTTPStatusCode": 409}}
        return SimpleNamespace(status_code=409), error

    contents = lakes.contents(years.lake)
    years.lake.s3.meta.events.register("before-call.s3.PutObject", answer_409)
    years.maintain(Options(Selection(layers=("silver",)), lease_s=None))
    slow_requests[0].join()
    assert years.files()["silver.t"] == 1
    assert lakes.contents(years.lake) == contents


def test_a_table_that_was_rebuilt_meanwhile_is_not_compacted_by_its_old_files(years):
    """Its commit is refused, and what is planned again sees the new files."""
    old, is_done = rewrite._upload, []

    def rebuild_first(ref: TableRef, *arguments: Any) -> None:
        if ref.label == "bronze.t" and not is_done:
            is_done.append(True)
            years.job(rebuild=("bronze.t",))
        old(ref, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rewrite, "_upload", rebuild_first)
        years.maintain()
    years.require_expected()
    require_no_double_rewrite(years)


def test_two_maintenances_and_the_job_at_once(years):
    """Started at the same time, without the lease, all of them succeed, and the tables are right."""
    years.deliver()
    barrier, errors = threading.Barrier(3), []

    def start(action: Callable[[], object]) -> None:
        try:
            barrier.wait()
            action()
        except Exception as error:  # noqa: BLE001 - the test shows it
            errors.append(error)

    described = sources.load(years.described)
    maintain = [lambda: maintenance.maintain(years.lake, described, Recorder(), NO_LEASE)] * 2
    threads = [threading.Thread(target=start, args=(action,)) for action in [*maintain, years.job]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    years.require_expected()
    require_no_double_rewrite(years)


STALE = {
    "compact": lambda table: table.optimize.compact(),
    "z_order": lambda table: table.optimize.z_order(["k"]),
    "overwrite": lambda table: write_deltalake(table, table.to_pyarrow_table(), mode="overwrite"),
    "overwrite a part": lambda table: write_deltalake(
        table, table.to_pyarrow_table().filter(pa.compute.field("k") == 1), mode="overwrite", predicate="k = 1"
    ),
    "append": lambda table: write_deltalake(table, table.to_pyarrow_table(), mode="append"),
    "delete": lambda table: table.delete("k = 1"),
    "update": lambda table: table.update(predicate="k = 1", new_values={"n": 5}),
    "merge": lambda table: (
        table.merge(table.to_pyarrow_table(), "t.k = s.k + 1000", source_alias="s", target_alias="t")
        .when_not_matched_insert_all()
        .execute()
    ),
    "restore": lambda table: table.restore(2),
    "change a property": lambda table: table.alter.set_table_properties({"delta.checkpointInterval": "7"}),
}


@pytest.mark.parametrize("name", slow_but(["compact", "append", "delete"], STALE, slow=["merge", "restore"]))
def test_stale_commit_of_another_program_is_refused(years, name):
    """What anyone does with a table that was opened before a compaction fails, instead of doubling rows."""
    contents, stale = lakes.contents(years.lake), years.lake.delta("silver", "t")
    years.maintain()
    version = years.lake.delta("silver", "t").version()
    with pytest.raises(CommitFailedError):
        STALE[name](stale)
    assert years.lake.delta("silver", "t").version() == version
    assert lakes.contents(years.lake) == contents
    STALE[name](years.lake.delta("silver", "t"))  # it succeeds with the new version


def test_readers_of_an_old_version_go_on_reading(years):
    """A table that a reader has open keeps its files, whatever a maintenance does."""
    old = years.lake.delta("silver", "t")
    before = sorted(row["k"] for row in lakes.rows(old))
    with years.lake.duckdb() as connection:
        connection.execute(f"ATTACH '{old.table_uri}' AS silver (TYPE delta, VERSION {old.version()})")
        assert connection.sql("SELECT count(*) FROM silver").fetchall() == [(40,)]
        years.maintain()
        years.deliver()
        years.job()
        years.maintain()
        assert sorted(k for (k,) in connection.sql("SELECT k FROM silver").fetchall()) == before
    assert sorted(row["k"] for row in lakes.rows(old)) == before
    assert sorted(row["k"] for row in lakes.rows(years.lake.delta("silver", "t", version=old.version()))) == before


def require_no_double_rewrite(years: Years) -> None:
    """The check that finds doubled rows finds none, and so does another maintenance."""
    years.lake.s3.delete_object(Bucket=years.lake.bucket, Key=years.lake.key("_pipeline", "maintenance.json"))
    report = years.maintain()
    assert report.failed == {} and set(report.tables) == set(growth.TABLES)


# -- killed maintenances


@pytest.mark.parametrize("first", slow_but([], [1, 2], slow=[2]), ids=["odd", "even"])
def test_maintenance_killed_before_any_of_its_writes_is_completed_by_the_next(
    years, s3_server, s3_state_dir, keys, prefix, tmp_path, first
):
    """Killed before every second write, from `first` on; then another maintenance, and the job with one more batch."""
    for name in growth.TABLES:
        short = {"deletedFileRetentionDuration": "interval 0 seconds", "logRetentionDuration": "interval 0 seconds"}
        years.set_properties(name, **short)
    years.deliver(late=False)
    years.job()
    for name in growth.TABLES:
        years.lake.delta(*name.split(".")).create_checkpoint()
    years.deliver(growth.DAYS + 1)
    described, output = sources.load(years.described), tmp_path / "output"
    wanted = expected.tables(years.folder / "landing", years.described)
    with crashes.Proxy.to(s3_server.endpoint) as proxy:
        for number in itertools.count(first, 2):
            lake = lakes.at(f"{prefix}-{number}", s3_state_dir)
            lakes.copy(years.lake, lake)
            code = proxy.run(number, ["--maintain", "--lake", lake.root, "--sources", years.described], keys, output)
            maintenance.maintain(lake, described, Recorder(), NO_LEASE)
            lakes.job(lake, years.folder / "landing", years.described, layers=growth.LAYERS)
            assert lakes.unlike(lake, wanted) == {}, f"killed before write {number}"
            if code == 0:
                break
            assert code == -9, output.read_text()
        assert number > 12, output.read_text()
        assert output.read_text().count("old files deleted") == 4, output.read_text()


# -- vacuum, orphans, the log


def test_files_are_kept_for_the_retention(years):
    """With the default retention of 7 days nothing is deleted, neither what was compacted nor what no commit names."""
    objects = set(years.objects())
    years.lake.s3.put_object(Bucket=years.lake.bucket, Key=years.lake.key("silver", "t", "part-x.parquet"), Body=b"x")
    years.maintain()
    assert objects | {years.lake.key("silver", "t", "part-x.parquet")} <= set(years.objects())
    assert lakes.rows(years.lake.delta("silver", "t", version=3))


def test_removed_and_orphaned_files_are_deleted_after_the_retention(years, old_enough):
    """What the current version and the retention do not need is deleted, and nothing else that is in the folder."""
    years.maintain()
    contents = lakes.contents(years.lake)
    years.set_properties("silver.t", deletedFileRetentionDuration="interval 0 seconds")
    orphan = "part-00000-0f5b1c9e-orphan.parquet"
    others = ["notes.txt", "_change_data/cdc-1.parquet", "folder/part-1.parquet", "deletion_vector_1.bin"]
    for name in [orphan, *others]:
        years.lake.s3.put_object(Bucket=years.lake.bucket, Key=years.lake.key("silver", "t", name), Body=b"x" * 100)
    dry = years.maintain(Options(dry_run=True)).tables["silver.t"]
    done = years.maintain().tables["silver.t"]
    assert (done.removed_files, done.orphaned_files, done.orphaned_bytes) == (growth.DAYS, 1, 100)
    assert (dry.removed_files, dry.removed_bytes, dry.orphaned_files) == (done.removed_files, done.removed_bytes, 1)
    prefix = years.lake.key("silver", "t", "")
    left = {key.removeprefix(prefix) for key in years.objects() if key.startswith(prefix)}
    (live,) = pa.table(years.lake.delta("silver", "t").get_add_actions(flatten=True))["path"].to_pylist()
    assert {name for name in left if not name.startswith("_delta_log")} == {live, *others}
    assert lakes.contents(years.lake) == contents
    assert years.maintain().tables["silver.t"].is_idle


def test_young_orphans_are_kept_whatever_the_retention_is(years):
    """A running job may have uploaded a file that it has not committed yet: it is kept for at least a day."""
    years.set_properties("silver.t", deletedFileRetentionDuration="interval 0 seconds")
    orphan = years.lake.key("silver", "t", "part-in-flight.parquet")
    years.lake.s3.put_object(Bucket=years.lake.bucket, Key=orphan, Body=b"x")
    years.maintain()
    years.maintain()
    assert orphan in years.objects()


def test_files_of_a_log_that_was_set_aside_are_kept(years, old_enough, monkeypatch):
    """After --rebuild of a damaged bronze, the files of the old table are kept as long as it could be needed."""
    log = years.lake.key("bronze", "t", "_delta_log", f"{years.lake.delta('bronze', 't').version():020}.json")
    years.lake.s3.put_object(Bucket=years.lake.bucket, Key=log, Body=b"damaged")
    years.job(rebuild=("bronze.t",))
    contents, objects = lakes.contents(years.lake), set(years.objects())
    years.maintain()
    assert objects <= set(years.objects())
    years.set_properties("bronze.t", deletedFileRetentionDuration="interval 0 seconds")
    assert years.maintain().tables["bronze.t"].orphaned_files == growth.DAYS
    assert lakes.contents(years.lake) == contents


def test_log_is_cleaned_up_to_a_checkpoint_and_keeps_what_the_next_run_needs(years, a_month_later):
    """Old commits are deleted, and the job still goes on from what its tables cover, and knows the loaded files."""

    def checkpoint() -> None:
        for name in growth.TABLES:
            years.lake.delta(*name.split(".")).create_checkpoint()

    checkpoint()
    for number in range(growth.DAYS, growth.DAYS + 3):
        years.deliver(number)
    years.job(layers=("bronze",))
    checkpoint()
    silver, bronze = (DeltaLog.of_ref(years.lake.table(layer, "t")) for layer in ("silver", "bronze"))
    first_checkpoint = years.lake.delta("silver", "t").version()
    dry = years.maintain(Options(dry_run=True))
    report = years.maintain()
    for name, log in (("silver.t", silver), ("bronze.t", bronze)):
        assert report.tables[name].log_files == dry.tables[name].log_files >= growth.DAYS, name
        assert log.versions()[0] == first_checkpoint, "bronze has a later one, but silver does not cover that"
    run = years.job()
    assert {name: counts.rebuilt for name, counts in run.rows.items() if counts.rebuilt} == {}
    assert run.rows["bronze.t"].read == 0
    assert run.rows["silver.t"].read == 3 * 8
    years.require_expected()
    years.maintain()
    assert bronze.versions()[0] == bronze.checkpoint_version(), "silver covers it now"
    assert not years.job().changed_anything
    years.require_expected()


def test_checkpoint_that_would_cost_needed_commits_is_not_written(years, a_month_later, monkeypatch):
    """delta-rs cleans up the log when it writes a checkpoint; it must not delete what silver has not covered."""
    monkeypatch.setattr(maintenance, "CHECKPOINT_COMMITS", 2)
    for number in range(growth.DAYS, growth.DAYS + 3):
        years.deliver(number)
    years.job(layers=("bronze",))
    report = years.maintain()
    assert report.tables["bronze.t"].checkpoint is None
    years.job()
    years.require_expected()


def test_log_is_kept_for_time_travel(years, old_enough):
    """With the default retention of 30 days all versions can still be read."""
    for name in growth.TABLES:
        years.lake.delta(*name.split(".")).create_checkpoint()
    assert all(done.log_files == 0 for done in years.maintain().tables.values())
    assert lakes.rows(years.lake.delta("silver", "t", version=2))


def test_checkpoint_is_written_once_after_many_commits(years, monkeypatch):
    """A table with many commits since the last checkpoint gets one, which has the transactions of all loaded files."""
    monkeypatch.setattr(maintenance, "CHECKPOINT_COMMITS", 5)
    for key in [key for key in years.objects() if "checkpoint" in key]:  # as in tables of an earlier version
        years.lake.s3.delete_object(Bucket=years.lake.bucket, Key=key)
    report = years.maintain()
    assert all(done.checkpoint == done.version for done in report.tables.values())
    table = years.lake.delta("bronze", "t")
    assert DeltaLog.of_ref(years.lake.table("bronze", "t")).checkpoint_version() == table.version()
    assert table.transaction_version("landing:2026-01-01/t.csv") is not None
    assert all(done.is_idle for done in years.maintain().tables.values())
    assert not years.job().changed_anything


# -- dry run, selection, failures


def test_dry_run_writes_nothing(years, s3_server, keys, tmp_path):
    """With --dry-run the command shows per table what would be done, and sends no writing request."""
    objects, output, report = years.objects(), tmp_path / "output", tmp_path / "report.json"
    arguments = ["--maintain", "--dry-run", "--lake", years.lake.root, "--sources", years.described]
    with crashes.Proxy.to(s3_server.endpoint) as proxy:
        assert proxy.run(None, [*arguments, "--report", report], keys, output) == 0, output.read_text()
        assert proxy.writes == 0
    assert years.objects() == objects
    lines = output.read_text().splitlines()
    assert f"silver.t: {growth.DAYS} -> 1 file" in lines
    assert (
        lines[-1] == f"Nothing was changed. Without --dry-run: {5 * growth.DAYS - 4} fewer files to read, 0.0 MB freed."
    )
    written = json.loads(report.read_text())
    assert (written["status"], written["exit_code"], written["dry_run"]) == ("ok", 0, True)
    assert written["tables"]["bronze.t"]["files_before"] == growth.DAYS


def test_command_maintains_and_reports(years, keys, tmp_path):
    """The command prints a line per table, writes the report, and exits with 0; the second time it is idle."""
    output, report = tmp_path / "output", tmp_path / "report.json"
    arguments = ["--maintain", "--lake", years.lake.root, "--sources", years.described, "--report", report]
    assert crashes.run(arguments, keys, output) == 0, output.read_text()
    assert [line.partition(":")[0] for line in output.read_text().splitlines()[:4]] == list(growth.TABLES)
    assert "\nMaintained s3://" in output.read_text()
    written = json.loads(report.read_text())
    assert (written["status"], written["exit_code"], written["error"]) == ("ok", 0, None)
    assert written["tables"]["silver.t"]["files_after"] == 1
    assert crashes.run([*arguments, "--tables", "t"], keys, output) == 0, output.read_text()
    assert output.read_text().count("nothing to do") == 4


@pytest.mark.parametrize(
    "options",
    [
        ["--dry-run"],
        ["--maintain", "--rebuild", "silver.t"],
        ["--maintain", "--strict"],
        ["--maintain", "--landing", "x"],
    ],
)
def test_options_that_do_not_fit_are_refused(options, keys, tmp_path):
    """--dry-run needs --maintain, and options that only apply to loading cannot be combined with --maintain."""
    assert crashes.run(options, keys, tmp_path / "output") == 2
    assert "--maintain" in (tmp_path / "output").read_text()


def test_second_maintenance_does_nothing_while_the_first_runs(years):
    """Started while another one holds the lease, it says so, does nothing, and its status is `skipped`."""
    inner: list[tuple[MaintenanceReport, list[str]]] = []

    def start_another(_: str) -> None:
        if not inner:
            said = Recorder()
            inner.append((maintenance.maintain(years.lake, {}, said), said.notes))

    said = Recorder()
    said.before_table = start_another
    years.maintain(Options(), said)
    ((report, notes),) = inner
    assert (report.status, report.tables) == ("skipped", {})
    assert len(notes) == 1 and notes[0].startswith("nothing was done, because another maintenance run is going on: ")
    assert years.files() == dict.fromkeys(growth.TABLES, 1)


def test_maintenance_is_restricted_to_layers_and_tables(years):
    """--layers and --tables select; quarantine belongs to bronze, a history to its table; unknown names are errors."""
    assert set(years.maintain(Options(Selection(("silver",)), dry_run=True)).tables) == {"silver.t", "silver.t_history"}
    assert set(years.maintain(Options(Selection(("bronze",)), dry_run=True)).tables) == {"bronze.t", "quarantine.t"}
    assert set(years.maintain(Options(Selection(tables=("t",)), dry_run=True)).tables) == set(growth.TABLES)
    assert set(years.maintain(Options(Selection(tables=("t_history",)), dry_run=True)).tables) == {"silver.t_history"}
    with pytest.raises(
        SettingError, match=r"^--tables: the lake has no table called u\. Its tables are t, t_history\."
    ):
        years.maintain(Options(Selection(tables=("u",))))


def damage(lake: Lake, *names: str) -> None:
    """Put garbage in place of the newest commit of a table."""
    key = lake.key(*names, "_delta_log", f"{lake.delta(*names).version():020}.json")
    lake.s3.put_object(Bucket=lake.bucket, Key=key, Body=b"garbage")


def test_failure_of_one_table_does_not_stop_the_others(years):
    """A damaged table is named in the error and the report; the others are maintained."""
    damage(years.lake, "silver", "t")
    with pytest.raises(DamagedTableError, match=r"silver\.t|silver/t"):
        years.maintain()
    assert years.said.failed == ["silver.t"]
    files = {name: len(years.lake.delta(*name.split(".")).file_uris()) for name in growth.TABLES if name != "silver.t"}
    assert set(files.values()) == {1}
    damage(years.lake, "silver", "t_history")
    with pytest.raises(FailedTablesError) as caught:
        years.maintain()
    assert caught.value.tables == ["silver.t", "silver.t_history"]


def test_table_that_vanishes_is_a_note(years):
    """A table that is deleted while the maintenance runs is no failure."""
    deleted = "silver.t_history"

    def delete(label: str) -> None:
        if label == deleted:
            for entry in list(years.lake.objects(years.lake.key("silver", "t_history", ""))):
                years.lake.s3.delete_object(Bucket=years.lake.bucket, Key=entry["Key"])

    said = Recorder()
    said.before_table = delete
    report = years.maintain(said=said)
    assert said.notes == [f"{deleted} was deleted during its maintenance"]
    assert set(report.tables) == set(growth.TABLES) - {deleted}


def test_table_that_vanishes_during_its_compaction_is_a_note(years, monkeypatch):
    """Also if it is deleted while its files are read."""
    original = rewrite._download

    def delete_first(ref: TableRef, *args: Any) -> Any:
        if ref.label == "silver.t":
            for entry in list(years.lake.objects(ref.key(""))):
                years.lake.s3.delete_object(Bucket=years.lake.bucket, Key=entry["Key"])
        return original(ref, *args)

    monkeypatch.setattr(rewrite, "_download", delete_first)
    report = years.maintain()
    assert years.said.notes == ["silver.t was deleted during its maintenance"]
    assert "silver.t" not in report.tables and report.failed == {}


@pytest.mark.slow
def test_tables_of_other_engines_are_left_alone_or_keep_their_rows(lake, monkeypatch):
    """Every table that Spark made is either left alone, with the reason, or has the same rows after a maintenance."""
    monkeypatch.setattr(compaction_plan, "MIN_SAVED_FILES", 1)
    monkeypatch.setattr(maintenance, "CHECKPOINT_COMMITS", 1)
    for path in sorted(FOREIGN_TABLES.rglob("*")):
        relative = path.relative_to(FOREIGN_TABLES)
        if path.is_file() and len(relative.parts) > 1:
            lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("silver", *relative.parts), Body=path.read_bytes())
    before = {entry["Key"]: entry["ETag"] for entry in lake.objects(lake.key(""))}
    rows = {name: rows_of(lake, name) for name in lakes.names(lake)}
    said = Recorder()
    report = maintenance.maintain(lake, {}, said)
    left_alone = {name: done.left_alone for name, done in report.tables.items() if done.left_alone}
    assert {"silver.vectors_delete", "silver.mapped_name", "silver.partition_values"} <= set(left_alone)
    assert not {"silver.plain", "silver.append_only", "silver.timestamp"} & set(left_alone)
    assert report.tables["silver.plain"].bytes_rewritten or report.tables["silver.timestamp"].bytes_rewritten
    after = {entry["Key"]: entry["ETag"] for entry in lake.objects(lake.key(""))}
    for name in left_alone:
        prefix = lake.key(*name.split("."), "")
        assert {k: v for k, v in after.items() if k.startswith(prefix)} == {
            k: v for k, v in before.items() if k.startswith(prefix)
        }, name
    assert {name: rows_of(lake, name) for name in lakes.names(lake)} == rows


def rows_of(lake: Lake, name: str) -> object:
    try:
        return sorted(map(repr, lakes.rows(lake.delta(*name.split(".")))))
    except Exception as error:  # noqa: BLE001 - some of these tables cannot be read, before and after
        return type(error).__name__


# -- doubled rows


@pytest.mark.parametrize("second", slow_but(["compact"], ["compact", "z_order", "overwrite"], slow=[]))
def test_doubled_rows_of_two_other_programs_are_reported(years, second):
    """Two programs that compact with delta-rs at once duplicate rows; the error says so, and nothing is changed."""
    contents, stale = lakes.contents(years.lake), years.lake.delta("silver", "t")
    version = stale.version()
    years.lake.delta("silver", "t").optimize.compact()
    STALE[second](stale)
    assert lakes.contents(years.lake) != contents
    with pytest.raises(
        DamagedTableError, match=rf"^silver\.t has duplicate rows, .*: version {version + 2} .*did not take"
    ) as caught:
        years.maintain()
    assert f"restore version {version + 1}, or use --rebuild silver.t" in str(caught.value)
    assert years.lake.delta("silver", "t").version() == version + 2
    with pytest.raises(DamagedTableError):
        years.maintain()
    years.lake.delta("silver", "t").restore(version + 1)
    years.maintain()
    assert lakes.contents(years.lake) == contents


def test_rows_that_a_stale_overwrite_has_left_are_reported(years):
    """A stale overwrite leaves the rows that a MERGE has inserted in the table, and the maintenance reports that."""
    stale = years.lake.delta("silver", "t")
    STALE["merge"](years.lake.delta("silver", "t"))
    STALE["overwrite"](stale)
    with pytest.raises(
        DamagedTableError, match=rf"^silver\.t has duplicate rows, .*: version {stale.version()} \(WRITE\)"
    ):
        years.maintain()


def test_doubled_rows_are_repaired_by_a_rebuild(years):
    """--rebuild replaces all rows, after which the maintenance works again."""
    stale = years.lake.delta("silver", "t")
    years.lake.delta("silver", "t").optimize.compact()
    stale.optimize.compact()
    years.job(rebuild=("silver.t",))
    years.maintain()
    years.require_expected()
