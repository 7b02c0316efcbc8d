"""The command line of the job: options, exit codes, and what is printed where."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ingestion_processor
from lakehouse_utils import settings

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
    """Run the command in this process, on a lake of its own."""
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
        f"2 rows or files were quarantined: {prefix}/quarantine/<table> has each with the reason.",
    ]
    assert re.fullmatch(rf"{prefix} is up to date after \d+\.\d s\.", last)
    assert result.stderr.startswith(
        "Note: gold is left out: it is the star schema of the bicycle shop, and the source descriptions have no tables"
        " brands, categories,"
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
    assert list(report)[:4] == ["engine", "lake", "seconds", "rows"]
    assert (report["engine"], report["lake"]) == ("local", prefix)
    assert report["rows"]["bronze.t"] == {
        "read": 4,
        "added": 3,
        "changed": 0,
        "quarantined": 1,
        "version": 1,
        "last_batch": ".",
    }
    assert report["rows"]["silver.t"] == {
        "read": 3,
        "added": 2,
        "changed": 0,
        "quarantined": 1,
        "version": 1,
        "last_batch": ".",
    }


def test_only_selected_layers_and_tables_run(job):
    """--layers and --tables restrict the run."""
    assert job("--layers", "bronze").stdout.startswith("bronze.t: ")
    lines = job("--layers", "silver", "--tables", "t").stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-2]] == ["silver.t"]


def test_unknown_names_are_refused(job):
    """Unknown tables, layers and options are errors that list the valid names."""
    assert error(job("--tables", "t,nobody")).startswith(
        "--tables: no table is called nobody. The tables are t, other, dim_"
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
            "Gold is the star schema of the bicycle shop, and the source descriptions have no tables brands",
        ),
        (["--landing", "/[red]no[/red]:apple:"], "The landing folder /[red]no[/red]:apple: does not exist. Check"),
    ],
)
def test_errors_are_one_line_that_names_the_setting(job, arguments, sentence):
    """Wrong options end the job with one line that names the option or setting to change."""
    assert error(job(*arguments)).startswith(sentence)


def test_an_unwritable_report_fails_before_the_work(job, prefix, monkeypatch):
    """The job does not start if its report cannot be written."""
    monkeypatch.setattr(ingestion_processor, "run", lambda *_: pytest.fail("the work was started"))
    assert "Change --report." in error(job("--report", "/no/such/folder/r.json"))


def test_an_unexpected_error_is_one_line_and_verbose_adds_the_traceback(job, monkeypatch):
    """An unexpected exception is one line as well; --verbose prints its traceback."""

    def fails(*_):
        raise ZeroDivisionError("[bold]7[/bold]\nis not 0")

    monkeypatch.setattr(ingestion_processor, "run", fails)
    assert error(job()) == "Unexpected ZeroDivisionError: [bold]7[/bold] is not 0 (--verbose shows where.)"
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
    assert quarantine == f"2 rows or files were quarantined: {prefix}/quarantine/<table> has each with the reason."
    assert re.fullmatch(rf"{prefix} is up to date after \d+\.\d s\.", end)
    assert next_step == "Next: `make lab` opens the notebooks, which read these tables."


def test_ctrl_c_exits_with_130_and_one_line(shop, prefix, s3_state_dir):
    """Ctrl+C in the middle of a load exits with 130, with one line and no traceback."""
    (shop / "landing" / "t.csv").write_text("k\n" + "".join(f"{n}\n" for n in range(3_000_000)), encoding="utf-8")
    (shop / "landing" / "other.csv").write_text("k\n1\n", encoding="utf-8")
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
    assert errors == "Error: Interrupted. Finished tables stay as they are; the next run continues from there.\n"
