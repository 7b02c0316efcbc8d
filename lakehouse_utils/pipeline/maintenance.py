"""`--maintain`: compacts small files, writes checkpoints, and deletes old files that no table needs any more.

It is safe while the job or another maintenance run is going on, and while other programs read the tables. A compaction
is committed in a way that cannot duplicate rows (see `rewrite.py`), and files are deleted only after the table's
retention. The lease (see `lease.py`) keeps two maintenance runs from doing the same work; safety does not depend on it.

| step       | what it does, and when                                                                                |
|------------|-------------------------------------------------------------------------------------------------------|
| compaction | rewrites small files in order, if enough files disappear for the bytes that are rewritten             |
| checkpoint | after `CHECKPOINT_COMMITS` commits, because every program that opens the table reads all commits since |
| vacuum     | deletes files that were removed from the table longer ago than `delta.deletedFileRetentionDuration`    |
| orphans    | deletes files that no commit names, left by killed runs, after the same time, but at least a day       |
| log        | deletes commits and checkpoints older than `delta.logRetentionDuration`, unless the next run needs one |

The job needs the commits of each input since the version that its tables cover (see `build_record.py`), and reads the
files that silver has not covered yet by name. Clean-up and compaction leave both alone.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, Self

import pyarrow as pa
from botocore.exceptions import ClientError
from deltalake import DeltaTable

from lakehouse_utils.errors import (
    ConflictError,
    DamagedTableError,
    ExpiredCredentialsError,
    GoneError,
    LakehouseError,
    MachineError,
    MissingTableError,
    SettingError,
    StorageError,
)
from lakehouse_utils.interrupts import uninterrupted
from lakehouse_utils.lake import Lake, TableRef, compatibility
from lakehouse_utils.lake.delta_log import DeltaLog, MissingCommitError
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import build_record, commits, double_rewrites, lease, lineage, rewrite
from lakehouse_utils.pipeline.build_record import BuildRecord
from lakehouse_utils.pipeline.compaction_plan import files_for, live_files, plan_rewrites, total_bytes
from lakehouse_utils.pipeline.keys import key_columns
from lakehouse_utils.pipeline.report import SKIPPED, MaintenanceReport, TableMaintenance
from lakehouse_utils.pipeline.rewrite import Layout, LiveFile
from lakehouse_utils.pipeline.run import LAYERS, Selection, repeat_passing_faults
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.pipeline.steps import is_interrupted_query, raise_failures
from lakehouse_utils.pipeline.table_objects import StoredObject, TableObjects, delete_objects, server_time

_BRONZE_TARGET_BYTES = 64 << 20  # larger than elsewhere, because no MERGE rewrites files of bronze
CHECKPOINT_COMMITS = 20
_MIN_ORPHAN_AGE = timedelta(days=1)  # a file may belong to a commit of a job that is still running
_SETTLED = timedelta(days=1)  # some readers may not know a younger checkpoint yet
_FILE_RETENTION = ("delta.deletedFileRetentionDuration", timedelta(days=7))
_LOG_RETENTION = ("delta.logRetentionDuration", timedelta(days=30))

_PARALLEL_REQUESTS = 8
_STATE = ("_pipeline", "maintenance.json")
_LEASE = "maintenance"
_LOAD_ORDER = (lineage.BATCH, lineage.SOURCE_FILE, lineage.INGESTED_AT, lineage.SOURCE_LINE)
_LAYOUTS = {
    "bronze": Layout(_BRONZE_TARGET_BYTES, _LOAD_ORDER, "ZSTD"),
    "quarantine": Layout(_BRONZE_TARGET_BYTES, (lineage.INGESTED_AT, *_LOAD_ORDER), "ZSTD"),
}

_LOG_FILE = re.compile(r"(\d{20})\.(json|crc|checkpoint\.parquet)")
_INTERVAL = re.compile(r"\s*interval\s+(\d+)\s+(nano|micro|milli)?(second|minute|hour|day|week)s?\s*", re.IGNORECASE)
_SUPPORTED_FEATURES = {"appendOnly", "invariants", "checkConstraints", "changeDataFeed", "timestampNtz"}
_LAST_SUPPORTED_WRITER, _WRITER_WITH_FEATURES = 4, 7


class MaintenanceProgress(Protocol):
    """Receives the events of a maintenance run, to show them."""

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        """Work on a table starts."""

    def on_table_maintained(self, layer: str, table: str, done: TableMaintenance) -> None:
        """A table is done."""

    def on_table_failed(self, layer: str, table: str) -> None:
        """A table failed. The maintenance run goes on with the others, and raises the error at its end."""

    def on_note(self, sentence: str) -> None:
        """Something that the user should know."""


@dataclass(frozen=True)
class Options:
    """Which tables to maintain, and how. A dry run changes nothing. If `lease_s` is None, no lease is used."""

    selection: Selection = field(default_factory=Selection)
    dry_run: bool = False
    lease_s: float | None = lease.DURATION_S


_ALL_TABLES = Options()


def maintain(
    lake: Lake,
    described: Mapping[str, Source],
    progress: MaintenanceProgress,
    options: Options = _ALL_TABLES,
    report: MaintenanceReport | None = None,
) -> MaintenanceReport:
    """Maintain the tables of a lake: all of them, or those of some layers or names.

    `described` are the source descriptions, which have the keys by which silver is sorted. If another maintenance run
    holds the lease, nothing is done, and the status is SKIPPED. `report` is filled in even if the maintenance fails.

    If one table fails, the others are maintained; then its error is raised, or FailedTablesError for several. Errors of
    the storage, the credentials and the machine end the maintenance run. Raises LakehouseError.
    """
    report = report or MaintenanceReport(lake.root)
    report.dry_run = options.dry_run
    started = time.monotonic()
    run = _Maintenance(lake, described, progress, options, report)
    try:
        lake.check_access()
        if options.dry_run or options.lease_s is None:
            run.all_tables()
        else:
            try:
                with lease.hold(lake, _LEASE, options.lease_s) as held:
                    run.all_tables(held)
            except lease.LeaseHeldError as error:
                report.status = SKIPPED
                progress.on_note(f"nothing was done, because another maintenance run is going on: {error}")
        run.raise_failures()
    finally:
        report.seconds = time.monotonic() - started
    return report


# -- which tables


def tables(lake: Lake) -> list[TableRef]:
    """The tables of a lake, those of the pipeline in the order in which it builds them."""
    order = {layer: number for number, layer in enumerate(("bronze", "quarantine", "silver", "gold"))}
    return sorted(lake.tables(), key=lambda ref: (order.get(ref.names[0], len(order)), ref.names))


def _is_selected(ref: TableRef, selection: Selection) -> bool:
    """Whether a table is of the selected layers and names. Quarantine belongs to bronze, a history to its table."""
    layer, name = ref.names[0], ref.names[-1]
    has_layer = selection.layers == LAYERS or ("bronze" if layer == "quarantine" else layer) in selection.layers
    return has_layer and (selection.has_table(name) or selection.has_table(name.removesuffix("_history")))


def _require_known(selection: Selection, refs: list[TableRef]) -> None:
    known = {ref.names[-1] for ref in refs}
    if unknown := sorted(set(selection.tables) - known):
        raise SettingError(
            f"--tables: the lake has no table called {', '.join(unknown)}. Its tables are {', '.join(sorted(known))}.",
            setting="--tables",
        )


# -- the maintenance of a lake


class _Maintenance:
    def __init__(
        self,
        lake: Lake,
        described: Mapping[str, Source],
        progress: MaintenanceProgress,
        options: Options,
        report: MaintenanceReport,
    ) -> None:
        self.lake = lake
        self.sort_keys = key_columns(described)
        self.progress = progress
        self.report = report
        self.now = datetime.now(UTC)
        self._selection = options.selection
        self._errors: dict[str, Exception] = {}

    def all_tables(self, held: lease.Lease | None = None) -> None:
        """Maintain one table after the other, until the lease is lost."""
        self.now = server_time(self.lake)
        refs = self._attempts("list the tables", partial(tables, self.lake))
        with uninterrupted(), ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
            opened = dict(zip(refs, pool.map(self._open, refs), strict=True))
        refs = [ref for ref in refs if opened[ref].exists]
        needed = NeededVersions()
        for ref in refs:
            needed.add(opened[ref].record)
        _require_known(self._selection, refs)
        examined = _Examined.read(self.lake)
        for ref in refs:
            if held and held.is_lost:
                self.progress.on_note("this maintenance run stops here, because another one has taken over its lease")
                break
            if _is_selected(ref, self._selection):
                self._one_table(_TableStep(self, ref, opened.pop(ref).table, needed, examined))
        if not self.report.dry_run:
            examined.write()

    def _open(self, ref: TableRef) -> "_Opened":
        def open_table() -> _Opened:
            table = ref.open()
            return _Opened(table is not None, table, build_record.read(ref, table))

        try:
            opened: _Opened = self._attempts(f"open {ref.label}", open_table)
        except Exception as error:
            if _ends_everything(error):
                raise
            return _Opened(exists=True)  # it is opened again for its maintenance, and fails there
        return opened

    def _one_table(self, step: "_TableStep") -> None:
        ref = step.ref
        layer, name = ref.names
        self.progress.on_table_start(layer, name, None)
        try:
            exists = self._attempts(f"maintain {ref.label}", step.run)
        except Exception as error:
            if _ends_everything(error):
                raise
            with suppress(LakehouseError):
                if self._attempts(f"open {ref.label}", ref.open) is None:
                    self.progress.on_note(f"{ref.label} was deleted during its maintenance")
                    return
            self._errors[ref.label] = error
            self.report.failed[ref.label] = " ".join(str(error).split())
            self.progress.on_table_failed(layer, name)
            return
        if exists:
            self.report.tables[ref.label] = step.done
            self.progress.on_table_maintained(layer, name, step.done)
        else:
            self.progress.on_note(f"{ref.label} was deleted during its maintenance")

    def _attempts(self, action: str, step: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the step returns
        """Run a step. Run it again from the start if credentials expired, or after a temporary fault."""

        def attempts() -> Any:  # noqa: ANN401 - what the step returns
            attempt = 1
            while True:
                try:
                    with translate_errors(action, self.lake, objects_must_exist=True):
                        return step()
                except ExpiredCredentialsError:
                    if attempt == commits.MAX_ATTEMPTS or not self.lake.renew_credentials():
                        raise
                attempt += 1

        return repeat_passing_faults(attempts, self.lake.check_access)

    def raise_failures(self) -> None:
        """See `run.raise_failures`."""
        raise_failures(self._errors, self.report.failed, "could not be maintained")


def _ends_everything(error: Exception) -> bool:
    """Whether an error concerns the whole maintenance run: other tables would fail too."""
    if isinstance(error, GoneError):
        return False
    return isinstance(error, (StorageError, MachineError, SettingError)) or is_interrupted_query(error)


class NeededVersions:
    """The first version of each table whose commit file the next run of the job may read."""

    def __init__(self) -> None:
        self._covered: dict[str, int] = {}

    def add(self, record: BuildRecord) -> None:
        """Take the inputs of one table into account."""
        for label in record.transactions:
            if position := record.covered(label):
                self._covered[label] = min(position.version, self._covered.get(label, position.version))

    def covered(self, label: str) -> int | None:
        """The version up to which all tables that are built from `label` cover it; None if there are none."""
        return self._covered.get(label)


@dataclass(frozen=True)
class _Opened:
    """A table as it is at the start; `table` is None if it could not be opened."""

    exists: bool
    table: DeltaTable | None = None
    record: BuildRecord = field(default_factory=BuildRecord)


# -- one table


class _TableStep:
    """The maintenance of one table. `run` may be called again after a fault; it then opens the table again."""

    def __init__(
        self,
        maintenance: _Maintenance,
        ref: TableRef,
        table: DeltaTable | None,
        needed: NeededVersions,
        examined: "_Examined",
    ) -> None:
        self.ref = ref
        self.done = TableMaintenance()
        self.is_dry_run = maintenance.report.dry_run
        self._table = table  # for the first attempt
        self._now = maintenance.now
        self._needed = needed
        self._examined = examined
        self._layout = _LAYOUTS.get(ref.names[0]) or Layout(
            commits.TARGET_FILE_BYTES, tuple(maintenance.sort_keys.get(ref.label, ()))
        )

    def run(self) -> bool:
        """Maintain the table. Returns False if it does not exist."""
        done = self.done = TableMaintenance()
        objects = TableObjects.read(self.ref)
        table, self._table = self._table or self.ref.open(), None
        if table is None or not objects.log:
            return False
        done.version, done.left_alone = table.version(), why_left_alone(table)
        if done.left_alone:
            return True
        self._require_no_double_rewrite(table, objects)
        compacted = self._compact(table)
        self._write_checkpoint(compacted, objects)
        self._delete_files(compacted, objects)
        self._delete_log_files(compacted, objects)
        return True

    def _require_no_double_rewrite(self, table: DeltaTable, objects: TableObjects) -> None:
        """Raise DamagedTableError if rows are duplicated: a compaction would hide which files have them twice."""
        label, version = self.ref.label, table.version()
        etag = objects.etag(f"{version:020}.json")
        since = self._examined.version(label, objects)
        if since == version:
            return
        try:
            double = double_rewrites.examine(self.ref, since, version)
        except MissingCommitError:
            try:
                double = double_rewrites.examine(self.ref, -1, version)
            except MissingCommitError:  # the log has gaps below a checkpoint; the table itself can be read
                double = []
        if double:
            (first, *_), sentences = double, "; ".join(map(str, double))
            restore = f"restore version {first.version - 1}, or " if first.version else ""
            raise DamagedTableError(
                f"{label} has duplicate rows, or rows that had already been replaced, because two programs rewrote it"
                f" at the same time: {sentences}. This run did not change it. To repair it, {restore}use"
                f" --rebuild {label}.",
                table=label,
            )
        self._examined.record(label, version, etag)

    # -- compaction

    def _compact(self, table: DeltaTable) -> DeltaTable:
        """Rewrite small files as long as it is worth it. Returns the table at its new version."""
        ref, done = self.ref, self.done
        for _ in range(commits.MAX_ATTEMPTS):
            files = live_files(table, self._layout)
            done.version, done.files_after = table.version(), len(files)
            if not done.files_before:
                done.files_before, done.bytes_before = len(files), sum(file.size_bytes for file in files)
            groups = plan_rewrites(self._without_uncovered(table, files), self._layout)
            if not groups:
                return table
            if self.is_dry_run:
                for group in groups:
                    done.bytes_rewritten += total_bytes(group)
                    done.files_after -= len(group) - files_for(total_bytes(group), self._layout)
                return table
            for group in groups:
                rewritten = rewrite.rewrite(ref, table, group, self._layout)
                if rewritten:
                    done.bytes_rewritten += total_bytes(group)
                    self._examined.advance(ref.label, table.version(), rewritten)
                if (reopened := ref.open()) is None:
                    raise MissingTableError(f"{ref.label} was deleted during its maintenance.", table=ref.label)
                table = reopened
                if rewritten is None:
                    commits.pause_after_conflict(1)
                    break  # plan again, because another program has changed the table
        raise ConflictError(
            f"Could not compact {ref.label}: other writers committed first in all {commits.MAX_ATTEMPTS} attempts. Run"
            " --maintain again when they have finished.",
            table=ref.label,
        )

    def _without_uncovered(self, table: DeltaTable, files: list[LiveFile]) -> list[LiveFile]:
        """The files that silver has read. It reads the others by name; if one is missing, it reads all of bronze."""
        covered = self._needed.covered(self.ref.label)
        if self.ref.names[0] != "bronze" or covered is None:
            return files
        try:
            newer = list(DeltaLog.of_ref(self.ref).commits(range(covered + 1, table.version() + 1)))
        except MissingCommitError:  # silver has to be rebuilt from all files anyway
            return files
        uncovered = {add["path"] for commit in newer for add in commit.of_kind("add") if add["dataChange"]}
        return [file for file in files if file.path not in uncovered]

    # -- the log

    def _write_checkpoint(self, table: DeltaTable, objects: TableObjects) -> None:
        version = table.version()
        last = max((checkpoint for checkpoint in objects.checkpoints() if checkpoint <= version), default=-1)
        if version - last < CHECKPOINT_COMMITS:
            return
        # delta-rs deletes all commits before it that are older than the retention, whatever the next run needs.
        if objects.has_old_commits(self._now, _retention(table, _LOG_RETENTION)):
            first = self._first_needed_version(table)
            if first < version and self._is_old(objects.commits().get(first), table):
                return
        self.done.checkpoint = version
        if not self.is_dry_run:
            table.create_checkpoint()

    def _is_old(self, commit: StoredObject | None, table: DeltaTable) -> bool:
        return commit is None or self._now - commit.modified >= _retention(table, _LOG_RETENTION)

    def _delete_log_files(self, table: DeltaTable, objects: TableObjects) -> None:
        retention = _retention(table, _LOG_RETENTION)
        is_wanted = table.metadata().configuration.get("delta.enableExpiredLogCleanup", "true").lower() == "true"
        if not is_wanted or not objects.has_old_commits(self._now, retention):
            return
        hint = DeltaLog.of_ref(self.ref).checkpoint_version() or 0
        first = min([hint, self._first_needed_version(table), *objects.young_commits(self._now, retention)])
        settled = [
            version
            for version, found in objects.checkpoints().items()
            if version <= first and self._now - found.modified >= min(_SETTLED, retention)
        ]
        first = max(settled, default=0)
        names = [name for name in objects.log if (match := _LOG_FILE.fullmatch(name)) and int(match[1]) < first]
        self.done.log_files = len(names)
        self.done.log_bytes = sum(objects.log[name].size_bytes for name in names)
        if not self.is_dry_run:  # the oldest first: if this is interrupted, later versions can still be read
            delete_objects(self.ref, [self.ref.key("_delta_log", name) for name in sorted(names)])

    def _first_needed_version(self, table: DeltaTable) -> int:
        """The first version whose commit file the next run of the job may read."""
        record = build_record.read(self.ref, table)
        own = [version for app_id, version in record.transactions.items() if build_record.is_own(app_id)]
        needed = [table.version(), record.restored_to, self._needed.covered(self.ref.label), *own]
        return min(version for version in needed if version is not None)

    # -- data files

    def _delete_files(self, table: DeltaTable, objects: TableObjects) -> None:
        """Delete files that the table no longer needs, if both delta-rs and the checks here say so."""
        retention = _retention(table, _FILE_RETENTION)
        live = set(pa.table(table.get_add_actions(flatten=True))["path"].to_pylist())
        old = {
            path: found
            for path, found in objects.data.items()
            if path not in live and self._now - found.modified >= retention
        }
        removed, orphaned = set[str](), set[str]()
        if old:
            has_recent_log_aside = any(self._now - found.modified < retention for found in objects.set_aside)
            deletable = set(table.vacuum(dry_run=True, full=not has_recent_log_aside)) & old.keys()
            removed = deletable & set(table.vacuum(dry_run=True)) if deletable else deletable
            min_age = max(retention, _MIN_ORPHAN_AGE)
            orphaned = {path for path in deletable - removed if self._now - old[path].modified >= min_age}
        done = self.done
        done.removed_files, done.removed_bytes = len(removed), sum(old[path].size_bytes for path in removed)
        done.orphaned_files, done.orphaned_bytes = len(orphaned), sum(old[path].size_bytes for path in orphaned)
        if self.is_dry_run or not (removed or orphaned):
            return
        # In the meantime, a RESTORE may have put one of them back into the table.
        newest = self.ref.open() or table
        still_live = set(pa.table(newest.get_add_actions(flatten=True))["path"].to_pylist())
        delete_objects(self.ref, [self.ref.key(path) for path in sorted((removed | orphaned) - still_live)])


def why_left_alone(table: DeltaTable) -> str | None:
    """Why a table of another engine is not maintained, as a clause; None if it can be maintained."""
    if problem := compatibility.check(table, "files"):
        return problem.cause
    protocol = table.protocol()
    if protocol.min_writer_version <= _LAST_SUPPORTED_WRITER:
        return None
    features = {*(protocol.reader_features or []), *(protocol.writer_features or [])}
    unknown = sorted(features - _SUPPORTED_FEATURES)
    if protocol.min_writer_version == _WRITER_WITH_FEATURES and not unknown:
        return None
    return f"the table uses {', '.join(unknown) or f'writer version {protocol.min_writer_version}'}"


def _retention(table: DeltaTable, setting: tuple[str, timedelta]) -> timedelta:
    """A retention from the table's properties, such as `interval 7 days`. Raises LakehouseError if it is invalid."""
    name, default = setting
    text = table.metadata().configuration.get(name)
    if text is None:
        return default
    match = _INTERVAL.fullmatch(text)
    if match is None:
        raise LakehouseError(
            f"The property {name} of {table.table_uri} is invalid: {text!r}. Change it to a value such as"
            f" 'interval {default.days} days'."
        )
    count, fraction, unit = match.groups()
    factor = {None: 1.0, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9}[fraction and fraction.lower()]
    return timedelta(**{f"{unit.lower()}s": int(count)}) * factor


