"""What another program does in the middle of a run: no interleaving loses, repeats or hides a row.

Each test lets the other program work at one exact point: when the run calls a certain function.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from deltalake import DeltaTable
from support import expected, lakes
from support.s3_proxy import proxy_to

from lakehouse_utils.errors import ServerBusyError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.delta_log import DeltaLog
from lakehouse_utils.pipeline import bronze, commits, quarantine, silver
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.log_states import LogStates
from lakehouse_utils.pipeline.run import RunReport

SILVER = ("bronze", "silver")


class Pipeline:
    """The job on one table, whose raw files have a row per line: key, date, value, number."""

    def __init__(
        self,
        lake: Lake,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        open_engine: Callable[[Lake], Engine] = LocalEngine,
    ) -> None:
        self.lake, self._monkeypatch, self.open_engine = lake, monkeypatch, open_engine
        self.landing, self.described = folder / "landing", folder / "sources.toml"
        self.described.write_text(lakes.ONE_TABLE, encoding="utf-8")

    def deliver(self, day: int, *rows: str) -> None:
        batch = self.landing / f"2026-01-{day:02}"
        batch.mkdir(parents=True)
        (batch / "t.csv").write_text("\n".join(["k,at,v,n", *rows, ""]), encoding="utf-8")

    def run(self, open_engine: Callable[[Lake], Engine] | None = None, **selected: tuple[str, ...]) -> RunReport:
        engine = (open_engine or self.open_engine)(self.lake)
        return lakes.job(self.lake, self.landing, self.described, engine=engine, **({"layers": SILVER} | selected))

    def run_two_days(self, *more: str) -> None:
        """Two runs of the local engine, each with the row of a day and `more` rows, in which {day} is its number."""
        for day in (1, 2):
            self.deliver(day, f"{day},2026-01-0{day},a,1", *(row.format(day=day) for row in more))
            self.run(LocalEngine)

    def table(self, label: str):
        return self.lake.delta(*label.split("."))

    def once(
        self, owner: object, name: str, other: Callable[[], object], when: Callable[..., bool] | None = None
    ) -> None:
        """Let `other` work, once, before the run calls this function (with arguments for which `when` is true)."""
        original, is_done = getattr(owner, name), []

        def call(*arguments: object, **options: object) -> object:
            if not is_done and (when is None or when(*arguments)):
                is_done.append(True)
                other()
            return original(*arguments, **options)

        self._monkeypatch.setattr(owner, name, call)

    def differences(self) -> dict:
        return lakes.unlike(self.lake, expected.tables(self.landing, self.described))

    def require_finished(self) -> None:
        """All tables are as the raw files say, and the next run finds nothing to do."""
        assert self.differences() == {}
        before = lakes.versions(self.lake)
        assert not self.run().changed_anything
        assert lakes.versions(self.lake) == before


@pytest.fixture
def pipeline(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    return Pipeline(lake, tmp_path, monkeypatch)


@pytest.fixture
def open_spark(engine_of: Callable[[str, Lake], Engine]) -> Callable[[Lake], Engine]:
    pytest.importorskip("pysail", reason="the extra spark isn't installed: make test installs it")
    return partial(engine_of, "spark")


@pytest.fixture(params=["local", pytest.param("spark", marks=pytest.mark.slow)])
def on_either_engine(request: pytest.FixtureRequest, pipeline: Pipeline) -> Pipeline:
    """The pipeline on the local engine, then on Spark, where the server commits a MERGE."""
    if request.param == "spark":
        pipeline.open_engine = request.getfixturevalue("open_spark")
    return pipeline


def before_merge(pipeline: Pipeline, label: str, other: Callable[[], object]) -> None:
    """Let `other` work before the first MERGE into a table: the run has opened the table and computed the rows."""
    engine: type[Engine] = LocalEngine
    if pipeline.open_engine is not LocalEngine:
        from lakehouse_utils.pipeline.engines.spark import SparkEngine  # fails without the extra spark

        engine = SparkEngine
    pipeline.once(engine, "merge", other, when=lambda _, target, *__: is_at(target.table, label))


def is_at(table: DeltaTable, label: str) -> bool:
    return table.table_uri.rstrip("/").endswith(label.replace(".", "/"))


# -- a RESTORE


@pytest.mark.parametrize("label", ["bronze.t", "quarantine.t"])
def test_a_restore_while_a_file_is_loaded_is_noticed(pipeline, label):
    """The commit of the file must not hide that the RESTORE took rows of other files back."""
    pipeline.run_two_days("broken")
    pipeline.deliver(3, "3,2026-01-03,a,1", "broken")
    pipeline.once(bronze, "upload", lambda: pipeline.table(label).restore(1))
    pipeline.run()
    if label == "quarantine.t":
        pipeline.run()  # bronze's step has ended before: the next run adds what it put into quarantine
    pipeline.require_finished()


def test_silver_alone_is_rebuilt_after_a_restore_of_quarantine(pipeline):
    """Without bronze's step, which looks for a RESTORE of quarantine as well."""
    pipeline.run_two_days("9{day},2026-01-0{day},a,x")
    pipeline.table("quarantine.t").restore(1)
    pipeline.run(layers=("silver",), rebuild=("silver.t",))
    pipeline.require_finished()


