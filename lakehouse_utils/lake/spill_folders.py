"""A folder for each DuckDB connection, in which its queries spill to disk what exceeds the memory limit.

DuckDB gives its temporary files the same names in every connection. Two connections with one folder overwrite each
other's files and crash, also in two processes (seen with DuckDB 1.5.5). DuckDB removes the files when a connection is
closed, but not when the process is killed; then the next process removes them.
"""

import atexit
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PREFIX = "lakehouse-duckdb-"
_LOCK = "in-use"
_numbers = count(1)


def new() -> Path:
    """A folder that no other connection uses. DuckDB creates it when a query spills."""
    return _folder_of_process(os.getpid()) / str(next(_numbers))


@cache
def _folder_of_process(pid: int) -> Path:
    """The folder of this process. It is removed when the process ends, or else by the next one."""
    parent = Path(tempfile.gettempdir())
    for folder in parent.glob(f"{_PREFIX}*"):
        if not _is_in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        _hold_lock(folder / _LOCK)
    except OSError:  # perhaps the disk is full: that is an error only if a query spills
        return parent / f"{_PREFIX}{pid}"
    atexit.register(_remove, folder, pid)
    return folder


def _hold_lock(path: Path) -> None:
    """Create and lock a file until this process ends, even if it is killed.

    It gets its name when it is locked: before, another process that starts now would take it for a leftover.
    """
    unlocked = path.with_suffix(".new")
    descriptor = os.open(unlocked, os.O_CREAT | os.O_RDWR)
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    unlocked.rename(path)


def _is_in_use(folder: Path) -> bool:
    """Whether a process uses the folder, as far as that can be known: then nothing is removed."""
    if sys.platform == "win32":
        return True
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:  # it has just been created, or it belongs to another user
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # and not a process that was forked
        shutil.rmtree(folder, ignore_errors=True)
