"""`--status`: the rows, files and bytes of each table of a lake, and what `--maintain` would do. Changes nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from deltalake import DeltaTable

from lakehouse_utils.errors import LakehouseError, StorageError
from lakehouse_utils.lake import Lake, TableRef, delta_log
from lakehouse_utils.lake.delta_log import DeltaLog, MissingCommitError
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import run_history
from lakehouse_utils.pipeline.maintenance import Options, maintain
from lakehouse_utils.pipeline.report import TableMaintenance
from lakehouse_utils.pipeline.sources import Source

RECENT = timedelta(days=7)  # how far back quarantined rows are counted


@dataclass
class TableStatus:
    """One table. Sizes are in bytes.

    `dead` files were removed from the table by a commit and still exist, for time travel. `orphaned` files are named by
    no commit; they may belong to a run that is going on. `last_batch` and `last_run` are from the table of runs: the
    last batch that it records for the table, and what the last run did to the table. `quarantined` counts the rows of
    the last 7 days. `maintenance` says what `--maintain` would do, `error` why the table cannot be read.
    """

    name: str
    rows: int | None = None
    files: int = 0
    size: int = 0
    dead_size: int = 0
    orphaned_size: int = 0
    version: int | None = None
    last_commit_at: str | None = None
    last_operation: str | None = None
    last_batch: str | None = None
    last_run: str | None = None
    quarantined: int = 0
    maintenance: str = ""
    error: str | None = None


def status(lake: Lake, described: Mapping[str, Source]) -> Iterator[TableStatus]:
    """The status of every table of the lake. Raises StorageError if it cannot be reached."""
    lake.check_access()
    runs = _last_runs(lake)
    planned = _DryRun()
    try:
        maintain(lake, described, planned, Options(dry_run=True))
    except StorageError:
        raise
    except LakehouseError as error:  # a table that cannot be read; its own line shows the error
        planned.on_note(str(error))
    for ref in lake.tables():
        last = runs.get(ref.label, _LastRun())
        found = TableStatus(ref.label, last_batch=last.batch, last_run=last.status, quarantined=last.quarantined)
        found.maintenance = planned.planned.get(ref.label, "")
        try:
            with translate_errors(f"read {ref.label}", lake, objects_must_exist=True):
                table = ref.open()
                if table is not None:
                    _describe(found, ref, table)
        except StorageError:
            raise
        except LakehouseError as error:
            found.error = str(error)
        yield found


def _describe(found: TableStatus, ref: TableRef, table: DeltaTable) -> None:
    prefix = ref.key("")
    sizes = {entry["Key"].removeprefix(prefix): entry["Size"] for entry in ref.lake.objects(prefix)}
    adds = delta_log.live_add_actions(table)
    counts = [add["num_records"] for add in adds]
    found.rows = None if None in counts else sum(counts)
    found.files, found.size = len(adds), sum(add["size_bytes"] for add in adds)
    dead, unused = (
        set(table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=True, full=full))
        for full in (False, True)
    )
    found.dead_size = sum(sizes.get(path, 0) for path in dead)
    found.orphaned_size = sum(sizes.get(path, 0) for path in unused - dead)
    found.version = table.version()
    try:
        info = DeltaLog.of_ref(ref).commit(table.version()).info
    except MissingCommitError:
        return
    found.last_operation = info.get("operation")
    if (timestamp_ms := info.get("timestamp")) is not None:
        found.last_commit_at = datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="seconds")


class _LastRun(NamedTuple):
    status: str | None = None
    batch: str | None = None
    quarantined: int = 0


def _last_runs(lake: Lake) -> dict[str, _LastRun]:
    """What the table of runs says about each table; nothing if there is none, or if it cannot be read."""
    last: dict[str, _LastRun] = {}
    try:
        table = lake.delta(*run_history.NAMES)
        rows = table.to_pyarrow_table(columns=["command", "started_at", "tables"]).to_pylist() if table else []
    except (LakehouseError, OSError):
        return last
    rows = [row for row in rows if row["command"] == "run" and row["started_at"] and row["tables"]]
    for row in sorted(rows, key=lambda row: row["started_at"]):
        is_recent = datetime.now(UTC) - row["started_at"] < RECENT
        for entry in row["tables"]:
            before = last.get(entry["name"], _LastRun())
            quarantined = (entry["quarantined"] or 0) if is_recent else 0
            last[entry["name"]] = _LastRun(
                entry["status"], entry["last_batch"] or before.batch, before.quarantined + quarantined
            )
    return last


class _DryRun:
    """Keeps what a maintenance run would do, by table."""

    def __init__(self) -> None:
        self.planned: dict[str, str] = {}

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        """Nothing is shown."""

    def on_table_maintained(self, layer: str, table: str, done: TableMaintenance) -> None:
        """Keep it."""
        self.planned[f"{layer}.{table}"] = str(done)

    def on_table_failed(self, layer: str, table: str) -> None:
        """The line of the table shows the error."""

    def on_note(self, sentence: str) -> None:
        """Nothing is shown."""


HEADINGS = (
    "table",
    "rows",
    "files",
    "size",
    "dead",
    "orphaned",
    "last commit",
    "last batch",
    "quarantined",
    "--maintain",
)


def as_row(found: TableStatus) -> list[str]:
    """The table's line in the terminal, below HEADINGS; "quarantined" counts the rows of the last 7 days."""
    rows = "?" if found.rows is None else f"{found.rows:,}"
    sizes = map(_size_text, (found.size, found.dead_size, found.orphaned_size))
    commit = f"{found.last_commit_at or ''} {found.last_operation or ''}".strip()
    quarantined = f"{found.quarantined:,}" if found.quarantined else ""
    return [
        *(found.name, rows, f"{found.files:,}", *sizes),
        *(commit, found.last_batch or "", quarantined, found.error or found.maintenance),
    ]


def _size_text(size: int) -> str:
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= limit:
            return f"{size / limit:,.1f} {unit}"
    return f"{size} B" if size else ""
