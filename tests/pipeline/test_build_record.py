"""Progress that can be trusted: whatever others do to the tables, the next run makes every table right again."""

import datetime as dt
import itertools
import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema, write_deltalake
from support import expected, lakes
from support.selected import slow_but

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.delta_log import DeltaLog, live_files
from lakehouse_utils.pipeline import build_record, commits, silver
from lakehouse_utils.pipeline.build_record import Position
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.run import RunReport

DAYS = {
    "2026-01-01": "k,at,v,n\n1,2026-01-01,a,1\n2,2026-01-01,a,1\n3,2026-01-01,a,one\nbroken\n",
    "2026-01-02": "k,at,v,n\n1,2026-01-02,b,1\n4,2026-01-02,a,1\n5,2026-01-02,a,two\nbroken,too\n",
    "2026-01-03": "k,at,v,n\n1,2026-01-03,c,1\n2,2026-01-03,b,3\n6,,,three\n",
}
SHOP_TABLES = ("products", "brands", "categories", "dim_products")
SILVER = ("bronze", "silver")


@pytest.fixture(params=["local", pytest.param("spark", marks=pytest.mark.nightly)])
def open_engine(request: pytest.FixtureRequest, engine_of: Callable[[str, Lake], Engine]) -> partial[Engine]:
    return partial(engine_of, request.param)


class Pipeline:
    """The job on one small table, with the notes of its last run."""

    def __init__(
        self, lake: Lake, folder: Path, open_engine: Callable[[Lake], Engine], three_days: Lake | None = None
    ) -> None:
        self.lake, self.open_engine, self.three_days = lake, open_engine, three_days
        self.landing, self.described = folder / "landing", folder / "sources.toml"
        self.described.write_text(lakes.ONE_TABLE, encoding="utf-8")
        self.notes: list[str] = []

    def deliver(self, *days: str) -> None:
        for day in days:
            (self.landing / day).mkdir(parents=True, exist_ok=True)
            (self.landing / day / "t.csv").write_text(DAYS[day], encoding="utf-8")

    def run(self, **selected: tuple[str, ...]) -> RunReport:
        progress = lakes.RecordingProgress()
        report = lakes.job(
            self.lake,
            self.landing,
            self.described,
            progress,
            self.open_engine(self.lake),
            **({"layers": SILVER} | selected),
        )
        self.notes = progress.sentences
        return report

    def run_day_by_day(self) -> dict[str, list[tuple]]:
        """Load the three days in three runs, or take a copy of a lake in which that was done; return all rows."""
        for day in DAYS:
            self.deliver(day)
            if self.three_days is None:
                self.run()
        if self.three_days is not None:
            lakes.copy(self.three_days, self.lake)
        return lakes.contents(self.lake)

    def is_as_expected(self) -> bool:
        return lakes.unlike(self.lake, expected.tables(self.landing, self.described)) == {}


