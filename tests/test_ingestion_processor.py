"""The command line of the job: options, exit codes, and what is printed where."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from deltalake import write_deltalake
from support import lakes

import ingestion_processor
import lakehouse_utils
from lakehouse_utils import settings
from lakehouse_utils.pipeline.context import TableCounts
from lakehouse_utils.pipeline.report import ReportFile, RunReport

DESCRIPTION = '[t]\nkey=["k"]\n[t.columns]\nk={type="integer"}\n[other]\nkey=["k"]\n[other.columns]\nk={type="text"}\n'


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with sources.toml and raw files: t with two good rows, one that breaks a rule and one broken line."""
    (tmp_path / "sources.toml").write_text(DESCRIPTION, encoding="utf-8")
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "t.csv").write_text("k\n1\n2\nthree\n4,4\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def job(shop: Path, prefix: str, s3_state_dir: Path, monkeypatch):
    """Run the command in this process, on a fresh lake."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(settings, "CHECKOUT", shop)  # no .env of the developer's

    def run(*arguments: object, lake: str = prefix) -> Result:
        given = ["--lake", lake, "--landing", shop / "landing", "--sources", shop / "sources.toml", *arguments]
        return CliRunner().invoke(ingestion_processor.main, list(map(str, given)))

    return run


def error(result: Result) -> str:
    """The one line of an error; there must be nothing else."""
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.output
    return result.stderr.removeprefix("Error: ").removesuffix("\n")


def test_output_to_a_pipe_has_one_line_per_table(job, prefix):
    """In a pipe each table is one line, and the end says what was quarantined and that the lake is up to date."""
    result = job()
    assert result.exit_code == 0
    *lines, last = result.stdout.splitlines()
    assert lines == [
        "bronze.t: 4 read, 3 added, 1 quarantined",
        "silver.t: 3 read, 2 added, 1 quarantined",
        "silver.other: nothing new",
        f"2 rows or files were quarantined: see {prefix}/quarantine/<table> for each, with the reason.",
    ]
    assert re.fullmatch(rf"{prefix} is up to date after \d+\.\d s\.", last)
    assert result.stderr.startswith(
        "Note: gold is left out: it is the star schema of the bicycle shop, and these tables are not described: brands,"
        " categories,"
    )
    again = job("--layers", "bronze,silver")
    assert "Nothing new: every table was up to date already." in again.stdout.splitlines()
    assert again.stderr == ""


def test_local_engine_does_not_import_pandas(shop, prefix, s3_state_dir):
    """Neither pandas nor Polars is imported, because that takes seconds; the job does its work without them."""
    command = [sys.executable, "-X", "importtime", settings.CHECKOUT / "ingestion_processor.py", "--lake", prefix]
    command += ["--landing", shop / "landing", "--sources", shop / "sources.toml", "--verbose"]
    environment = os.environ | {"LAKEHOUSE_STATE_DIR": str(s3_state_dir)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "2 rows or files were quarantined" in done.stdout, done.stderr[-2000:]
    imported = re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE)
    assert "duckdb" in imported and [name for name in imported if name.startswith(("pandas.", "polars."))] == []


def test_strict_exits_with_3_if_rows_were_quarantined(job):
    """--strict exits with 3 in the run that quarantines rows, and with 0 in the next one."""
    assert job("--strict").exit_code == 3
    assert job("--strict").exit_code == 0  # the second time there were none


def test_quiet_prints_nothing(job, shop):
    """--quiet suppresses tables, notes and summary."""
    (shop / "landing" / "unknown.csv").write_text("k\n1\n", encoding="utf-8")
    assert job("--quiet").output == ""


def test_an_unreadable_file_is_named_even_when_quiet(job, shop):
    """A file that cannot be read is named on stderr and in the report, and makes the job exit with 4 in every run."""
    (shop / "landing" / "other.parquet").write_bytes(b"no parquet")
    for strict in (["--strict"], [], []):
        result = job("--quiet", *strict, "--report", shop / "r.json")
        assert result.exit_code == 4
        assert result.stderr.startswith("Could not read other.parquet: ") and result.stdout == ""
        report = json.loads((shop / "r.json").read_text())
        assert report["refused"][0].startswith("other.parquet: ")
        assert (report["status"], report["exit_code"]) == ("refused", 4)


def test_report_has_counts_and_versions(job, shop, prefix):
    """--report writes the counts and the version of each table, with stable keys."""
    assert job("--report", shop / "report.json").exit_code == 0
    report = json.loads((shop / "report.json").read_text(encoding="utf-8"))
    assert all(counts.pop("seconds") > 0 for name, counts in report["rows"].items() if name.endswith(".t"))
    assert list(report)[:4] == ["engine", "lake", "seconds", "rows"]
    assert (report["engine"], report["lake"]) == ("local", prefix)
    assert report["rows"]["bronze.t"] == {
        "read": 4,
        "added": 3,
        "changed": 0,
        "quarantined": 1,
        "version": 1,
        "last_batch": ".",
        "rebuilt": None,
    }
    assert report["rows"]["silver.t"] == {
        "read": 3,
        "added": 2,
        "changed": 0,
        "quarantined": 1,
        "version": 1,
        "last_batch": ".",
        "rebuilt": None,
    }


def test_report_says_how_and_when_the_run_ended(job, shop, prefix):
    """The report identifies the run, the code and the end; each run has its own ID."""
    reports = []
    for number, arguments in enumerate([[], ["--strict"]]):
        (shop / "landing" / "t.csv").write_text(f"k\n{number}\nx{number}\n", encoding="utf-8")
        job("--report", shop / "report.json", *arguments)
        reports.append(json.loads((shop / "report.json").read_text(encoding="utf-8")))
    assert [(report["status"], report["exit_code"]) for report in reports] == [("quarantined", 0), ("quarantined", 3)]
    assert len({uuid.UUID(report["run_id"]) for report in reports}) == 2
    for report in reports:
        assert datetime.fromisoformat(report["started_at"]) < datetime.fromisoformat(report["ended_at"])
        assert report["version"] == lakehouse_utils.__version__
        assert report["error"] is None and report["failed"] == {} and report["skipped"] == []
    (shop / "landing" / "t.csv").write_text("k\n5\n", encoding="utf-8")
    assert job("--report", shop / "report.json", "--strict").exit_code == 0
    assert json.loads((shop / "report.json").read_text())["status"] == "ok"
    assert [path.name for path in shop.glob("*report*")] == ["report.json"]  # and no temporary file


def test_every_run_is_recorded_in_the_lake(job, shop, prefix, s3_state_dir):
    """The table of runs has a row for a run that worked, that refused a file, that failed, or had nothing to do."""
    ends = [job().exit_code]
    (shop / "landing" / "other.parquet").write_bytes(b"no parquet")
    ends.append(job().exit_code)
    (shop / "landing" / "other.parquet").unlink()
    ends.append(job("--rebuild", "silver.missing").exit_code)
    ends.append(job().exit_code)
    runs = lakes.at(prefix, s3_state_dir).delta("operations", "runs").to_pyarrow_table().to_pylist()
    runs.sort(key=lambda row: row["started_at"])
    assert [row["exit_code"] for row in runs] == ends == [0, 4, 1, 0]
    assert [row["status"] for row in runs] == ["quarantined", "refused", "failed", "ok"]
    assert runs[1]["refused"] and runs[2]["error_class"] == "SettingError"
    changed = [[entry["name"] for entry in row["tables"] if entry["status"] == "changed"] for row in runs]
    assert changed == [["bronze.t", "silver.t"], [], [], []]


def test_a_run_that_cannot_be_recorded_says_so(job, prefix, s3_state_dir):
    """A damaged table of runs is a note, and does not change the exit code."""
    assert job().exit_code == 0
    lake = lakes.at(prefix, s3_state_dir)
    for entry in list(lake.objects(lake.key("operations", "runs", "_delta_log", ""))):
        lake.s3.put_object(Bucket=lake.bucket, Key=entry["Key"], Body=b"garbage")
    result = job()
    assert result.exit_code == 0
    assert "Note: could not add this run to operations.runs: " in result.stderr and "Traceback" not in result.output


def test_report_names_the_commit_of_the_checkout(tmp_path, monkeypatch):
    """The commit is that of this checkout, and none if the code is not in a checkout."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=settings.CHECKOUT, capture_output=True, text=True)
    assert RunReport("local", "s3://lakehouse").commit == (head.stdout.strip() or None)
    monkeypatch.setattr(settings, "CHECKOUT", tmp_path)
    assert RunReport("local", "s3://lakehouse").commit is None


@pytest.mark.parametrize(
    ("arguments", "code", "error_class"),
    [
        (["--landing", "/no/such/folder"], 1, "SettingError"),
        (["--sources", "/no/such.toml"], 1, "DescriptionError"),
        (["--lake", "http://x"], 1, "SettingError"),
        (["--layers", "platinum"], 2, "UsageError"),
        (["--nonsense"], 2, "UsageError"),
    ],
)
def test_report_of_a_run_that_failed_replaces_the_last_one(job, shop, arguments, code, error_class):
    """Whatever ends the run, the report says so, and never shows an earlier success."""
    (shop / "report.json").write_text('{"status": "ok"}')
    result = job("--report", shop / "report.json", *arguments)
    report = json.loads((shop / "report.json").read_text())
    assert (result.exit_code, report["status"], report["exit_code"]) == (code, "failed", code)
    assert report["error"]["class"] == error_class and report["error"]["message"] in result.stderr


def test_report_of_a_killed_run_says_that_it_is_running(shop, prefix, s3_state_dir):
    """A run that is killed leaves the time of its start, and no success of an earlier run."""
    path = shop / "report.json"
    path.write_text('{"status": "ok"}')
    (shop / "landing" / "t.csv").write_text("k\n" + "".join(f"{n}\n" for n in range(3_000_000)), encoding="utf-8")
    process = subprocess.Popen(
        command(shop, prefix, "--report", str(path)), stdout=subprocess.PIPE, env=environment(s3_state_dir)
    )
    while process.poll() is None and json.loads(path.read_text())["status"] == "ok":
        time.sleep(0.01)
    process.kill()
    process.communicate()
    report = json.loads(path.read_text())
    assert (report["status"], report["ended_at"], report["exit_code"]) == ("running", None, None)
    assert datetime.fromisoformat(report["started_at"])


def test_report_file_that_cannot_be_replaced_is_written_in_place(shop):
    """A device, and a link to a file, stay what they are."""
    report = RunReport("local", "s3://lakehouse")
    (shop / "link.json").symlink_to(shop / "target.json")
    ReportFile(shop / "link.json", report).write()
    assert (shop / "link.json").is_symlink()
    assert json.loads((shop / "target.json").read_text())["status"] == "running"
    ReportFile(Path(os.devnull), report).write()
    assert not Path(os.devnull).is_file()


def test_report_to_a_pipe_is_one_document(shop, prefix, s3_state_dir):
    """`--report /dev/stdout | jq` reads the report of the end, and not the one that says `running`."""
    command = [sys.executable, "ingestion_processor.py", "--lake", prefix, "--landing", str(shop / "landing")]
    command += ["--sources", str(shop / "sources.toml"), "--quiet", "--report", "/dev/stdout"]
    environment = lakes.environment(s3_state_dir)
    done = subprocess.run(command, cwd=settings.CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "quarantined"


def test_check_prints_problems_and_exits_with_5(job, shop, prefix, s3_state_dir):
    """A lake without problems ends with 0; one with problems ends with 5 and names table, check, and what to do."""
    job()
    result = job("--check", "--report", shop / "report.json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "bronze.t: 3 rows in 1 file",
        "operations.runs: 1 row in 1 file",
        "quarantine.t: 2 rows in 2 files",
        "silver.other: 0 rows in 0 files",
        "silver.t: 2 rows in 1 file",
        f"No problems in {prefix}.",
    ]
    report = json.loads((shop / "report.json").read_text())
    assert (report["command"], report["status"], report["problems"]) == ("check", "ok", [])
    table = lakes.at(prefix, s3_state_dir).delta("silver", "t")
    write_deltalake(table, table.to_pyarrow_table(), mode="append")
    result = job("--check", "--report", shop / "report.json")
    assert result.exit_code == 5
    assert "silver.t (keys): 2 surplus rows for 2 keys (k 1; k 2). `ingestion_processor.py --rebuild" in result.stderr
    assert result.stderr.splitlines()[-1] == f"2 problems in {prefix}."
    report = json.loads((shop / "report.json").read_text())
    assert (report["status"], report["exit_code"]) == ("failed", 5)
    assert [(problem["table"], problem["check"]) for problem in report["problems"]] == [
        ("silver.t", "keys"),
        ("silver.t", "progress"),
    ]
    runs = lakes.at(prefix, s3_state_dir).delta("operations", "runs").to_pyarrow_table().to_pylist()
    assert [row["command"] for row in runs] == ["run"], "a check changes nothing"


def test_missing_columns_are_an_error_when_strict(job, monkeypatch):
    """A described column that a file lacks makes --strict exit with 3, and nothing else."""

    def run_without_a_column(*arguments):
        arguments[-1].rows["bronze.t"] = TableCounts(missing_columns=["t.csv has no column v"])

    monkeypatch.setattr(ingestion_processor, "run", run_without_a_column)
    assert (job().exit_code, job("--strict").exit_code) == (0, 3)


def test_only_selected_layers_and_tables_run(job):
    """--layers and --tables restrict the run."""
    assert job("--layers", "bronze").stdout.startswith("bronze.t: ")
    lines = job("--layers", "silver", "--tables", "t").stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-2]] == ["silver.t"]


