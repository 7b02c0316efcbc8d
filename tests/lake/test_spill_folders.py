"""Each DuckDB connection has its own folder to spill to, and nothing of it is left, even after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from lakehouse_utils.lake import spill_folders

# What needs several times the memory limit, and says whether all rows came back from the disk unchanged.
SPILL = """
import sys
from lakehouse_utils.lake import Lake
db = Lake.open(sys.argv[1]).duckdb(memory_limit="80MB", threads=2, preserve_insertion_order=False)
db.execute("CREATE TEMP TABLE rows AS SELECT i, md5(i::VARCHAR) AS hash FROM range(2000000) AS numbers (i)")
assert db.sql("FROM duckdb_temporary_files()").fetchall(), "nothing was spilled"
print(db.sql("SELECT count(*) FILTER (hash = md5(i::VARCHAR)) FROM rows").fetchone()[0], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files of the processes that a test starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("temporary")
def test_two_processes_that_spill_at_the_same_time(lake, s3_state_dir, monkeypatch):
    """Both get their rows back. With one folder for both, DuckDB 1.5.5 crashes."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
    processes = [start(SPILL, lake.root) for _ in range(2)]
    outcomes = [(*process.communicate(), process.returncode) for process in processes]
    assert outcomes == [("2000000\n", "", 0)] * 2


def test_connections_of_one_process_have_different_folders(lake):
    """The rule of the previous test applies within a process, too."""
    folders = {lake.duckdb().sql("SELECT current_setting('temp_directory')").fetchone()[0] for _ in range(2)}
    assert len(folders) == 2


def test_nothing_is_left_at_the_end(temporary, lake, s3_state_dir, monkeypatch):
    """A process removes its folder when it ends."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
    process = start(SPILL, lake.root)
    assert process.stdout.readline() == "2000000\n"
    assert list(temporary.glob("lakehouse-duckdb-*/*/*.tmp"))
    process.communicate("")
    assert not list(temporary.glob("lakehouse-duckdb-*"))


def test_what_a_killed_process_left_is_removed_by_the_next(temporary, lake, s3_state_dir, monkeypatch):
    """The folders of processes that still run stay."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
    processes = [start(SPILL, lake.root) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["2000000\n"] * 2
    killed, running = processes
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = set(temporary.glob("lakehouse-duckdb-*"))
    assert len(before) == 2
    start("from lakehouse_utils.lake import spill_folders; spill_folders.new()").communicate()
    (left,) = temporary.glob("lakehouse-duckdb-*")
    assert left in before and list(left.glob("*/*.tmp"))
    assert running.communicate("")[1] == ""


def test_a_folder_without_space_is_an_error_only_for_a_query_that_spills(monkeypatch, tmp_path):
    """Most queries need none."""
    monkeypatch.setattr(spill_folders.tempfile, "tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr(spill_folders, "_folder_of_process", spill_folders._folder_of_process.__wrapped__)
    folder = spill_folders.new()
    with duckdb.connect(config={"temp_directory": str(folder)}) as db:
        assert db.sql("SELECT 1").fetchall() == [(1,)]