@pytest.fixture(scope="module")
def three_days(s3_server, s3_state_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake into which the local engine has loaded the three days, in three runs. Read-only."""
    lake = lakes.at(f"{s3_server.uri}/three-days-{uuid.uuid4().hex}", s3_state_dir)
    Pipeline(lake, tmp_path_factory.mktemp("three-days"), LocalEngine).run_day_by_day()
    return lake


@pytest.fixture
def pipeline(lake: Lake, tmp_path: Path, open_engine: partial[Engine], three_days: Lake) -> Pipeline:
    is_local = open_engine.args == ("local",)
    return Pipeline(lake, tmp_path, open_engine, three_days if is_local else None)


@pytest.fixture
def local(lake: Lake, tmp_path: Path, three_days: Lake) -> Pipeline:
    return Pipeline(lake, tmp_path, LocalEngine, three_days)


def wait_for_the_next_second() -> None:
    """S3 keeps the times of objects in seconds."""
    start = int(time.time())
    while int(time.time()) <= start + 1:
        time.sleep(0.01)


def empty_folder(lake: Lake, *names: str) -> None:
    for entry in list(lake.objects(lake.key(*names, ""))):
        lake.s3.delete_object(Bucket=lake.bucket, Key=entry["Key"])


# -- restored tables


@pytest.mark.parametrize("label", ["bronze.t", "silver.t", "silver.t_history", "quarantine.t"])
def test_a_restored_table_gets_its_rows_back(pipeline, label):
    """After a RESTORE by hand, the next run adds what it took back, says so, and the run after it has nothing to do."""
    before = pipeline.run_day_by_day()
    for version in (1, 2):
        table = pipeline.lake.delta(*label.split("."))
        table.restore(version)
        assert lakes.contents(pipeline.lake) != before
        pipeline.run()
        assert lakes.contents(pipeline.lake) == before
        reason = "lost rows by a RESTORE" if label == "quarantine.t" else "was restored to an earlier version"
        rebuilt = [note for note in pipeline.notes if note.startswith("silver.t") and reason in note]
        assert rebuilt or label == "bronze.t"
        assert not pipeline.run().changed_anything
        assert pipeline.notes == []


def test_a_table_restored_to_a_moment_gets_its_rows_back(local):
    """RESTORE may name a time: the version that it went back to is found by its files."""
    local.deliver("2026-01-01")
    local.run()
    moment = dt.datetime.now(dt.UTC)
    wait_for_the_next_second()
    before = local.run_day_by_day()
    for label in ("bronze.t", "quarantine.t"):
        local.lake.delta(*label.split(".")).restore(moment)
        assert lakes.contents(local.lake) != before
        local.run()
        assert lakes.contents(local.lake) == before


def test_a_restored_bronze_whose_raw_files_are_gone_is_followed(local):
    """Rows that a RESTORE took out of bronze, and that no raw file has any more, leave silver and its history too."""
    local.run_day_by_day()
    local.lake.delta("bronze", "t").restore(1)
    for day in ("2026-01-02", "2026-01-03"):
        shutil.rmtree(local.landing / day)
    local.run()
    tables = expected.tables(local.landing, local.described)
    assert lakes.unlike(local.lake, {name: rows for name, rows in tables.items() if name.startswith("silver")}) == {}
    assert any("bronze.t was restored" in note for note in local.notes)


def test_restored_gold_gets_its_rows_back(lake, small, tmp_path):
    """The same for gold: a restored dimension is complete after the next run."""
    for day in ("2026-01-01", "2026-01-07"):
        shutil.copytree(small / day, tmp_path / day)
        lakes.job(lake, tmp_path, tables=SHOP_TABLES)
    before = lakes.contents(lake)
    table = lake.delta("gold", "dim_products")
    table.restore(table.version() - 1)
    assert lakes.contents(lake) != before
    lakes.job(lake, tmp_path, tables=SHOP_TABLES)
    assert lakes.contents(lake) == before
    assert not lakes.job(lake, tmp_path, tables=SHOP_TABLES).changed_anything


# -- replaced and removed rows


def test_bronze_replaced_by_other_batches_at_the_same_version(pipeline):
    """A bronze table that was deleted and loaded with other batches is another table, whatever its version."""
    pipeline.deliver("2026-01-01", "2026-01-02")
    pipeline.run()
    version = pipeline.lake.delta("bronze", "t").version()
    empty_folder(pipeline.lake, "bronze", "t")
    shutil.rmtree(pipeline.landing)
    pipeline.deliver("2026-01-02", "2026-01-03")
    pipeline.run()
    assert pipeline.lake.delta("bronze", "t").version() == version
    silver = {f"silver.{name}" for name in ("t", "t_history")}
    tables = expected.tables(pipeline.landing, pipeline.described)
    assert lakes.unlike(pipeline.lake, {name: rows for name, rows in tables.items() if name in silver}) == {}
    assert pipeline.notes == [
        f"silver.{name} is rebuilt, because bronze.t is not the table that it was built from"
        for name in ("t_history", "t")
    ]
    assert not pipeline.run().changed_anything


def test_a_bronze_table_that_is_gone_is_an_error(local):
    """Without bronze, silver's rows have no source: the run stops and names both tables."""
    local.run_day_by_day()
    empty_folder(local.lake, "bronze", "t")
    with pytest.raises(LakehouseError, match=r"silver\.t_history has rows, but bronze\.t, which it is built from"):
        local.run(layers=("silver",))
    local.run()
    assert local.is_as_expected()


def test_rows_deleted_from_bronze_leave_silver(pipeline):
    """DELETE on bronze, as for a person who asks for it, takes the rows out of silver and of the history."""
    pipeline.run_day_by_day()
    bronze = pipeline.lake.delta("bronze", "t")
    bronze.alter.set_table_properties({"delta.appendOnly": "false"})
    bronze.delete("k = '1'")
    pipeline.run()
    assert {row["k"] for name in ("t", "t_history") for row in lakes.rows(pipeline.lake.delta("silver", name))} == {
        2,
        4,
    }
    assert (
        "silver.t is rebuilt, because bronze.t was changed by another program (DELETE at version 5)" in pipeline.notes
    )
    assert not pipeline.run().changed_anything


def test_a_person_deleted_from_bronze_and_silver_leaves_gold(lake, small, tmp_path):
    """Gold keeps no name or address of a person who was deleted from the layers below it."""
    tables = ("customers", "orders", "order_items", "products", "brands", "categories", "stores", "staffs")
    tables = (*tables, "dim_customers", "fact_sales")
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    lakes.job(lake, tmp_path, tables=tables)
    sales = lake.delta("gold", "fact_sales").count()
    dimension = lakes.rows(lake.delta("gold", "dim_customers"))
    sold_to = {row["customer_sk"] for row in lakes.rows(lake.delta("gold", "fact_sales"))}
    person = next(row["customer_id"] for row in dimension if row["customer_sk"] in sold_to and row["customer_id"])
    for layer, table in (("bronze", "customers"), ("silver", "customers"), ("silver", "customers_history")):
        delta = lake.delta(layer, table)
        if layer == "bronze":
            delta.alter.set_table_properties({"delta.appendOnly": "false"})
        delta.delete(f"customer_id = '{person}'" if layer == "bronze" else f"customer_id = {person}")
    lakes.job(lake, tmp_path, tables=tables)
    assert person not in {row["customer_id"] for row in lakes.rows(lake.delta("gold", "dim_customers"))}
    known = {row["customer_sk"] for row in lakes.rows(lake.delta("gold", "dim_customers"))}
    facts = lakes.rows(lake.delta("gold", "fact_sales"))
    assert {row["customer_sk"] for row in facts} <= known
    assert len(facts) == sales
    assert -1 in known
    assert not lakes.job(lake, tmp_path, tables=tables).changed_anything


def test_rows_that_another_program_wrote_to_silver_do_not_stay(local):
    """Silver has what bronze says: rows that were changed or added by hand are corrected, with a note."""
    before = local.run_day_by_day()
    local.lake.delta("silver", "t").update(updates={"v": "'changed'"}, predicate="k = 4")
    local.lake.delta("silver", "t_history").delete("k = 2")
    local.run()
    assert lakes.contents(local.lake) == before
    assert local.notes == [
        "silver.t_history is rebuilt, because it was changed by another program (DELETE at version 4)",
        "silver.t is rebuilt, because it was changed by another program (UPDATE at version 4)",
    ]


def test_a_change_between_two_commits_of_the_pipeline_is_found(local, monkeypatch):
    """Another program's commit may also come between the reading of a table and the pipeline's commit to it."""
    local.deliver("2026-01-01", "2026-01-02")
    local.run()
    local.deliver("2026-01-03")
    original, lake = commits.record, local.lake

    def change_first(table: DeltaTable, *arguments: object) -> None:
        lake.delta("silver", "t").delete("k = 4")
        original(table, *arguments)

    shutil.copytree(local.landing / "2026-01-02", local.landing / "2026-01-02-again")
    monkeypatch.setattr(commits, "record", change_first)
    local.run(tables=("t",))
    monkeypatch.undo()
    local.run()
    assert [row["k"] for row in lakes.rows(lake.delta("silver", "t")) if row["k"] == 4] == [4]


# -- descriptions


def test_a_changed_rule_is_applied_to_rows_that_silver_has(pipeline):
    """A new rule takes rows out of silver and into quarantine; without the rule they come back."""
    pipeline.run_day_by_day()
    pipeline.described.write_text(lakes.ONE_TABLE.replace("n = {", "n = { max = 2,"), encoding="utf-8")
    report = pipeline.run()
    assert report.rows["silver.t"].quarantined == 1
    assert pipeline.notes == [
        f"silver.{name} is rebuilt, because its description or the SQL has changed" for name in ("t_history", "t")
    ]
    current = {row["k"]: row["v"] for row in lakes.rows(pipeline.lake.delta("silver", "t"))}
    assert current == {1: "c", 2: "a", 4: "a"}
    assert pipeline.is_as_expected()
    pipeline.described.write_text(lakes.ONE_TABLE, encoding="utf-8")
    assert pipeline.run().rows["silver.t"].quarantined == 0
    problems = lakes.rows(pipeline.lake.delta("quarantine", "t"))
    resolved = {row["reason"] for row in problems if row["resolved_at"]}
    assert resolved == {"n: '3' is above 2"}, "only the row that is accepted again is resolved"
    current = {row["k"]: row["v"] for row in lakes.rows(pipeline.lake.delta("silver", "t"))}
    assert current == {1: "c", 2: "b", 4: "a"}
    assert not pipeline.run().changed_anything


@pytest.mark.slow
def test_a_rule_that_removes_rows_from_silver_removes_them_from_gold(lake, small, tmp_path):
    """Facts made from rows that a new rule rejects are gone after the next run."""
    shutil.copytree(small, tmp_path / "landing")
    lakes.job(lake, tmp_path / "landing")
    described = tmp_path / "sources.toml"
    text = lakes.sources.SHOP.read_text(encoding="utf-8")
    before, rule, after = text.partition('quantity   = { type = "integer", required = true, min = 1,')
    described.write_text(before + rule.replace("min = 1", "min = 2") + after, encoding="utf-8")
    report = lakes.job(lake, tmp_path / "landing", described)
    assert report.rows["silver.order_items"].quarantined > 0
    assert min(row["quantity"] for row in lakes.rows(lake.delta("gold", "fact_sales"))) == 2
    assert lakes.unlike(lake, expected.tables(tmp_path / "landing", described)) == {}


# -- progress is always recorded


def test_a_delivery_without_effect_is_read_once(pipeline):
    """A file that is delivered again and changes nothing is not read, and its bad row not reported, a third time."""
    pipeline.deliver("2026-01-02")
    pipeline.run()
    shutil.copytree(pipeline.landing / "2026-01-02", pipeline.landing / "2026-01-02-again")
    assert pipeline.run().quarantined == 2
    versions = lakes.versions(pipeline.lake)
    report = pipeline.run()
    assert (report.quarantined, report.changed_anything) == (0, False)
    assert lakes.versions(pipeline.lake) == versions


def test_tables_of_an_earlier_version_are_rebuilt_once(local):
    """A lake whose log says nothing about inputs gets the same rows, with a note, and then counts as up to date."""
    before = local.run_day_by_day()
    for name, _ in lakes.opened(local.lake):
        log = local.lake.key(*name.split("."), "_delta_log", "")
        for entry in list(local.lake.objects(log)):
            key = {"Bucket": local.lake.bucket, "Key": entry["Key"]}
            lines = local.lake.s3.get_object(**key)["Body"].read().decode().splitlines()
            kept = [
                line
                for line in lines
                if not {"pipeline", "definition"} & {(txn := json.loads(line).get("txn", {})).get("appId")}
                and not txn.get("appId", "").endswith(" commit")
            ]
            local.lake.s3.put_object(**key, Body="\n".join(kept).encode())
    assert not local.run().changed_anything
    assert local.notes == [
        f"silver.{name} is rebuilt, because its log does not say which version of bronze.t it covers"
        for name in ("t_history", "t")
    ]
    assert lakes.contents(local.lake) == before
    local.run()
    assert local.notes == []


def test_a_log_that_was_cleaned_up_is_no_proof(local):
    """If a clean-up removed the commits since the recorded position, the table is rebuilt."""
    local.deliver("2026-01-01", "2026-01-02")
    local.run()
    local.deliver("2026-01-03")
    local.run(layers=("bronze",))
    bronze = local.lake.delta("bronze", "t")
    bronze.create_checkpoint()
    for version in range(bronze.version()):
        key = local.lake.key("bronze", "t", "_delta_log", f"{version:020}.json")
        local.lake.s3.delete_object(Bucket=local.lake.bucket, Key=key)
    local.run()
    assert local.is_as_expected()
    assert local.notes == [
        f"silver.{name} is rebuilt, because the log of bronze.t no longer reaches back to version 2"
        for name in ("t_history", "t")
    ]


def test_maintenance_between_two_runs_rebuilds_nothing(pipeline):
    """OPTIMIZE, VACUUM and checkpoints neither cause a rebuild nor hide new rows."""
    pipeline.deliver("2026-01-01", "2026-01-02")
    pipeline.run()
    for _, table in lakes.opened(pipeline.lake):
        table.optimize.compact()
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        table.create_checkpoint()
    pipeline.deliver("2026-01-03")
    pipeline.run()
    assert pipeline.notes == []
    assert pipeline.is_as_expected()


# -- which files a run reads


def append(lake: Lake, *ids: int) -> DeltaTable:
    """Append rows to `bronze.t` in one commit."""
    uri, rows = lake.uri("bronze", "t"), pa.table({"id": list(ids)})
    write_deltalake(uri, rows, mode="append", storage_options=lake.storage_options)
    return lake.delta("bronze", "t")


def files_to_read(lake: Lake, version: int | None) -> list[str]:
    """The files of bronze that a silver table has to read if it covers `version` of bronze; None if it covers none."""
    ref = lake.table("bronze", "t")
    table = ref.open()
    covered = None if version is None else Position(version, DeltaLog.of_ref(ref).commit(version).digest)
    change = build_record.changes_since(ref, build_record.read(ref, table), covered, accept_appends=True)
    live = live_files(ref, table)
    return live if change.rebuild else silver._files_to_read(ref, change, live)


def test_files_added_since_a_version(lake: Lake) -> None:
    """Only files of later commits are read; without a version, all live files are."""
    old = live_files(lake.table("bronze", "t"), append(lake, 1))
    append(lake, 2)
    assert files_to_read(lake, 1) == []
    (new,) = files_to_read(lake, 0)
    assert new not in old
    assert set(files_to_read(lake, None)) == {new, *old}


def test_files_added_since_a_compaction(lake: Lake) -> None:
    """Files that OPTIMIZE wrote are not new, and where it removed new ones, all live files are read."""
    append(lake, 1)
    append(lake, 2).optimize.compact()
    (compacted,) = live_files(lake.table("bronze", "t"), lake.delta("bronze", "t"))
    assert files_to_read(lake, 1) == []
    assert files_to_read(lake, 0) == [compacted]


def test_files_added_since_a_cleaned_up_commit(lake: Lake) -> None:
    """Where a commit file is gone, all live files are read."""
    for number in range(3):
        table = append(lake, number)
    table.create_checkpoint()
    key = lake.key("bronze", "t", "_delta_log", f"{1:020}.json")
    lake.s3.delete_object(Bucket=lake.bucket, Key=key)
    assert len(files_to_read(lake, 0)) == 3


# -- the same input gives the same rows


@pytest.mark.slow
def test_two_builds_of_a_folder_are_equal(prefix, s3_state_dir, tmp_path, open_engine):
    """Moments and keys depend on the raw files alone: not on the clock, and not on the order of the runs."""
    described = tmp_path / "sources.toml"
    described.write_text(
        '[t]\nkey=["k"]\nhistory=true\n[t.columns]\nk={type="integer"}\nv={type="text"}', encoding="utf-8"
    )
    batches = {"a": "k,v\n1,x\n2,x\n", "b": "k,v\n1,y\n3,x\n", "2026-01-05": "k,v\n1,z\n2,x\n", ".": "k,v\n9,x\n"}
    built = []
    for number, order in enumerate(itertools.islice(itertools.permutations(batches), 0, 24, 8)):
        lake = lakes.at(f"{prefix}/{number}", s3_state_dir)
        landing = tmp_path / f"landing-{number}"
        for batch in order:
            (landing / batch).mkdir(parents=True, exist_ok=True)
            (landing / batch / "t.csv").write_text(batches[batch], encoding="utf-8")
            if number:  # the first one is built in one run
                lakes.job(lake, landing, described, engine=open_engine(lake), layers=SILVER)
        lakes.job(lake, landing, described, engine=open_engine(lake), layers=SILVER)
        built.append({name: rows for name, rows in lakes.contents(lake).items() if name.startswith("silver")})
    assert built[0] == built[1] == built[2]


# -- first runs at the same time


def test_tables_created_at_the_same_time_keep_their_columns(lake):
    """Only one writer creates a table, however many try: a second CREATE would replace its columns."""
    for number in range(8):
        ref, barrier = lake.table("bronze", f"t{number}"), threading.Barrier(8)

        def create(column: int, ref=ref, barrier=barrier) -> None:
            barrier.wait()
            commits.create(ref, Schema.from_arrow(pa.schema([("id", pa.int64()), (f"c{column}", pa.string())])))

        threads = [threading.Thread(target=create, args=(column,)) for column in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log = DeltaLog.of_ref(ref)
        assert [len(commit.of_kind("metaData")) for commit in log.commits_up_to(10)] == [1]


# -- rebuilding on request


def break_nothing(_lake: Lake, _label: str) -> None:
    pass


def remove_a_data_file(lake: Lake, label: str) -> None:
    path = lake.delta(*label.split(".")).file_uris()[0].rsplit("/", 1)[1]
    lake.s3.delete_object(Bucket=lake.bucket, Key=lake.key(*label.split("."), path))


def remove_a_commit(lake: Lake, label: str) -> None:
    lake.s3.delete_object(Bucket=lake.bucket, Key=lake.key(*label.split("."), "_delta_log", f"{1:020}.json"))


def spoil_a_commit(lake: Lake, label: str) -> None:
    key = lake.key(*label.split("."), "_delta_log", f"{1:020}.json")
    lake.s3.put_object(Bucket=lake.bucket, Key=key, Body=b"\0garbage")


TABLES = ["bronze.t", "quarantine.t", "silver.t", "silver.t_history"]
DAMAGES = [break_nothing, remove_a_data_file, remove_a_commit, spoil_a_commit]


@pytest.mark.parametrize(
    ("label", "damage"), slow_but(zip(TABLES, DAMAGES, strict=True), itertools.product(TABLES, DAMAGES))
)
def test_rebuild_makes_a_table_and_those_built_from_it_right(local, label, damage: Callable[[Lake, str], None]):
    """--rebuild brings back every row of a table, also of one with a missing file or a damaged log."""
    before = local.run_day_by_day()
    damage(local.lake, label)
    report = local.run(rebuild=(label,))
    assert lakes.contents(local.lake) == before
    if label.startswith("silver"):
        assert report.rows[label].rebuilt == "--rebuild names it"
    assert not local.run().changed_anything


def test_bronze_with_a_missing_file_is_rebuilt(pipeline):
    """The check for rows of earlier deliveries cannot read them, on either engine, and does not stop the rebuild."""
    before = pipeline.run_day_by_day()
    remove_a_data_file(pipeline.lake, "bronze.t")
    pipeline.run(rebuild=("bronze.t",))
    assert lakes.contents(pipeline.lake) == before


def test_rebuild_keeps_rows_whose_raw_files_are_gone(local):
    """Bronze is not rebuilt if rows would be lost: the error names the missing files."""
    before = local.run_day_by_day()
    shutil.rmtree(local.landing / "2026-01-02")
    with pytest.raises(Exception, match=r"raw files .* \(1: 2026-01-02/t\.csv\)"):
        local.run(rebuild=("bronze.t",))
    assert lakes.contents(local.lake) == before


@pytest.mark.parametrize("open_engine", slow_but(["local"], ["local", "spark"]), indirect=True)
def test_rebuild_gives_a_table_other_columns(pipeline):
    """A described column that was added or retyped gets into silver with --rebuild."""
    pipeline.run_day_by_day()
    pipeline.described.write_text(
        lakes.ONE_TABLE.replace('n = { type = "integer" }', 'n = { type = "text" }\nx = { type = "date" }'),
        encoding="utf-8",
    )
    pipeline.run(rebuild=("silver.t", "silver.t_history"))
    tables = expected.tables(pipeline.landing, pipeline.described)
    silver = {name: rows for name, rows in tables.items() if name.startswith("silver")}
    assert lakes.unlike(pipeline.lake, silver) == {}
    assert {"n": "two", "x": None}.items() <= next(
        r for r in lakes.rows(pipeline.lake.delta("silver", "t")) if r["k"] == 5
    ).items()


@pytest.mark.slow
def test_rebuild_of_gold(lake, small):
    """A gold table is written again, and the marts that read it follow."""
    lakes.job(lake, small)
    before = lakes.contents(lake)
    version = lake.delta("gold", "fact_sales").version()
    report = lakes.job(lake, small, rebuild=("gold.fact_sales",))
    assert lake.delta("gold", "fact_sales").version() == version + 1
    rebuilt = {name for name, counts in report.rows.items() if counts.rebuilt}
    assert rebuilt == {"gold.fact_sales", *(name for name in report.rows if name.startswith("gold.mart_"))}
    assert lakes.contents(lake) == before


@pytest.mark.parametrize(
    ("selected", "message"),
    [
        ({"rebuild": ("silver.tt",)}, r"no table is called silver\.tt"),
        ({"rebuild": ("gold.dim_date",)}, r"--rebuild gold\.dim_date needs the layer gold and the table dim_date"),
        ({"rebuild": ("quarantine.t",), "layers": ("bronze",)}, "needs the layers bronze and silver and the table t"),
    ],
)
def test_rebuild_of_what_is_no_part_of_the_run_is_refused(local, selected, message):
    """A name that no table has, or a table outside --layers and --tables, is an error before anything is changed."""
    with pytest.raises(Exception, match=message):
        local.run(**selected)


def test_silver_does_not_need_the_landing_folder(local):
    """Without bronze in the run, the raw files may be out of reach, also when a silver table is rebuilt."""
    before = local.run_day_by_day()
    shutil.rmtree(local.landing)
    local.run(layers=("silver",))
    local.run(layers=("silver",), rebuild=("silver.t",))
    assert lakes.contents(local.lake) == before


# -- what a rebuild must not lose, and what it must not bring back


def open_problems(lake: Lake) -> list[tuple[int, str]]:
    """Line and raw text of the rows in quarantine that are not resolved."""
    rows = lakes.rows(lake.delta("quarantine", "t"))
    return sorted((row["_source_line"], row["raw"]) for row in rows if row["resolved_at"] is None)


def write(pipeline: Pipeline, text: str, day: str = "2026-01-01") -> None:
    (pipeline.landing / day).mkdir(parents=True, exist_ok=True)
    (pipeline.landing / day / "t.csv").write_text(text, encoding="utf-8")


def describe(pipeline: Pipeline, settings: str, columns: str = 'v={type="text"}') -> None:
    text = f"[t]\n{settings}\n[t.columns]\nk={{type='integer'}}\n{columns}\n"
    pipeline.described.write_text(text, encoding="utf-8")


def test_another_key_leaves_no_row_of_the_old_one(pipeline):
    """With another key, silver and history have one row per new key, and none without a value in it."""
    describe(pipeline, 'key=["k"]\nhistory=true', 'v={type="integer"}')
    write(pipeline, "k,v\n1,1\n2,1\n3,\n4,2\n")
    pipeline.run()
    describe(pipeline, 'key=["v"]\nhistory=true', 'v={type="integer"}')
    pipeline.run()
    for name in ("t", "t_history"):
        assert sorted((row["k"], row["v"]) for row in lakes.rows(pipeline.lake.delta("silver", name)))[-2:] == [
            (2, 1),
            (4, 2),
        ]
        assert all(row["v"] is not None for row in lakes.rows(pipeline.lake.delta("silver", name)))
    assert pipeline.lake.delta("silver", "t").count() == 2


def test_rebuilt_bronze_quarantines_by_the_new_settings(local):
    """Lines that are broken under the new settings are in quarantine, and those that are not any more have left it."""
    describe(local, 'key=["k"]')
    write(local, 'k,v\n1,um\n3,"x,y"\n4,"z\n5,w\n')
    local.run()
    assert open_problems(local.lake) == [(4, '4,"z')]
    describe(local, 'key=["k"]\nquote=""')
    local.run(rebuild=("bronze.t",))
    assert open_problems(local.lake) == [(3, '3,"x,y"')]
    assert sorted(row["k"] for row in lakes.rows(local.lake.delta("silver", "t"))) == [1, 4, 5]


@pytest.mark.parametrize("now", ["k,v\n4,a\n", "", "k,v\n1,a\n2,b\n"])
def test_bronze_with_earlier_deliveries_is_not_rebuilt(local, now):
    """Rows that only an earlier delivery of a file had would be lost: the error names the file, nothing is changed."""
    describe(local, 'key=["k"]')
    write(local, "k,v\n1,a\n2,b\n3,c\n")
    local.run()
    write(local, now)
    for loaded_before in (False, True):
        before = lakes.contents(local.lake)
        with pytest.raises(
            LakehouseError,
            match=r"earlier deliveries of these files, and a rebuild would lose them \(1: 2026-01-01/t\.csv\)",
        ):
            local.run(rebuild=("bronze.t",))
        assert lakes.contents(local.lake) == before
        if not loaded_before:
            local.run()


def test_bronze_whose_files_cannot_be_read_is_not_rebuilt(local):
    """A description that does not fit the files is found before the old table is set aside."""
    describe(local, 'key=["k"]')
    write(local, "k,v\n1,a\n")
    local.run()
    before = lakes.contents(local.lake)
    describe(local, 'key=["k"]\ndelimiter=";"')
    with pytest.raises(LakehouseError, match=r"cannot be rebuilt: 2026-01-01/t\.csv: none of its columns .+ changed"):
        local.run(rebuild=("bronze.t",))
    assert lakes.contents(local.lake) == before


def test_quarantine_whose_raw_files_are_gone_is_not_rebuilt(local):
    """Broken records are nowhere but in the raw file: without it, quarantine stays as it is."""
    before = local.run_day_by_day()
    shutil.rmtree(local.landing / "2026-01-02")
    with pytest.raises(
        LakehouseError, match=r"quarantine\.t cannot be rebuilt: raw files that it was loaded from are missing"
    ):
        local.run(rebuild=("quarantine.t",))
    assert lakes.contents(local.lake) == before


def test_a_restore_whose_version_was_cleaned_up(local):
    """If the log does not reach back to the restored version, the rows say which files are left."""
    before = local.run_day_by_day()
    for label in ("bronze.t", "quarantine.t"):
        table = local.lake.delta(*label.split("."))
        table.restore(1 if label == "bronze.t" else 2)
        table = local.lake.delta(*label.split("."))
        table.create_checkpoint()
        for version in range(table.version()):
            name = local.lake.key(*label.split("."), "_delta_log", f"{version:020}.json")
            local.lake.s3.delete_object(Bucket=local.lake.bucket, Key=name)
    local.run()
    assert lakes.contents(local.lake) == before
    assert not [note for note in local.notes if "settings for reading" in note]


def test_problems_of_an_earlier_delivery_do_not_come_back(pipeline):
    """What a later delivery of the file corrected is not an open problem, whatever runs when."""
    describe(pipeline, 'key=["k"]', 'v={type="integer"}')
    write(pipeline, "k,v\n2,x\n3,-5\n")
    pipeline.run(layers=("bronze",))
    write(pipeline, "k,v\n2,2\n3,5\n")
    pipeline.run(layers=("bronze",))
    pipeline.run(layers=("silver",))
    describe(pipeline, 'key=["k"]', 'v={type="integer", min=0}')
    pipeline.run()
    quarantine = pipeline.lake.delta("quarantine", "t")
    assert quarantine is None or open_problems(pipeline.lake) == []
