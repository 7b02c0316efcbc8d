"""Errors of this machine, made by real limits: each ends the work, with a sentence, and none is blamed on a file."""

import errno
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest

from lakehouse_utils import machine_errors, settings
from lakehouse_utils.errors import MachineError

JOB = settings.CHECKOUT / "ingestion_processor.py"


def translated(action) -> MachineError:
    with pytest.raises(MachineError) as caught, machine_errors.translate_machine_errors("sort the rows"):
        action()
    message = str(caught.value)
    assert message.startswith("Could not sort the rows: ") and "\n" not in message
    return caught.value


def sort_beyond_memory(folder: Path, largest: str = "1TB") -> None:
    with duckdb.connect(config={"temp_directory": str(folder), "memory_limit": "60MB"}) as db:
        db.execute(f"SET max_temp_directory_size = '{largest}'")
        db.execute("CREATE TEMP TABLE a AS SELECT range AS i, repeat('x', 100) || range AS s FROM range(5_000_000)")
        db.execute("SELECT count(*) FROM (FROM a ORDER BY s DESC)")


def test_full_disk_of_duckdb(tmp_path):
    """DuckDB stops before it fills the disk; that is a full disk, although DuckDB calls it a lack of memory."""
    error = translated(lambda: sort_beyond_memory(tmp_path, "10MB"))
    assert error.code == "ENOSPC"
    assert "the disk is full" in str(error) and "TMPDIR" in str(error)


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests")
import test_machine_errors as tests
resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, 10 << 20))
print(tests.translated(lambda: tests.sort_beyond_memory(Path(sys.argv[1]))))
"""


def test_largest_file_of_duckdb(tmp_path):
    """A limit on the size of files is named."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, cwd=settings.CHECKOUT, capture_output=True, text=True, check=False)
    assert "a file reached the size limit" in done.stdout, done.stderr


def test_no_more_memory():
    """MemoryError is an error of the machine."""
    assert translated(lambda: bytearray(1 << 62)).code == "ENOMEM"


def test_errors_that_are_not_the_machines():
    """A missing file, a refused connection and a text that quotes an error are errors of another kind."""
    for error in (
        FileNotFoundError(errno.ENOENT, "No such file"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
        ValueError("28"),
    ):
        assert machine_errors.recognize(error, "read") is None


# -- the job


def test_job_with_32_open_files_ends_in_one_sentence():
    """A limit that is too low for the libraries is named before they fail."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))

    done = subprocess.run([sys.executable, JOB], preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: Only 32 files may be open at the same time, and the job needs 128. Raise the limit (`ulimit -n 1024`),"
        " and start again.\n"
    )


def test_job_raises_a_low_limit_of_open_files_by_itself():
    """A soft limit, as macOS has it, is raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        machine_errors.raise_open_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_missing_temporary_folder_is_a_full_disk(monkeypatch, tmp_path):
    """Python's message about temporary folders does not say why none can be used."""

    def none_is_usable() -> None:
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
        tempfile.gettempdir()

    assert translated(none_is_usable).code == "ENOSPC"