def test_lake_without_tables_is_named(job, prefix, s3_state_dir):
    """A wrong address of the lake looks like a healthy one, so it is a note; nothing is written there."""
    for action in ("--check", "--status", "--maintain"):
        result = CliRunner().invoke(ingestion_processor.main, ["--lake", prefix, action])
        assert (result.exit_code, f"Note: there are no tables at {prefix} (--lake, " in result.stderr) == (0, True)
    lake = lakes.at(prefix, s3_state_dir)
    assert [entry["Key"] for entry in lake.objects(lake.key("operations"))] == []


def test_options_that_an_action_ignores_are_refused(job):
    """--check and --status are about all tables and load nothing, so the options of a run are refused with them."""
    for action in ("--check", "--status", "--maintain"):
        for option in (["--rebuild", "silver.t"], ["--strict"], ["--engine", "spark"]):
            result = job(action, *option)
            assert (result.exit_code, f"{action} cannot be combined with" in result.stderr) == (2, True), result.output
    assert job("--check", "--tables", "t").exit_code == job("--status", "--layers", "silver").exit_code == 2
    assert "--check cannot be combined with --status." in job("--check", "--status").stderr


def test_unknown_names_are_refused(job):
    """Unknown tables, layers and options are errors that list the valid names."""
    assert error(job("--tables", "t,missing")).startswith(
        "--tables: no table is called missing. The tables are t, other, dim_"
    )
    wrong = job("--layers", "bronze,platinum")
    assert wrong.exit_code == 2
    assert "'platinum' is not one of bronze, silver, gold." in wrong.stderr
    assert job("--nonsense").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--landing", "/no/such/folder"], "The landing folder /no/such/folder does not exist. Check --landing or LAK"),
        (["--sources", "/no/such.toml"], "Could not read the source descriptions /no/such.toml: No such file or dir"),
        (
            ["--lake", "http://x/y"],
            "The lake's address 'http://x/y' is invalid: it must look like s3://bucket or s3://b",
        ),
        (["--report", "/no/such/folder/r.json"], "Could not write the report to /no/such/folder/r.json: No such file "),
        (
            ["--layers", "gold"],
            "Gold cannot be built: it is the star schema of the bicycle shop, and these tables are not described: br",
        ),
        (["--tables", "t,dim_date"], "Gold cannot be built: it is the star schema of the bicycle shop, and these ta"),
        (["--landing", "/[red]no[/red]:apple:"], "The landing folder /[red]no[/red]:apple: does not exist. Check"),
    ],
)
def test_errors_are_one_line_that_names_the_setting(job, arguments, sentence):
    """Wrong options end the job with one line that names the option or setting to change."""
    assert error(job(*arguments)).startswith(sentence)


