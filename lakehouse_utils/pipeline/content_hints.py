"""What the content of local files was when they were last read, so that a run need not read unchanged files again.

A hint counts only if nothing that the file system records about the file has changed: its size, the times of its last
modification and of the last change to its entry, its inode and its device. A file that was touched, copied or replaced
is read again, so a missing or outdated hint costs time, but never gives a wrong answer.
"""

import json
import os
import sys
import time
from pathlib import Path
from threading import Lock
from typing import NamedTuple

_FILE_NAME = "landing-contents.json"
_SETTLED_AFTER_S = 2.0  # within this time a second write may leave the same times: FAT records even seconds
# On Windows st_ctime is the time of creation, so a program that restores the time of modification would go unnoticed.
_CAN_BE_TRUSTED = sys.platform != "win32"


class FileState(NamedTuple):
    """What the file system records about a file and changes with every write."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        """The state in the result of `os.stat` or `os.fstat`."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)

    @property
    def is_settled(self) -> bool:
        """Whether the last write is so long ago that a further one would leave another time."""
        return time.time() - max(self.modified_ns, self.changed_ns) / 1e9 > _SETTLED_AFTER_S


class ContentHints:
    """The fingerprints of files by their absolute paths, kept in a folder between runs; without a folder, in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._path = folder / _FILE_NAME if folder else None
        self._hints = self._load()
        self._is_changed = False
        self._lock = Lock()  # tables are loaded in parallel

    def _load(self) -> dict[str, list[int]]:
        try:
            hints = json.loads(self._path.read_text("utf-8")) if self._path else {}
        except (OSError, ValueError):  # none yet, or damaged
            return {}
        return hints if isinstance(hints, dict) else {}

    def get(self, path: str, state: FileState) -> int | None:
        """The fingerprint of the file at `path`, if it is still in the state in which it was read."""
        hint = self._hints.get(path)
        if not _CAN_BE_TRUSTED or not isinstance(hint, list) or hint[:-1] != list(state):
            return None
        return int(hint[-1])

    def put(self, path: str, state: FileState, fingerprint: int) -> None:
        """Remember the fingerprint of a file, unless the file was written only a moment ago."""
        if state.is_settled:
            with self._lock:
                self._hints[path] = [*state, fingerprint]
                self._is_changed = True

    def save(self) -> None:
        """Write the hints for the next run. If that fails, the next run reads the files again."""
        with self._lock:
            if self._path is not None and self._is_changed:
                self._write(self._path)

    def _write(self, path: Path) -> None:
        temporary = path.with_name(f"{_FILE_NAME}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._hints), "utf-8")
            temporary.replace(path)
        except (OSError, UnicodeError):
            temporary.unlink(missing_ok=True)
        self._is_changed = False