def test_a_late_row_after_a_restore_of_the_current_rows_does_not_hide_a_version(pipeline):
    """The history cannot find late rows by comparing with rows that are no longer the newest."""
    pipeline.deliver(1, "1,2026-01-01,a,1")
    pipeline.run()
    pipeline.deliver(10, "1,2026-01-10,c,1")
    pipeline.run()
    current = pipeline.table("silver.t")
    current.restore(current.version() - 1)
    pipeline.deliver(11, "1,2026-01-05,b,1")
    pipeline.run()
    pipeline.require_finished()


# -- another job


def test_a_table_that_another_job_has_filled_meanwhile_is_not_replaced(pipeline):
    """The other job knew one file more."""
    pipeline.deliver(1, "1,2026-01-01,a,1")

    def other_job() -> None:
        pipeline.deliver(2, "2,2026-01-02,a,1")
        pipeline.run()

    pipeline.once(commits, "create", other_job, when=lambda ref, *_: ref.label == "silver.t")
    pipeline.run()
    assert sorted(row["k"] for row in lakes.rows(pipeline.table("silver.t"))) == [1, 2]
    pipeline.require_finished()


def test_rows_that_two_jobs_reject_are_quarantined_once(pipeline):
    """The other job, which knew one file more, quarantined them first."""
    pipeline.deliver(1, "9,2026-01-01,a,x", "1,2026-01-01,a,1")
    pipeline.run()
    pipeline.deliver(2, "3,2026-01-02,a,BAD", "2,2026-01-02,a,1")

    def other_job() -> None:
        pipeline.deliver(3, "5,2026-01-03,a,BAD", "4,2026-01-03,a,1")
        pipeline.run()

    pipeline.once(quarantine, "append", other_job, when=lambda _logs, _source, commit, _: commit.first[0] == "silver.t")
    pipeline.run()
    pipeline.require_finished()


def test_a_rebuild_does_not_resolve_problems_that_it_has_not_read(pipeline):
    """Another job, which knew one file more, quarantined a row of that file while silver was rebuilt."""
    pipeline.deliver(1, "9,2026-01-01,a,x", "1,2026-01-01,a,1")
    pipeline.run()

    def other_job() -> None:
        pipeline.deliver(2, "3,2026-01-02,a,BAD", "2,2026-01-02,a,1")
        pipeline.run()

    pipeline.once(silver, "_quarantine_rejected", other_job)
    pipeline.run(rebuild=("silver.t",))
    assert [row["resolved_at"] for row in lakes.rows(pipeline.table("quarantine.t"))] == [None, None]
    pipeline.require_finished()


# -- faults and kills