def test_a_rebuild_is_refused_before_anything_is_changed(job, prefix, s3_state_dir):
    """If the rest of the command cannot work, the table that is to be rebuilt stays as it is."""
    job()
    assert error(job("--rebuild", "bronze.t", "--tables", "t,dim_date")).startswith("Gold cannot be built")
    assert lakes.at(prefix, s3_state_dir).delta("bronze", "t").count() == 3


def test_tables_that_only_have_names_of_the_shop_have_no_gold(job, shop):
    """Another shop's orders are not the bicycle shop's: its gold is left out completely."""
    (shop / "sources.toml").write_text(DESCRIPTION.replace("[t", "[orders"), encoding="utf-8")
    (shop / "landing" / "t.csv").rename(shop / "landing" / "orders.csv")
    result = job()
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Note: gold is left out: ")
    assert "gold." not in result.stdout


def test_an_unwritable_report_fails_before_the_work(job, prefix, monkeypatch):
    """The job does not start if its report cannot be written."""
    monkeypatch.setattr(ingestion_processor, "run", lambda *_: pytest.fail("the work was started"))
    assert "Change --report." in error(job("--report", "/no/such/folder/r.json"))


def test_an_unexpected_error_is_one_line_and_verbose_adds_the_traceback(job, monkeypatch):
    """An unexpected exception is one line as well; --verbose prints its traceback."""

    def fails(*_):
        raise ZeroDivisionError("[bold]7[/bold]\nis not 0")

    monkeypatch.setattr(ingestion_processor, "run", fails)
    sentence = "Unexpected ZeroDivisionError: [bold]7[/bold] is not 0 (Run again with --verbose to see where.)"
    assert error(job()) == sentence
    loud = job("--verbose")
    assert loud.exit_code == 1
    assert "Traceback" in loud.stderr and "in fails" in loud.stderr


