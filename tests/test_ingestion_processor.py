"""The command line: options, exit codes, what is printed where."""

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


def test_in_a_pipe_it_prints_a_line_a_table(job, prefix):
    result = job()
    assert result.exit_code == 0
    *lines, last = result.stdout.splitlines()
    assert lines == [
        "bronze.t: 4 read, 3 added, 1 quarantined",
        "silver.t: 3 read, 2 added, 1 quarantined",
        "silver.other: nothing new",
        f"2 rows or files are in quarantine: {prefix}/quarantine/<table> says which and why.",
    ]
    assert re.fullmatch(rf"{prefix} is up to date after \d+\.\d s\.", last)
    assert result.stderr.startswith("Note: gold is left out: it is the bicycle shop's, and these sources lack brands,")
    again = job("--layers", "bronze,silver")
    assert "Nothing new: every table was up to date, and none was written." in again.stdout.splitlines()
    assert again.stderr == ""


def test_pandas_which_takes_seconds_to_import_stays_out(shop, prefix, s3_state_dir):
    command = [sys.executable, "-X", "importtime", settings.CHECKOUT / "ingestion_processor.py", "--lake", prefix]
    command += ["--landing", shop / "landing", "--sources", shop / "sources.toml", "--verbose"]
    environment = os.environ | {"LAKEHOUSE_STATE_DIR": str(s3_state_dir)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "2 rows or files are in quarantine" in done.stdout, done.stderr[-2000:]
    imported = re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE)
    assert "duckdb" in imported and [name for name in imported if name.startswith(("pandas.", "polars."))] == []


def test_strict_exits_with_3_when_rows_were_quarantined(job):
    assert job("--strict").exit_code == 3
    assert job("--strict").exit_code == 0  # the second time there were none


def test_quiet_prints_nothing(job, shop):
    (shop / "landing" / "unknown.csv").write_text("k\n1\n", encoding="utf-8")
    assert job("--quiet").output == ""


def test_a_file_that_can_t_be_read_is_named_even_when_quiet(job, shop):
    (shop / "landing" / "other.parquet").write_bytes(b"no parquet")
    result = job("--quiet", "--strict", "--report", shop / "r.json")
    assert result.exit_code == 3
    assert result.stderr.startswith("Could not read other.parquet: ") and result.stdout == ""
    assert json.loads((shop / "r.json").read_text())["refused"][0].startswith("other.parquet: ")


def test_the_report_has_counts_and_versions(job, shop, prefix):
    assert job("--report", shop / "report.json").exit_code == 0
    report = json.loads((shop / "report.json").read_text(encoding="utf-8"))
    assert list(report)[:4] == ["engine", "lake", "seconds", "rows"]
    assert (report["engine"], report["lake"]) == ("local", prefix)
    assert report["rows"]["bronze.t"] == {"read": 4, "added": 3, "changed": 0, "quarantined": 1, "version": 1}
    assert report["rows"]["silver.t"] == {"read": 3, "added": 2, "changed": 0, "quarantined": 1, "version": 1}


def test_layers_and_tables_are_chosen(job):
    assert job("--layers", "bronze").stdout.startswith("bronze.t: ")
    lines = job("--layers", "silver", "--tables", "t").stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-2]] == ["silver.t"]


def test_unknown_names_are_refused(job):
    assert error(job("--tables", "t,nobody")).startswith(
        "--tables: no table is called nobody; there are t, other, dim_"
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
        (["--lake", "http://x/y"], "The lake's address 'http://x/y' must look like s3://bucket or s3://bucket/prefix"),
        (["--report", "/no/such/folder/r.json"], "The report can't be written to /no/such/folder/r.json: No such fil"),
        (["--layers", "gold"], "Gold is the bicycle shop's star schema; these sources lack its tables brands"),
        (["--landing", "/[red]no[/red]:apple:"], "The landing folder /[red]no[/red]:apple: does not exist. Check"),
    ],
)
def test_failures_are_one_sentence_that_names_the_setting(job, arguments, sentence):
    assert error(job(*arguments)).startswith(sentence)


def test_an_unwritable_report_is_found_before_the_work(job, prefix, monkeypatch):
    monkeypatch.setattr(ingestion_processor, "run", lambda *_: pytest.fail("it went to work"))
    assert "Check --report." in error(job("--report", "/no/such/folder/r.json"))


def test_what_nobody_foresaw_is_one_sentence_too_and_verbose_shows_where(job, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("[bold]7[/bold]\nis not 0")

    monkeypatch.setattr(ingestion_processor, "run", fails)
    assert error(job()) == "Unexpected ZeroDivisionError: [bold]7[/bold] is not 0 (--verbose shows where.)"
    loud = job("--verbose")
    assert loud.exit_code == 1
    assert "Traceback" in loud.stderr and "in fails" in loud.stderr


def test_marks_in_names_are_printed_as_they_are(job, shop):
    (shop / "landing" / "[red]x[bold].csv").write_text("k\n1\n", encoding="utf-8")
    assert "Note: [red]x[bold].csv: no table '[red]x[bold]' is described; left alone" in job().stderr


# -- real processes


def environment(s3_state_dir: Path) -> dict[str, str]:
    return os.environ | {"LAKEHOUSE_STATE_DIR": str(s3_state_dir), "TERM": "xterm-256color", "COLUMNS": "120"}


def command(shop: Path, prefix: str, *more: str) -> list[str]:
    job = [sys.executable, ingestion_processor.__file__, "--lake", prefix, "--landing", str(shop / "landing")]
    return [*job, "--sources", str(shop / "sources.toml"), *more]


def test_in_a_terminal_it_shows_progress_and_ends_with_a_table(shop, prefix, s3_state_dir):
    ours, theirs = pty.openpty()
    arguments = command(shop, prefix, "--layers", "bronze,silver")
    process = subprocess.Popen(arguments, stdout=theirs, stderr=theirs, stdin=theirs, env=environment(s3_state_dir))
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:  # Linux says so when the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0, shown
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    lines = [re.sub(r"\s+", " ", line).strip() for line in re.split(r"[\r\n]+", text)]
    progress = [line for line in lines if line.startswith("✓ bronze.t")]
    assert re.fullmatch(r"✓ bronze\.t ━+ 4 read, 3 added, 1 quarantined \d:\d\d:\d\d", progress[-1])
    final = lines[lines.index(next(line for line in lines if line.startswith("┃ table"))) :]
    assert final[0] == "┃ table ┃ read ┃ added ┃ changed ┃ quarantined ┃ version ┃"
    assert final[2:5] == [
        "│ bronze.t │ 4 │ 3 │ 0 │ 1 │ 1 │",
        "│ silver.t │ 3 │ 2 │ 0 │ 1 │ 1 │",
        "│ silver.other │ 0 │ 0 │ 0 │ 0 │ 1 │",
    ]


def test_ctrl_c_ends_it_with_130_and_a_word(shop, prefix, s3_state_dir):
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
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "Error: Interrupted. What is finished stays; the next run goes on from there.\n"