@pytest.mark.parametrize("is_first", [True, False])
def test_a_repeated_step_reports_what_it_has_quarantined(pipeline, is_first):
    """The server is busy after quarantine has got the rows: the second attempt finds them there."""
    if not is_first:
        pipeline.deliver(1, "1,2026-01-01,a,1")
        pipeline.run()
    pipeline.deliver(2, "9,2026-01-02,a,x", "2,2026-01-02,a,1")

    def busy() -> None:
        raise ServerBusyError("busy", server="", uri="")

    if is_first:
        pipeline.once(LocalEngine, "fill_table", busy, when=lambda _engine, ref, *_: ref.label == "silver.t")
    else:  # the commit succeeds, and only its answer is lost
        pipeline.once(
            LogStates,
            "committed",
            busy,
            when=lambda _logs, ref, table: ref.label == "silver.t" and table.version() == 2,
        )
    report = pipeline.run()
    assert report.quarantined == 1
    pipeline.require_finished()


def test_a_quarantine_without_rejected_rows_is_rebuilt_once(pipeline):
    """Silver is not rebuilt again and again because quarantine has none of its rows."""
    pipeline.deliver(1, "1,2026-01-01,a,1", "broken")
    pipeline.run()
    pipeline.run(rebuild=("quarantine.t",))
    pipeline.require_finished()


def test_a_rebuild_of_quarantine_that_is_killed_loses_nothing(pipeline):
    """Killed after its first commit: the next run adds what was in quarantine again."""
    pipeline.deliver(1, "1,2026-01-01,a,1", "broken", "9,2026-01-01,a,x")
    pipeline.run()
    original = LogStates.load

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    pipeline._monkeypatch.setattr(LogStates, "load", kill)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(rebuild=("quarantine.t",))
    pipeline._monkeypatch.setattr(LogStates, "load", original)
    assert lakes.rows(pipeline.table("quarantine.t")) == []
    pipeline.run()
    pipeline.require_finished()


@pytest.mark.parametrize("label", ["bronze.t", "quarantine.t"])
def test_a_job_beside_a_rebuild_loses_nothing(pipeline, label):
    """A job that has opened the table before the rebuild commits to it afterwards."""
    pipeline.deliver(1, "1,2026-01-01,a,1", "broken", "9,2026-01-01,a,x")
    pipeline.run()
    pipeline.deliver(2, "2,2026-01-02,a,1", "broken", "8,2026-01-02,a,x")
    pipeline.once(bronze, "upload", lambda: pipeline.run(rebuild=(label,)))
    pipeline.run()
    pipeline.require_finished()


# -- a MERGE, which on Spark reads the newest version of the table and is committed by the server


@pytest.mark.parametrize("label", ["silver.t", "silver.t_history"])
@pytest.mark.parametrize("change", ["RESTORE", "DELETE"])
def test_rows_that_are_removed_before_a_merge_come_back(on_either_engine, label, change):
    """The MERGE must not hide that another program removed rows."""
    pipeline = on_either_engine
    pipeline.run_two_days()
    pipeline.deliver(3, "3,2026-01-03,a,1")

    def other() -> None:
        table = pipeline.table(label)
        table.restore(1) if change == "RESTORE" else table.delete("k = 1")

    before_merge(pipeline, label, other)
    pipeline.run()
    pipeline.run(LocalEngine)
    pipeline.require_finished()


@pytest.mark.slow
def test_rows_that_are_removed_right_after_the_servers_merge_come_back(pipeline, open_spark):
    """The server has committed, and the run has not recorded that yet."""
    pipeline.run_two_days()
    pipeline.deliver(3, "3,2026-01-03,a,1")
    pipeline.once(
        DeltaTable,
        "update_incremental",
        lambda: pipeline.table("silver.t").delete("k = 1"),
        when=lambda table: is_at(table, "silver.t"),
    )
    pipeline.run(open_spark)
    pipeline.run()
    pipeline.require_finished()


