"""Exactly once: a second run changes nothing, and the run after a killed one completes its work."""

import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from support import crashes, faults, lakes
from support.s3_gateway import Gateway
from support.selected import slow_but

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    DamagedTableError,
    ExpiredCredentialsError,
    FailedTablesError,
    GoneError,
    InvalidCredentialsError,
    LakehouseError,
    ServerUnreachableError,
)
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import run as run_module
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.report import RunReport

SHORT = ["--layers", "bronze,silver"]
COUNTS = {"bronze.t": 9, "quarantine.t": 5, "silver.t": 3, "silver.t_history": 6}
DAYS = {
    "2026-01-01": "k,at,v,n\n1,2026-01-01,a,1\n2,2026-01-01,a,1\n3,2026-01-01,a,one\nbroken\n",
    "2026-01-03": "k,at,v,n\n1,2026-01-03,b,1\n4,2026-01-03,a,1\n5,2026-01-03,a,two\nbroken,too\n",
    "2026-01-02": "k,at,v,n,more\n1,2026-01-02,c,1,x\n2,2026-01-03,b,3,x\n6,,,three,x\n",
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder with sources.toml and the raw files of one small table, with late rows, bad rows and broken lines."""
    (tmp_path / "sources.toml").write_text(lakes.ONE_TABLE, encoding="utf-8")
    for batch, text in DAYS.items():
        (tmp_path / "landing" / batch).mkdir(parents=True)
        (tmp_path / "landing" / batch / "t.csv").write_text(text, encoding="utf-8")
    return tmp_path


# -- a second run


def test_second_run_makes_no_commit(finished):
    """A run without new files leaves every table at its version, and reports these versions."""
    before = lakes.versions(finished.lake)
    report = lakes.job(finished.lake, finished.landing)
    assert not report.changed_anything
    assert lakes.versions(finished.lake) == before
    versions = {name: counts.version for name, counts in report.rows.items()}
    assert versions == {name: version for name, version in before.items() if not name.startswith("quarantine")}


@pytest.mark.slow
def test_second_run_after_maintenance_makes_no_commit(lake, small, tmp_path):
    """Compaction, vacuum and checkpoints by others neither cause work nor change rows that come later."""
    lakes.job(lake, small)
    contents = lakes.contents(lake)
    for _, table in lakes.opened(lake):
        table.optimize.compact()
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        table.create_checkpoint()
    before = lakes.versions(lake)
    assert not lakes.job(lake, small).changed_anything
    assert lakes.versions(lake) == before
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    shutil.copytree(small / "2026-01-07", tmp_path / "2026-01-08")
    lakes.job(lake, tmp_path, tables=("customers", "orders", "fact_sales"))
    for name, rows in lakes.contents(lake).items():
        if name.startswith(("silver", "gold")):
            assert rows == contents[name], name


@pytest.mark.slow
def test_an_empty_landing_is_reported_and_can_be_filled_later(lake, tmp_path, small, small_expected):
    """Without raw files the tables are created empty, with a note; the next run fills them in a few commits."""
    progress = lakes.RecordingProgress()
    lakes.job(lake, tmp_path, progress=progress)
    assert progress.sentences == [f"there are no files to load at {tmp_path} (--landing, LAKEHOUSE_LANDING)"]
    lakes.job(lake, small)
    assert lakes.unlike(lake, small_expected) == {}
    assert {name: version for name, version in lakes.versions(lake).items() if version > 9} == {}


# -- killed jobs


@pytest.mark.parametrize("first", slow_but([], [[], ["2026-01-01"]], slow=[["2026-01-01"]]), ids=["filling", "merging"])
def test_job_killed_before_any_of_its_writes_is_completed_by_the_next(
    table, s3_server, s3_state_dir, keys, prefix, first
):
    """For every write of the job: killed before it, and started again with one more batch, the third one late."""

    def arguments(lake: Lake, batches: list[str]) -> list[str]:
        landing = table / f"landing-{len(batches)}"
        for batch in batches:
            shutil.copytree(table / "landing" / batch, landing / batch, dirs_exist_ok=True)
        return ["--lake", lake.root, "--landing", landing, "--sources", table / "sources.toml", "--quiet", *SHORT]

    output, batches = table / "output", list(DAYS)
    begun, undisturbed = (lakes.at(f"{prefix}/{name}", s3_state_dir) for name in ("begun", "undisturbed"))
    with crashes.Proxy.to(s3_server.endpoint) as proxy:
        if first:
            assert proxy.run(None, arguments(begun, first), keys, output) == 0, output.read_text()
        for arrived in filter(None, (first, batches[:2], batches)):
            assert proxy.run(None, arguments(undisturbed, arrived), keys, output) == 0, output.read_text()
        expected = lakes.contents(undisturbed)
        assert {name: len(rows) for name, rows in expected.items()} == COUNTS
        for number in itertools.count(1):
            lake = lakes.at(f"{prefix}/{number}", s3_state_dir)
            lakes.copy(begun, lake)
            code = proxy.run(number, arguments(lake, batches[: len(first) + 1]), keys, output)
            assert proxy.run(None, arguments(lake, batches), keys, output) == 0, output.read_text()
            assert lakes.contents(lake) == expected, f"killed before write {number}"
            if code == 0:
                break
        assert number > 8
        before = lakes.versions(lake)
        assert proxy.run(None, arguments(lake, batches), keys, output) == 0
        assert lakes.versions(lake) == before


def test_whole_job_killed_three_times_is_completed_by_the_next(
    small, small_expected, s3_server, s3_state_dir, keys, lake, tmp_path
):
    """Three killed runs of the complete job and a fourth run give the expected tables."""
    arguments = ["--lake", lake.root, "--landing", small, "--quiet"]
    with crashes.Proxy.to(s3_server.endpoint) as proxy:
        for kill_at in (18, 33, 48, None):
            code = proxy.run(kill_at, arguments, keys, tmp_path / "output")
            assert code == (-9 if kill_at else 0), (tmp_path / "output").read_text()
    assert lakes.unlike(lake, small_expected) == {}


@pytest.mark.slow
def test_job_killed_between_gold_tables_is_completed_by_the_next(
    table, small, small_expected, s3_server, s3_state_dir, keys, lake
):
    """Gold follows silver in several commits (dimensions, facts, marts), and any of them may be the last."""
    lakes.job(lake, small, layers=("bronze", "silver"))
    names = ("dim_products", "fact_stocks", "fact_sales", "dim_stores", "mart_product_sales", "dim_customers")
    arguments = ["--lake", lake.root, "--landing", small, "--layers", "gold", "--tables", ",".join(names)]
    with crashes.Proxy.to(s3_server.endpoint) as proxy:
        kill_at = 0
        while (code := proxy.run(kill_at := kill_at + 1, arguments, keys, table / "output")) == -9:
            pass
        assert code == 0 and kill_at > 4, (table / "output").read_text()
    lakes.job(lake, small)
    assert lakes.unlike(lake, small_expected) == {}


@pytest.mark.slow
def test_job_whose_s3_server_is_killed_starts_it_again(small, small_expected, tmp_path):
    """If the embedded server ends in the middle of the job, it is started again, and the job finishes."""
    state_dir = tmp_path / "state"
    lake = lakes.at(embedded_s3.ensure(state_dir).uri + "/killed", state_dir)
    environment, output = lakes.environment(state_dir), tmp_path / "output"
    arguments = ["--lake", lake.root, "--landing", small]
    try:
        process = crashes.start(arguments, environment, output)
        while "silver.customers:" not in output.read_text(errors="replace") if output.exists() else True:
            assert process.is_alive(), output.read_text()
            time.sleep(0.05)
        embedded_s3.stop(state_dir)
        process.join()
        assert process.exitcode == 0, output.read_text()
        assert lakes.unlike(lake, small_expected) == {}
    finally:
        embedded_s3.stop(state_dir)


# -- two jobs at the same time


def test_two_jobs_at_the_same_time_give_the_expected_rows(
    small, small_expected, s3_server, s3_state_dir, lake, tmp_path
):
    """Two jobs on one lake both succeed, and neither duplicates a row."""
    arguments = ["--lake", lake.root, "--landing", small]
    environment = lakes.environment(s3_state_dir)
    jobs = [crashes.start(arguments, environment, tmp_path / f"output{n}") for n in range(2)]
    for number, job in enumerate(jobs):
        job.join()
        assert job.exitcode == 0, (tmp_path / f"output{number}").read_text()
    assert lakes.unlike(lake, small_expected) == {}
    before = lakes.versions(lake)
    assert not lakes.job(lake, small).changed_anything
    assert lakes.versions(lake) == before


# -- faults that pass


@pytest.mark.parametrize("seed", slow_but([1], [1, 2, 4], slow=[]))
def test_faults_that_pass_neither_stop_the_job_nor_change_its_result(table, s3_server, lake, keys, seed):
    """With a fault in one of ten requests, all rows arrive once, and the report counts each file once."""
    with faults.proxy(s3_server.endpoint, rate=0.1, seed=seed) as proxy:
        arguments = ["--lake", lake.root, "--landing", table / "landing", "--sources", table / "sources.toml", *SHORT]
        arguments += ["--report", table / "report.json"]
        code = crashes.run(arguments, keys | {"AWS_ENDPOINT_URL": proxy.endpoint}, table / "output")
    assert code == 0, (table / "output").read_text()
    assert set(proxy.counts) == {"none", *faults.KINDS}, "not every fault occurred"
    assert {name: len(rows) for name, rows in lakes.contents(lake).items()} == COUNTS
    counts = json.loads((table / "report.json").read_text())["rows"]["bronze.t"]
    assert (counts["read"], counts["added"], counts["quarantined"]) == (11, 9, 2)


def test_a_server_that_stays_away_ends_the_job_after_a_limited_time(table, lake, monkeypatch):
    """An outage in the middle of the job is waited for, but not for ever, and the error is the server's."""
    monkeypatch.setattr(run_module, "_MAX_OUTAGE_S", 1.0)
    calls = []

    def no_answer(*_arguments):
        calls.append(time.monotonic())
        raise ServerUnreachableError("nothing answers", server="", uri="")

    monkeypatch.setattr(run_module.bronze, "refresh", no_answer)
    with pytest.raises(ServerUnreachableError):
        lakes.job(lake, table / "landing", table / "sources.toml", layers=("bronze",))
    assert len(calls) >= 3


def test_a_step_is_tried_three_times_if_the_server_answers_again(monkeypatch):
    """While it does not answer, no attempt is used up."""
    monkeypatch.setattr(run_module, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(run_module, "_LONGEST_PAUSE_S", 0.001)
    attempts, checks = [], []

    def fail() -> None:
        attempts.append(1)
        raise ServerUnreachableError("nothing answers", server="", uri="")

    def check_access() -> None:
        checks.append(1)
        if len(checks) < 5:
            raise ServerUnreachableError("nothing answers", server="", uri="")
        monkeypatch.setattr(run_module, "_MAX_OUTAGE_S", 0.0)

    with pytest.raises(ServerUnreachableError):
        run_module.repeat_passing_faults(fail, check_access)
    assert len(attempts) == 3


@pytest.mark.parametrize("error_class", [InvalidCredentialsError, AccessDeniedError, BucketNotFoundError])
def test_errors_that_stay_are_not_repeated(error_class):
    """What the user has to change is reported at once."""
    calls = []

    def refused() -> None:
        calls.append(1)
        raise error_class("no", server="", uri="")

    with pytest.raises(error_class):
        run_module.repeat_passing_faults(refused, lambda: pytest.fail("it was repeated"))
    assert calls == [1]


# -- one table fails


TWO_TABLES = """
[a]
key = ["k"]
[a.columns]
k = { type = "integer" }
[b]
key = ["k"]
[b.columns]
k = { type = "integer" }
"""


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with sources.toml and the raw files of two tables."""
    (tmp_path / "sources.toml").write_text(TWO_TABLES, encoding="utf-8")
    (tmp_path / "landing").mkdir()
    for name in ("a", "b"):
        (tmp_path / "landing" / f"{name}.csv").write_text("k\n1\n", encoding="utf-8")
    return tmp_path


def run_two(lake: Lake, two: Path) -> tuple[Exception, RunReport, list[str]]:
    """The error of a run, its report, and its notes."""
    progress, engine = lakes.RecordingProgress(), LocalEngine(lake)
    report = RunReport("local", lake.root)
    with pytest.raises(LakehouseError) as caught:
        run_module.run(
            RunContext(lake, engine, progress),
            str(two / "landing"),
            sources.load(two / "sources.toml"),
            run_module.Selection(("bronze", "silver")),
            report,
        )
    return caught.value, report, progress.sentences


def test_a_failed_table_does_not_stop_the_others(lake, two):
    """What is independent of the failed table is built, what needs it is skipped by name, and the error is raised."""
    lakes.job(lake, two / "landing", two / "sources.toml", layers=("bronze", "silver"))
    for name in ("a", "b"):
        (two / "landing" / f"{name}.csv").write_text("k\n2\n", encoding="utf-8")
    first = {"Bucket": lake.bucket, "Key": lake.key("bronze", "a", "_delta_log", f"{1:020}.json")}
    lake.s3.put_object(**first, Body=b"garbage")
    error, report, notes = run_two(lake, two)
    assert isinstance(error, DamagedTableError) and error.table == "bronze.a"
    assert "bronze.a is damaged: a commit file in its log is damaged" in str(error)
    assert "--rebuild bronze.a`" in str(error) and "\n" not in str(error)
    assert list(report.rows) == ["bronze.b", "silver.b"]
    assert (list(report.failed), report.skipped) == (["bronze.a"], ["silver.a"])
    assert notes == ["silver.a is skipped, because it needs bronze.a"]
    assert lake.delta("silver", "b").count() == 2


def test_several_failed_tables_are_all_named(lake, two):
    """If several tables fail, the error names each with its reason."""
    for name in ("a", "b"):
        write_deltalake(lake.uri("silver", name), pa.table({"x": [1]}), storage_options=lake.storage_options)
    error, report, _ = run_two(lake, two)
    assert isinstance(error, FailedTablesError) and error.tables == ["silver.a", "silver.b"]
    assert str(error).startswith("2 tables could not be brought up to date. silver.a: silver.a and [a] ")
    assert " silver.b: silver.b and [b] in the source descriptions do not have the same columns;" in str(error)
    assert list(report.rows) == ["bronze.a", "bronze.b"]


def test_a_data_file_that_vanished_is_gone(lake, two):
    """A data file that does not exist any more is an error that mentions vacuum, after the step was repeated."""
    lakes.job(lake, two / "landing", two / "sources.toml", layers=("bronze",))
    for entry in lake.objects(lake.key("bronze", "a", "part-")):
        lake.s3.delete_object(Bucket=lake.bucket, Key=entry["Key"])
    with pytest.raises(GoneError, match=r"an object of a table no longer exists .* vacuum .*--rebuild LAYER\.TABLE"):
        lakes.job(lake, two / "landing", two / "sources.toml", layers=("silver",))


def test_credentials_that_a_step_in_another_thread_has_renewed_are_used(gateway, prefix, tmp_path, monkeypatch):
    """If two steps fail because a profile's keys have expired, both go on when its file has been rewritten."""

    def write_profile() -> None:
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        lines = [f"{name} = {value}" for name, value in zip(names, gateway.issue(), strict=True)]
        (tmp_path / "credentials").write_text("\n".join(["[default]", *lines]), encoding="utf-8")

    write_profile()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.endpoint)
    lake = Lake.open(prefix)
    context, attempts = RunContext(lake, LocalEngine(lake), lakes.RecordingProgress()), []

    def step() -> TableCounts:
        attempts.append(lake.credentials())
        if len(attempts) == 1:
            write_profile()
            assert lake.renew_credentials()  # by the other step
            raise ExpiredCredentialsError("expired", server="", uri="")
        return TableCounts()

    run_module._retry(context, "bronze.a", step)
    assert len(set(attempts)) == 2


# -- a full disk


def small_disk(size: str, folder: Path) -> tuple[str, ...]:
    """What starts a program for which `folder` is a disk of this size; skips the test where that is not allowed."""
    mount = f'mount -t tmpfs -o size={size} tmpfs {folder} && exec "$0" "$@"'
    command = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount)
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    return command