def test_markup_in_names_is_printed_as_it_is(job, shop):
    """Text such as [red] in the name of a file is no formatting."""
    (shop / "landing" / "[red]x[bold].csv").write_text("k\n1\n", encoding="utf-8")
    assert "Note: [red]x[bold].csv is ignored: the source descriptions have no table '[red]x[bold]'" in job().stderr


# -- real processes


def environment(s3_state_dir: Path) -> dict[str, str]:
    return os.environ | {"LAKEHOUSE_STATE_DIR": str(s3_state_dir), "TERM": "xterm-256color", "COLUMNS": "120"}


def command(shop: Path, prefix: str, *more: str) -> list[str]:
    job = [sys.executable, ingestion_processor.__file__, "--lake", prefix, "--landing", str(shop / "landing")]
    return [*job, "--sources", str(shop / "sources.toml"), *more]


def test_a_reader_that_ends_early_does_not_stop_the_job(shop, prefix, s3_state_dir):
    """With `| head -1` the job ends quietly, with all its work done."""
    process = subprocess.Popen(
        command(shop, prefix), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(s3_state_dir)
    )
    assert process.stdout.readline().startswith("bronze.t: ")
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert errors.startswith("Note: gold is left out") and errors.count("\n") == 1
    assert lakes.at(prefix, s3_state_dir).delta("silver", "t").count() == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_output_that_cannot_be_written(shop, prefix, s3_state_dir):
    """If the output cannot be written, the work is done, and the job ends with 1 and a sentence."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(shop, prefix, "--layers", "bronze,silver"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(s3_state_dir),
        )
    assert (done.returncode, done.stderr) == (
        1,
        (
            "Error: The command finished, but its output could not be written: No space left on device. Redirect"
            " it to another place.\n"
        ),
    )
    assert lakes.at(prefix, s3_state_dir).delta("silver", "t").count() == 2


def test_letters_that_the_output_cannot_show_are_escaped(shop, prefix, s3_state_dir):
    """A table with letters beyond ASCII is built when the output is ASCII only; they are printed as escapes."""
    (shop / "sources.toml").write_text(
        '["ärzte"]\nkey=["k"]\n["ärzte".columns]\nk={type="integer"}\n', encoding="utf-8"
    )
    (shop / "landing" / "ärzte.csv").write_text("k\n1\n", encoding="utf-8")
    (shop / "landing" / "t.csv").unlink()
    ascii_only = environment(s3_state_dir) | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command(shop, prefix), capture_output=True, text=True, env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["bronze.\\xe4rzte: 1 read, 1 added", "silver.\\xe4rzte: 1 read, 1 added"]


def test_control_characters_in_names_do_not_reach_the_terminal(job, shop):
    """A file's name can neither move the cursor nor fake a line of the output."""
    (shop / "landing" / "x\nError: y\x1b[31m.csv").write_text("k\n1\n", encoding="utf-8")
    (shop / "landing" / "z\x1b[2J.parquet").write_bytes(b"no Parquet")
    result = job("--layers", "bronze")
    assert "\x1b" not in result.output and "\nError: y" not in result.output
    assert "Note: x\\nError: y\\x1b[31m.csv is ignored" in result.stderr
    assert error(job("--landing", "/no\x1b[31m\nError: all is well")).startswith(
        "The landing folder /no\\x1b[31m Error: all is well does not"
    )


