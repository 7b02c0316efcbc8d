"""The table `operations.runs`: one row per run of the job or of `--maintain`, with what it did to each table.

This query shows what failed:

    SELECT runs.started_at, entry.name, entry.error
    FROM runs, UNNEST(runs.tables) AS entries(entry)
    WHERE entry.status = 'failed'

A run writes its row when it ends. It leaves no row if it was killed, if it failed before it opened the lake, or if an
error of S3 ended it.
"""

from datetime import datetime
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError

from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline.commits import AFTER_COMMIT, MAX_ATTEMPTS, pause_after_conflict
from lakehouse_utils.pipeline.report import MaintenanceReport, RunReport

NAMES = ("operations", "runs")
_CONFIGURATION = {"delta.checkpointInterval": "5"}  # most of what a run with nothing new reads is this table's log

_TABLE = pa.struct(
    [
        ("name", pa.string()),
        ("status", pa.string()),
        ("read", pa.int64()),
        ("added", pa.int64()),
        ("changed", pa.int64()),
        ("quarantined", pa.int64()),
        ("version", pa.int64()),
        ("last_batch", pa.string()),
        ("rebuilt", pa.string()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("command", pa.string()),
        ("started_at", pa.timestamp("us", "UTC")),
        ("ended_at", pa.timestamp("us", "UTC")),
        ("seconds", pa.float64()),
        ("status", pa.string()),
        ("exit_code", pa.int32()),
        ("engine", pa.string()),
        ("version", pa.string()),
        ("commit", pa.string()),
        ("error_class", pa.string()),
        ("error_message", pa.string()),
        ("refused", pa.list_(pa.string())),
        ("missing_columns", pa.list_(pa.string())),
        ("tables", pa.list_(_TABLE)),
    ]
)


def append(lake: Lake, report: RunReport | MaintenanceReport) -> None:
    """Add the row of a run that has ended. Raises StorageError, or CommitFailedError if other writers always win."""
    ref = lake.table(*NAMES)
    row = pa.Table.from_pylist([_row(report)], SCHEMA)
    with translate_errors(f"write to {ref.label}", lake):
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                _write(ref, row)
            except CommitFailedError:
                if attempt == MAX_ATTEMPTS:
                    raise
                pause_after_conflict(attempt)
            else:
                return


def _write(ref: TableRef, row: pa.Table) -> None:
    """Append with a fresh handle, which sees what other writers have committed; the first run creates the table."""
    write_deltalake(
        ref.open() or ref.uri,
        row,
        mode="append",
        schema_mode="merge",  # the table may have columns of a later version of this package, or of somebody else
        configuration=_CONFIGURATION,
        storage_options=ref.lake.storage_options,
        post_commithook_properties=AFTER_COMMIT,
    )


def _row(report: RunReport | MaintenanceReport) -> dict[str, Any]:
    """The report as a row. Each table of the run is an entry of `tables`, in the order in which they were refreshed."""
    error = report.error or {}
    failed = [{"name": name, "status": "failed", "error": message} for name, message in report.failed.items()]
    row: dict[str, Any] = {
        "run_id": report.run_id,
        "command": report.command,
        "started_at": datetime.fromisoformat(report.started_at),
        "ended_at": datetime.fromisoformat(report.ended_at) if report.ended_at else None,
        "seconds": round(report.seconds, 3),
        "status": report.status,
        "exit_code": report.exit_code,
        "version": report.version,
        "commit": report.commit,
        "error_class": error.get("class"),
        "error_message": error.get("message"),
    }
    if isinstance(report, MaintenanceReport):
        done = report.tables.items()
        tables = [{"name": name, "status": "unchanged" if table.is_idle else "changed"} for name, table in done]
        return row | {"tables": [*tables, *failed]}
    row |= {"engine": report.engine, "refused": report.refused, "missing_columns": report.missing_columns}
    return row | {"tables": [*_refreshed(report), *failed]}


def _refreshed(report: RunReport) -> list[dict[str, Any]]:
    fields = ("read", "added", "changed", "quarantined", "version", "last_batch", "rebuilt", "seconds")
    entries = [
        {"name": name, "status": "changed" if counts.changed_anything else "unchanged"}
        | {field: getattr(counts, field) for field in fields}
        for name, counts in report.rows.items()
    ]
    return [*entries, *({"name": name, "status": "skipped"} for name in report.skipped)]
