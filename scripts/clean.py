"""Stop the S3 server and the Spark cluster of this checkout, then remove .venv, .lakehouse (with the lake) and caches.

The servers are asked to stop by the package. Where .venv is too broken for that, their process numbers are read from
.lakehouse, and a process is only ended if its command line shows that it belongs to this checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from set_up import CHECKOUT, VENV_PYTHON

STATE_DIR = CHECKOUT / ".lakehouse"
SERVERS = ("lakehouse_utils.spark", "lakehouse_utils.embedded_s3")
FOLDERS = (".venv", ".lakehouse", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".import_linter_cache")
FOLDERS_ANYWHERE = ("__pycache__", ".ipynb_checkpoints")
SECONDS_TO_STOP = 5


def main() -> None:
    if VENV_PYTHON.exists():
        for module in SERVERS:
            command = [str(VENV_PYTHON), "-m", module, "stop"]
            subprocess.run(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True)  # may fail
    if os.name != "nt":
        for pid in numbers(STATE_DIR / "spark" / "pids"):
            end(pid, is_our_spark)
        for pid in numbers(STATE_DIR / "s3" / "pid"):
            end(pid, is_our_s3_server)
    remove_folders()


def numbers(path: Path) -> list[int]:
    """The numbers in a file; none where there is no such file."""
    try:
        return [int(word) for word in path.read_text().split() if word.isdigit()]
    except OSError:
        return []


def end(pid: int, is_ours: Callable[[str], bool]) -> None:
    """End a process that is ours: first with SIGTERM, after `SECONDS_TO_STOP` with SIGKILL."""
    deadline = time.monotonic() + SECONDS_TO_STOP
    number = signal.SIGTERM
    while is_ours(command_line(pid)):
        try:
            os.kill(pid, number)
        except OSError:
            return
        time.sleep(0.2)
        if time.monotonic() > deadline:
            number = signal.SIGKILL


def is_our_spark(command: str) -> bool:
    _, _, rest = command.partition(f"{STATE_DIR}/spark/")
    return "org.apache.spark." in rest


def is_our_s3_server(command: str) -> bool:
    try:
        port = json.loads((STATE_DIR / "s3" / "ports.json").read_text())["s3.port"]
    except (OSError, ValueError, KeyError):
        return False
    return "weed" in command and f" -s3.port={port} " in f"{command} "


def command_line(pid: int) -> str:
    """The program of a process and its arguments; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # macOS has no /proc
        done = subprocess.run(["ps", "-ww", "-p", str(pid), "-o", "args="], stdout=subprocess.PIPE)
        return done.stdout.decode(errors="replace")


def remove_folders() -> None:
    for name in FOLDERS:
        shutil.rmtree(CHECKOUT / name, ignore_errors=True)
    for folder, folders, _ in os.walk(CHECKOUT):
        for name in set(folders) & {*FOLDERS_ANYWHERE, ".git"}:
            folders.remove(name)
            if name != ".git":
                shutil.rmtree(Path(folder, name), ignore_errors=True)


if __name__ == "__main__":
    main()
