"""The report of a run: what it did, in memory and as a JSON file for machines."""

import errno
import json
import os
import subprocess
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lakehouse_utils import __version__, settings
from lakehouse_utils.errors import SettingError
from lakehouse_utils.pipeline.context import TableCounts

RUNNING, OK, QUARANTINED, REFUSED, FAILED, INTERRUPTED = (
    "running",
    "ok",
    "quarantined",
    "refused",
    "failed",
    "interrupted",
)
SKIPPED = "skipped"  # the status of a report if another maintenance run holds the lease


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def counted(number: int, noun: str) -> str:
    """A number and what it counts: `1 file`, `1,500 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def git_commit() -> str | None:
    """The commit of the checkout that the code is in; None if it is not in one, or git is missing."""
    command = ["git", "-C", str(settings.CHECKOUT), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    folder, _, commit = done.stdout.strip().rpartition("\n")
    return commit if Path(folder) == settings.CHECKOUT else None  # else the checkout of another project is around it


class Problem(NamedTuple):
    """What is wrong with a table: the check that found it (see `checks.py`), and a sentence."""

    table: str
    check: str
    sentence: str


@dataclass(kw_only=True)
class Report:
    """What every report says: what ran, when, and how it ended. Each kind of report also has `seconds`.

    `error` has the class and the message of the error that ended it.
    """

    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: str = field(default_factory=_now)
    ended_at: str | None = None
    status: str = RUNNING
    exit_code: int | None = None
    error: dict[str, str] | None = None
    version: str = __version__
    commit: str | None = field(default_factory=git_commit)
    command: str = "run"

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, with the fields as keys: those of the kind of report come first."""
        plain = asdict(self)
        plain["seconds"] = round(plain["seconds"], 3)
        common = [field.name for field in fields(Report)]
        own = {name: value for name, value in plain.items() if name not in common}
        return own | {name: plain[name] for name in common}

    @property
    def status_without_error(self) -> str:
        """How it ended if no error ended it."""
        return OK

    def end(self, exit_code: int, error: BaseException | None = None, *, interrupted: bool = False) -> None:
        """Record how it ended."""
        self.ended_at, self.exit_code = _now(), exit_code
        if error is None:
            self.status = self.status_without_error
        else:
            self.error = {"class": type(error).__name__, "message": " ".join(str(error).split())}
            self.status = INTERRUPTED if interrupted else FAILED


@dataclass
class RunReport(Report):
    """What a run did. `rows` has the counts by `<layer>.<table>`, in the order in which the tables were refreshed.

    `refused` has one sentence per file that could not be read at all. `failed` has the error of each table that could
    not be brought up to date, `skipped` the tables that depend on those. `command` is what ran: "run", "check" or
    "status"; `problems` is what a check found, `tables` has the status of each table (see `status.py`).
    """

    engine: str
    lake: str
    seconds: float = 0.0
    rows: dict[str, TableCounts] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    tables: list[Any] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, with the fields as keys."""
        plain = super().as_json() | {"missing_columns": self.missing_columns}
        plain["problems"] = [problem._asdict() for problem in self.problems]
        for counts in plain["rows"].values():
            del counts["missing_columns"]  # listed for all tables together
        return plain

    @property
    def missing_columns(self) -> list[str]:
        """A sentence for each file loaded by the run that lacks a described column."""
        return [sentence for counts in self.rows.values() for sentence in counts.missing_columns]

    @property
    def quarantined(self) -> int:
        """The number of rows and files that went to quarantine."""
        return sum(counts.quarantined for counts in self.rows.values()) + len(self.refused)

    @property
    def changed_anything(self) -> bool:
        """Whether any table has other rows than before the run."""
        return any(counts.changed_anything for counts in self.rows.values())

    @property
    def status_without_error(self) -> str:
        """See Report."""
        if self.problems:
            return FAILED
        if self.refused:
            return REFUSED
        return QUARANTINED if self.quarantined else OK


@dataclass
class TableMaintenance:
    """What was done to one table, or in a dry run would be done, in files and bytes.

    `files` and `bytes` are those of the table's current version. A commit removed the `removed` files from the table
    longer ago than the retention; no commit names the `orphaned` files. `left_alone` says why nothing was done, or is
    None.
    """

    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_rewritten: int = 0
    checkpoint: int | None = None
    removed_files: int = 0
    removed_bytes: int = 0
    orphaned_files: int = 0
    orphaned_bytes: int = 0
    log_files: int = 0
    log_bytes: int = 0
    left_alone: str | None = None
    version: int | None = None

    @property
    def bytes_freed(self) -> int:
        """The size of all deleted objects."""
        return self.removed_bytes + self.orphaned_bytes + self.log_bytes

    @property
    def is_idle(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.bytes_rewritten or self.bytes_freed or self.checkpoint is not None)

    def __str__(self) -> str:
        parts = []
        if self.left_alone:
            parts.append(f"left alone: {self.left_alone}")
        if self.bytes_rewritten:
            parts.append(f"{self.files_before:,} -> {counted(self.files_after, 'file')}")
        if self.checkpoint is not None:
            parts.append("checkpoint")
        deleted = (
            (self.removed_files, "old file"),
            (self.orphaned_files, "orphaned file"),
            (self.log_files, "log file"),
        )
        parts += [f"{counted(number, name)} deleted" for number, name in deleted if number]
        if self.bytes_freed:
            parts.append(f"{_megabytes(self.bytes_freed)} freed")
        return ", ".join(parts) or "nothing to do"


@dataclass
class MaintenanceReport(Report):
    """What `--maintain` did. `tables` has an entry per table, `failed` the errors of tables, by `<layer>.<table>`."""

    lake: str
    dry_run: bool = False
    seconds: float = 0.0
    tables: dict[str, TableMaintenance] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    command: str = field(default="maintain", kw_only=True)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, with the fields as keys."""
        return super().as_json() | {"bytes_freed": self.bytes_freed}

    @property
    def bytes_freed(self) -> int:
        """The size of all objects that were deleted, or would be."""
        return sum(done.bytes_freed for done in self.tables.values())

    @property
    def status_without_error(self) -> str:
        """See Report."""
        return self.status if self.status == SKIPPED else OK


class ReportFile:
    """The JSON file of a report. It is replaced as a whole, so a reader never sees a part of it."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path = path
        self._report = report

    def write(self) -> None:
        """Write the report as it is now. Raises SettingError if the file cannot be written."""
        if self._path.exists() and not self._path.is_file():  # such as /dev/stdout, which gets one report only
            if self._report.ended_at:
                self._write_to(self._path)
            return
        path = self._path.resolve()  # a link stays a link
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(self._text(), "utf-8")
            temporary.replace(path)
        except OSError as error:
            # A file that can be written, in a folder that cannot, or that is mounted by itself into a container.
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS) or not path.exists():
                raise self._error(error) from None
            self._write_to(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _text(self) -> str:
        return json.dumps(self._report.as_json(), indent=2) + "\n"

    def _write_to(self, path: Path) -> None:
        try:
            path.write_text(self._text(), "utf-8")
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> SettingError:
        return SettingError(
            f"Could not write the report to {self._path}: {error.strerror}. Change --report.", setting="--report"
        )