@pytest.mark.slow
def test_a_foreign_merge_is_not_taken_for_the_runs_own(pipeline, open_spark):
    """The run's own MERGE has nothing to change, so it makes no commit."""
    pipeline.run_two_days()
    pipeline.deliver(3, "1,2025-12-01,older,1")
    pipeline.open_engine = open_spark

    def merge_in_another_session() -> None:
        address = pipeline.table("silver.t").table_uri.rstrip("/")
        with open_spark(pipeline.lake) as engine:
            engine.session.sql(
                f"MERGE INTO delta.`{address}` AS target USING (SELECT 1L AS k) AS source ON target.k = source.k"
                " WHEN MATCHED THEN UPDATE SET v = 'changed'"
            ).collect()

    before_merge(pipeline, "silver.t", merge_in_another_session)
    pipeline.run()
    assert DeltaLog.of_table(pipeline.table("silver.t")).commit(3).operation == "MERGE"
    pipeline.run(LocalEngine)
    pipeline.require_finished()


@pytest.mark.slow
def test_a_run_that_ends_after_the_servers_merge_is_completed_by_the_next(pipeline, open_spark):
    """It has not recorded the MERGE, and the note of the next run says that."""
    pipeline.run_two_days()
    pipeline.deliver(3, "3,2026-01-03,a,1")

    def end() -> None:
        raise KeyboardInterrupt

    pipeline.once(commits, "record", end, when=lambda table, *_: is_at(table, "silver.t"))
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(open_spark)
    notes = lakes.RecordingProgress()
    lakes.job(pipeline.lake, pipeline.landing, pipeline.described, notes, layers=SILVER)
    reason = "it was changed by a MERGE that no run has recorded (version 3)"
    assert notes.sentences == [f"silver.t is rebuilt, because {reason}"]
    pipeline.require_finished()


def test_broken_lines_that_a_restore_removes_before_a_merge_come_back(on_either_engine):
    """The MERGE into quarantine notes that problems are resolved."""
    pipeline = on_either_engine
    pipeline.run_two_days("9{day},2026-01-0{day},a,3", "broken")
    pipeline.described.write_text(lakes.ONE_TABLE.replace("n = {", "n = { max = 2,"), encoding="utf-8")
    pipeline.run(LocalEngine)
    pipeline.described.write_text(lakes.ONE_TABLE, encoding="utf-8")
    before_merge(pipeline, "quarantine.t", lambda: pipeline.table("quarantine.t").restore(1))
    pipeline.run()
    pipeline.run(LocalEngine)
    pipeline.require_finished()


@pytest.mark.parametrize("label", ["silver.t", "silver.t_history"])
def test_another_job_that_merges_first(on_either_engine, label):
    """The other job knew one file more: its rows are not inserted again, and what it has covered is not forgotten."""
    pipeline = on_either_engine
    pipeline.run_two_days()
    pipeline.deliver(3, "3,2026-01-03,a,1", "1,2026-01-03,b,1")

    def other_job() -> None:
        pipeline.deliver(4, "4,2026-01-04,a,1", "1,2026-01-04,c,1")
        pipeline.run()

    before_merge(pipeline, label, other_job)
    pipeline.run()
    pipeline.run(LocalEngine)
    pipeline.require_finished()


@pytest.mark.slow
def test_a_compaction_while_the_server_commits_is_a_conflict(lake, keys, open_spark, tmp_path, monkeypatch):
    """The server gives up its MERGE, and the run repeats the step."""
    from lakehouse_utils.pipeline.engines.spark import SparkEngine

    direct = Pipeline(lake, tmp_path, monkeypatch)
    direct.run_two_days()
    direct.deliver(3, "3,2026-01-03,a,1")
    compacted: list[str] = []

    def compact(method: str, path: str) -> None:
        if method == "PUT" and not compacted and re.search(r"silver/t/_delta_log/0+3\.json", path):
            compacted.append(path)
            direct.table("silver.t").optimize.compact()

    with proxy_to(keys["AWS_ENDPOINT_URL"], compact) as endpoint:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
            monkeypatch.setenv(name, keys[name])
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        through = Pipeline(Lake.open(lake.root), tmp_path, monkeypatch, SparkEngine)
        through.run()
    assert DeltaLog.of_table(direct.table("silver.t")).commit(3).operation == "OPTIMIZE"
    assert direct.differences() == {}
