"""`python -m lakehouse_utils.sample_data`."""

from click.testing import CliRunner

from lakehouse_utils.sample_data.__main__ import main


def test_command_output(tmp_path):
    """The command prints one line about what it wrote, and one line per batch to stderr."""
    run = CliRunner().invoke(main, ["--scale", "0.1", "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    (line,) = run.stdout.splitlines()
    files = sum(path.is_file() for path in (tmp_path / "out").rglob("*"))
    assert line.startswith("Wrote ") and line.endswith(f" to {tmp_path / 'out'}.") and f" in {files} files, " in line
    assert run.stderr.splitlines() == [f"writing 2026-01-0{day}" for day in range(1, 8)]


def test_command_error(tmp_path):
    """An error is printed without a traceback, and a missing option is a usage error."""
    (tmp_path / "mine").touch()
    run = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert run.exit_code == 1 and run.stderr.startswith("Error: ") and "mine" in run.stderr
    assert CliRunner().invoke(main, []).exit_code == 2