# -- what was examined


class _Examined:
    """Up to which version the log of each table has been examined for double rewrites; kept in the lake.

    It saves requests. If it is lost, or if another maintenance run replaces it, commits are examined again.
    """

    def __init__(self, lake: Lake, content: dict[str, Any]) -> None:
        self._lake = lake
        self._content = content
        self._is_changed = False

    @classmethod
    def read(cls, lake: Lake) -> Self:
        with translate_errors(f"read {lake.uri(*_STATE)}", lake):
            try:
                body = lake.s3.get_object(Bucket=lake.bucket, Key=lake.key(*_STATE))["Body"].read()
                content = json.loads(body)["examined"]
                return cls(lake, content if isinstance(content, dict) else {})
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                    raise
            except (ValueError, KeyError, TypeError):
                pass
        return cls(lake, {})

    def version(self, label: str, objects: TableObjects) -> int:
        """The last examined version of a table that is still the same commit; -1 if there is none."""
        entry = self._content.get(label)
        if not isinstance(entry, dict):
            return -1
        version, etag = entry.get("version"), entry.get("etag")
        return version if isinstance(version, int) and objects.etag(f"{version:020}.json") == etag else -1

    def record(self, label: str, version: int, etag: str | None) -> None:
        """Record that a table has no double rewrite up to this version."""
        if etag is not None:
            self._content[label] = {"version": version, "etag": etag}
            self._is_changed = True

    def advance(self, label: str, base: int, rewritten: rewrite.Rewritten) -> None:
        """Record a rewrite that was based on `base`, if all versions up to `base` were examined."""
        entry = self._content.get(label)
        if isinstance(entry, dict) and entry.get("version") == base:
            self.record(label, rewritten.version, rewritten.etag)

    def write(self) -> None:
        """Keep it for the next maintenance run."""
        if self._is_changed:
            body = json.dumps({"examined": self._content}, indent=2).encode()
            with translate_errors(f"write {self._lake.uri(*_STATE)}", self._lake):
                self._lake.s3.put_object(Bucket=self._lake.bucket, Key=self._lake.key(*_STATE), Body=body)
