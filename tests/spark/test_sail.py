"""Sail: it starts with the lake's credentials, and ends with the program that started it."""

import os
import subprocess
import sys

import psutil
import pytest

from lakehouse_utils.settings import CHECKOUT
from lakehouse_utils.spark.sail import Sail

pytest.importorskip("pysail", reason="the extra spark is not installed: make test does it")

START = """
import sys
from lakehouse_utils.lake import Lake
from lakehouse_utils.spark.sail import Sail
sail = Sail()
sail.start(Lake.open(sys.argv[1]))
print(sail._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sail():
    server = Sail()
    yield server
    server.stop()


def test_sail_runs_for_one_lake_until_it_is_stopped(sail, lake):
    """It serves on the loopback, knows for whose credentials, and has no exit code until it is killed."""
    assert not sail.is_running_for(lake)
    assert sail.exit_code() is None
    sail.start(lake)
    assert sail.address.startswith("sc://127.0.0.1:")
    assert sail.is_running_for(lake)
    process = psutil.Process(sail._process.pid)
    assert {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    process.kill()
    sail._process.wait(20)
    assert sail.exit_code() == -9
    assert not sail.is_running_for(lake)
    sail.start(lake)
    assert sail.is_running_for(lake)
    sail.stop()
    assert not sail.is_running_for(lake)


def test_sail_gets_neither_ctrl_c_nor_the_profile(sail, lake, monkeypatch):
    """It has its own process group, so that Ctrl+C ends the job alone, and it does not inherit AWS_PROFILE."""
    monkeypatch.setenv("AWS_PROFILE", "no_such_profile")
    sail.start(lake)
    assert os.getpgid(sail._process.pid) != os.getpgrp()
    assert "AWS_PROFILE" not in psutil.Process(sail._process.pid).environ()


def test_sail_finds_the_package_from_any_folder(sail, lake, tmp_path, monkeypatch):
    """It gets the folder of the package in PYTHONPATH, so that it starts from any folder without an installation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "more"))
    sail.start(lake)
    path = psutil.Process(sail._process.pid).environ()["PYTHONPATH"].split(os.pathsep)
    assert path == [str(CHECKOUT), str(tmp_path / "more")]


def test_sail_ends_with_the_program_that_started_it(lake):
    """It ends when its starter is killed."""
    starter = subprocess.Popen(
        [sys.executable, "-c", START, lake.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    server = psutil.Process(int(starter.stdout.readline()))
    starter.kill()
    starter.communicate()
    assert psutil.wait_procs([server], timeout=60)[1] == []