def run_job(
    arguments: list, environment: dict[str, str], command: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    line = [*command, sys.executable, settings.CHECKOUT / "ingestion_processor.py", *arguments]
    return subprocess.run([*map(str, line)], capture_output=True, text=True, env=environment, check=False)


def test_job_on_a_full_disk_ends_with_1_and_refuses_no_file(s3, s3_state_dir, keys, tmp_path):
    """A raw file on S3 that does not fit on the local disk ends the job, and is loaded when there is space again."""
    (tmp_path / "sources.toml").write_text('[things]\nkey=["id"]\n[things.columns]\nid={type="integer"}\n')
    s3.deliver("1/things.csv", "id\n" + "".join(f"{number}\n" for number in range(1_000_000)))
    (tmp_path / "disk").mkdir()
    arguments = ["--lake", s3.lake.root, "--landing", s3.address, "--sources", tmp_path / "sources.toml", "--quiet"]
    environment = keys | {"TMPDIR": str(tmp_path / "disk")}
    done = run_job(arguments, environment, small_disk("2m", tmp_path / "disk"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("Error: Could not ") and "the disk is full" in done.stderr
    assert s3.lake.delta("quarantine", "things") is None
    assert run_job(arguments, environment).returncode == 0
    assert s3.lake.delta("silver", "things").count() == 1_000_000


# -- expiring tokens


@pytest.mark.slow
def test_a_role_is_asked_again_when_its_token_expires(small, small_expected, s3_server, s3_state_dir, tmp_path, prefix):
    """With a role, a token that expires several times during the job is renewed, and the job succeeds."""
    with Gateway.start(s3_server) as gateway:
        environment = lakes.environment(s3_state_dir, LAKEHOUSE_URI=prefix, **gateway.environment())
        process = crashes.start(["--landing", small], environment, tmp_path / "output")
        while len(gateway.requests()) < 50 and process.is_alive():
            time.sleep(0.05)
        for _ in range(4):
            gateway.expire(after=60)
            seen = len(gateway.requests())
            while len(gateway.requests()) < seen + 150 and process.is_alive():
                time.sleep(0.05)
        process.join()
        assert process.exitcode == 0, (tmp_path / "output").read_text()
        assert sum(entry["code"] == "ExpiredToken" for entry in gateway.requests()) > 2
    assert lakes.unlike(lakes.at(prefix, s3_state_dir), small_expected) == {}


@pytest.mark.parametrize("after", [5, 120, 400])
def test_fixed_keys_that_expire_end_the_job_in_one_sentence(small, s3_server, s3_state_dir, tmp_path, prefix, after):
    """Temporary keys that cannot be renewed end the job with a sentence that names the setting and no secret."""
    with Gateway.start(s3_server) as gateway:
        keys = gateway.issue()
        gateway.expire(keys, after=after)
        environment = lakes.environment(s3_state_dir, LAKEHOUSE_URI=prefix, **gateway.environment(keys))
        code = crashes.run(["--landing", small, "--quiet"], environment, tmp_path / "output")
        printed = (tmp_path / "output").read_text()
    assert code == 1
    assert printed.startswith("Error: Could not ") and printed.count("\n") == 1, printed
    assert "renew AWS_SESSION_TOKEN" in printed and keys.token not in printed and keys.secret_key not in printed
