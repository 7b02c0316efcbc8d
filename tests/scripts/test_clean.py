"""`make clean` stops the servers of this checkout and removes what can be made again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.skipif(not shutil.which("make") or os.name == "nt", reason="make is missing")


@contextmanager
def process(*words: str, before: str = "pass") -> Iterator[subprocess.Popen[bytes]]:
    """A process with `words` in its command line, which does nothing."""
    code = f"import signal, time; {before}; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE) as running:
        try:
            running.stdout.readline()
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("stubborn", [False, True])
def test_clean_stops_the_s3_server_of_this_checkout(checkout, stubborn):
    """The server whose number and port are in .lakehouse ends, with SIGKILL if need be; one on another port stays."""
    state = checkout.folder / ".lakehouse" / "s3"
    before = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else "pass"
    with process("weed", "-s3.port=21000", before=before) as server, process("weed", "-s3.port=210001") as another:
        for running in (another, server):
            (checkout.folder / ".venv" / "bin").mkdir(parents=True)
            (checkout.folder / ".venv" / ".set-up.json").touch()
            (checkout.folder / "lakehouse_utils" / "__pycache__").mkdir(parents=True)
            (checkout.folder / ".git" / "__pycache__").mkdir(parents=True, exist_ok=True)
            state.mkdir(parents=True)
            (state / "pid").write_text(str(running.pid))
            (state / "ports.json").write_text(json.dumps({"s3.port": 21000, "s3.port.grpc": 31000}, indent=1))
            assert checkout.make("clean") == (0, "", "")
        assert another.poll() is None and server.wait(timeout=10) == (-9 if stubborn else -15)
    assert not any((checkout.folder / name).exists() for name in (".venv", ".lakehouse", "lakehouse_utils/__pycache__"))
    assert (checkout.folder / ".git" / "__pycache__").exists()
    assert checkout.make("clean") == (0, "", "")


def test_clean_stops_the_spark_cluster_of_this_checkout(checkout):
    """The processes of the cluster end; those of a cluster in another folder stay."""
    folder = checkout.folder.resolve()
    java = "org.apache.spark.deploy.master.Master"
    with (
        process(f"{folder}/.lakehouse/spark/conf/", java) as ours,
        process(f"{folder}/another/.lakehouse/spark/conf/", java) as another,
    ):
        pids = checkout.folder / ".lakehouse" / "spark" / "pids"
        pids.parent.mkdir(parents=True)
        pids.write_text(f"{ours.pid}\n{another.pid}\n")
        assert checkout.make("clean") == (0, "", "")
        assert another.poll() is None and ours.wait(timeout=10) == -15
    assert not (checkout.folder / ".lakehouse").exists()
