"""What happens to a test whose worker process dies: see `support/crashed_workers.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CRASH = "import os, pathlib, signal\n\ndef test_it():\n    mark = pathlib.Path(__file__).with_name('crashed')\n"
ONCE = "    if not mark.exists():\n        mark.touch()\n        os.kill(os.getpid(), signal.SIGSEGV)\n"
ALWAYS = "    os.kill(os.getpid(), signal.SIGSEGV)\n"


@pytest.mark.slow
@pytest.mark.parametrize(("crash", "code", "result"), [(ONCE, 0, "1 passed"), (ALWAYS, 1, "1 failed")])
def test_a_crashed_worker_is_replaced_once(tmp_path: Path, crash: str, code: int, result: str) -> None:
    """A test that crashes once passes in a new worker, and is named; one that crashes again fails."""
    (tmp_path / "test_crash.py").write_text(CRASH + crash, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "support.crashed_workers", "-c", os.devnull]
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert result in done.stdout
    assert "the worker of test_crash.py::test_it crashed" in done.stdout