def test_output_to_a_terminal_shows_each_table_once(shop, prefix, s3_state_dir):
    """In a terminal each table is one line with its counts, and the end says what to do next."""
    ours, theirs = pty.openpty()
    arguments = command(shop, prefix, "--layers", "bronze,silver")
    process = subprocess.Popen(arguments, stdout=theirs, stderr=theirs, stdin=theirs, env=environment(s3_state_dir))
    os.close(theirs)
    printed = b""
    try:
        while part := os.read(ours, 1 << 16):
            printed += part
    except OSError:  # on Linux, reading from a terminal whose other end is closed is an error
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0, printed
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.decode())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert any(re.fullmatch(r". bronze\.t +[━╸╺ ]+ \d:\d\d:\d\d", line) for line in lines), "no progress was shown"
    *tables, quarantine, end, next_step = [line for line in lines if not re.search(r" \d:\d\d:\d\d$", line)]
    assert tables == [
        "✓ bronze.t                  4 read, 3 added, 1 quarantined",
        "✓ silver.t                  3 read, 2 added, 1 quarantined",
        "✓ silver.other              nothing new",
    ]
    assert quarantine == f"2 rows or files were quarantined: see {prefix}/quarantine/<table> for each, with the reason."
    assert re.fullmatch(rf"{prefix} is up to date after \d+\.\d s\.", end)
    assert next_step == "Next: `make lab` opens the notebooks, which read these tables."


def test_ctrl_c_exits_with_130_and_one_error(shop, prefix, s3_state_dir):
    """Ctrl+C in the middle of a load exits with 130, with one error, at most a note before it, and no traceback."""
    many = "".join(f"{n}\n" for n in range(4_000_000))  # seconds of work are left when bronze.t is ready
    (shop / "landing" / "other.csv").write_text(f"k\n{many}", encoding="utf-8")
    process = subprocess.Popen(
        command(shop, prefix, "--tables", "other,t"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(s3_state_dir) | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout.readline().startswith("bronze.t: ")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    note = "Note: interrupted; the run ends when the commits that have begun are finished\n"  # if that takes a moment
    ending = "Error: Interrupted. Finished tables stay as they are; the next run continues from there.\n"
    assert errors.removeprefix(note) == ending
