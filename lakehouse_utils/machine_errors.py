"""Errors of this machine: a disk that is full or broken, and memory or open files that ran out.

They end the job, whatever was being read or written when they occurred: the next request or file would fail as well.
"""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

if sys.platform != "win32":
    import resource

from lakehouse_utils.errors import LakehouseError, MachineError

_DISK_FULL = (
    "the disk is full",
    "Free some space. If it is the disk with /tmp, you can instead set TMPDIR to a folder on another disk.",
)
_TOO_MANY_FILES = ("too many files are open", "Raise the limit (`ulimit -n 1024`).")
_NO_MEMORY = ("memory ran out", "Stop other programs, or use a machine with more memory.")
_BROKEN = ("the disk or network drive failed", "Check it and the system log.")
_MEANINGS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: ("the quota of the disk is used up", _DISK_FULL[1]),
    errno.EFBIG: ("a file reached the size limit", "Raise the limit (`ulimit -f unlimited`)."),
    errno.EMFILE: _TOO_MANY_FILES,
    errno.ENFILE: ("too many files are open on this machine", "Stop other programs."),
    errno.ENOMEM: _NO_MEMORY,
    errno.EAGAIN: (
        "no more processes or threads can be started",
        "Raise the limit (`ulimit -u`), or stop other programs.",
    ),
    errno.EIO: _BROKEN,
    errno.EROFS: ("the disk is read-only", "Use a folder on another disk; for temporary files, set TMPDIR."),
    errno.ENODEV: _BROKEN,
    errno.ENXIO: _BROKEN,
    errno.ESTALE: _BROKEN,
    errno.ETIMEDOUT: _BROKEN,
}
# What DuckDB and Rust's libraries say instead of raising an OSError.
_RUST = re.compile(r"\(os error (\d+)\)")
_PHRASES = {
    re.compile(r"No space left on device|setting utilizes the available disk space"): errno.ENOSPC,
    re.compile(r"Disk quota exceeded"): errno.EDQUOT,
    re.compile(r"File too large\Z"): errno.EFBIG,
    re.compile(r"Too many open files in system"): errno.ENFILE,
    re.compile(r"Too many open files"): errno.EMFILE,
    re.compile(r"Cannot allocate memory|Cannot create a new thread|can't start new thread|failed to spawn thread"): (
        errno.ENOMEM
    ),
    re.compile(r"Input/output error"): errno.EIO,
}
# The operating system uses the other numbers for network connections too.
_LOCAL_ONLY = _MEANINGS.keys() - {errno.EAGAIN, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO}

_NO_TEMPORARY_FOLDER = "No usable temporary directory"  # tempfile's words; usually all disks are full or read-only

_USUAL_OPEN_FILES, _NEEDED_OPEN_FILES = 4096, 128


def raise_open_file_limit() -> None:
    """Raise this process's limit on open files to a usual number, or to the highest that the system allows.

    With too few, libraries crash or hang instead of raising an error. Raises MachineError.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _USUAL_OPEN_FILES if hard == resource.RLIM_INFINITY else min(_USUAL_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != resource.RLIM_INFINITY and soft < _NEEDED_OPEN_FILES:
        raise MachineError(
            f"Only {soft} files may be open at the same time, and the job needs {_NEEDED_OPEN_FILES}. Raise the limit"
            " (`ulimit -n 1024`), and start again.",
            code="EMFILE",
        )


def recognize(error: BaseException, action: str) -> MachineError | None:
    """The MachineError for `error` or one of its causes; None if it is of another kind.

    `action` completes the sentence "Could not ...".
    """
    for cause in _causes(error):
        if isinstance(cause, LakehouseError):
            return cause if isinstance(cause, MachineError) else None
        if number := _errno_of(cause):
            happened, advice = _MEANINGS[number]
            path = f" ({cause.filename})" if isinstance(cause, OSError) and isinstance(cause.filename, str) else ""
            return MachineError(
                f"Could not {action}: {happened}{path}. {advice} Then start again; finished work is kept.",
                code=errno.errorcode[number],
            )
    return None


@contextmanager
def translate_machine_errors(action: str) -> Iterator[None]:
    """Raise MachineError in place of an error of this machine. `action` completes the sentence "Could not ..."."""
    try:
        yield
    except LakehouseError:
        raise
    except Exception as error:
        if machine_error := recognize(error, action):
            raise machine_error from error
        raise


def _errno_of(error: BaseException) -> int | None:
    if isinstance(error, FileNotFoundError) and _NO_TEMPORARY_FOLDER in str(error):
        return errno.ENOSPC
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
        return error.errno if error.errno in _MEANINGS else None
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if not isinstance(error, Exception):
        return None
    message = str(error)
    if (match := _RUST.search(message)) and int(match[1]) in _LOCAL_ONLY:
        return int(match[1])
    return next((number for phrase, number in _PHRASES.items() if phrase.search(message)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
