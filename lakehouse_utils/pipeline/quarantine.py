"""Quarantine: what could not be loaded, where it came from, and why.

`quarantine/<table>` has one row per broken line of a raw file, per file that could not be read at all, and per row that
breaks a rule in silver. `layer` is bronze or silver, and `reason` says what is wrong. `raw` is the line exactly as in
the file (bronze), or the row's values as JSON (silver). A refused file has neither a line nor raw text.

`resolved_at` is NULL as long as a row is a problem. When its file is delivered again with other content, it becomes the
time of that delivery: what is still wrong then is in quarantine as a new row.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import commits, lineage
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.landing import LandingFile
from lakehouse_utils.pipeline.log_states import LogStates
from lakehouse_utils.pipeline.parsing.blocks import BrokenRecord, text_table
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.pipeline.sql import literal

SCHEMA = pa.schema(
    [
        *lineage.BRONZE_FIELDS,
        pa.field("layer", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("raw", pa.string()),
        pa.field("resolved_at", pa.timestamp("us", "UTC")),
    ]
)


def append(logs: LogStates, source: Source, commit: CommitRecord, upload: Callable[[], list[AddAction]]) -> None:
    """Commit the files that `upload` puts into the folder of `quarantine/<table>`, once per transaction of `commit`.

    `upload` is not called if the table's log already records it. Raises CommitFailedError: see `commits.append`.
    """
    ref, (app_id, version) = logs.lake.table("quarantine", source.name), commit.first
    if logs.transactions(ref).get(app_id) != version:
        commits.append(logs, ref, SCHEMA, upload(), commit)


def app_id_of_rejected(source: Source) -> str:
    """The app id under which the log records which of silver's rejected rows quarantine has."""
    return f"silver.{source.name}"


def transactions(logs: LogStates, source: Source) -> dict[str, int]:
    """What the log records by app id, with `commits.TAKEN_BACK` for what a RESTORE took back."""
    return commits.transactions_after_restores(logs, logs.lake.table("quarantine", source.name))


def lost_rejected_rows(logs: LogStates, source: Source) -> bool:
    """Whether a RESTORE took back rows that silver rejected."""
    return transactions(logs, source).get(app_id_of_rejected(source)) == commits.TAKEN_BACK


def refused_app_id(file: LandingFile) -> str:
    """The app id under which quarantine's log records the fingerprint of a file that could not be read at all."""
    return f"refused:{file.path}"


def resolve(logs: LogStates, source: Source, file: LandingFile, app_id: str, fingerprint: int) -> None:
    """Mark the rows of earlier deliveries of `file` as resolved, before those of this delivery are appended.

    It is done once per `fingerprint`. After it, `append` accepts any version of `app_id`, also an earlier one.
    """
    ref, resolved_app_id = logs.lake.table("quarantine", source.name), f"resolved:{file.path}"
    table = logs.open(ref)
    if table is None or logs.transactions(ref).get(resolved_app_id) == fingerprint:
        return
    with translate_errors(f"update {ref.label}", logs.lake):
        commits.add_missing_columns(table, SCHEMA)
        logs.committed(ref, table)
        commits.require_not_restored(logs, ref)
        table.update(
            new_values={"resolved_at": datetime.now(UTC)},
            predicate=f"{lineage.SOURCE_FILE} = {literal(file.path)} AND resolved_at IS NULL",
            commit_properties=CommitRecord({resolved_app_id: fingerprint, app_id: 0}).properties(table),
        )
    logs.committed(ref, table)


def remove_broken_records(ref: TableRef, table: DeltaTable, commit: CommitRecord) -> None:
    """Remove the rows that bronze could not load and that are not resolved, before their files are read again."""
    with translate_errors(f"update {ref.label}", ref.lake):
        commits.add_missing_columns(table, SCHEMA)
        version = table.version()
        open_problems = "layer = 'bronze' AND resolved_at IS NULL"
        table.delete(open_problems, commit_properties=commit.properties(table))
        table.update_incremental()
        if table.version() == version:  # there were none, so there was no commit
            commits.record(table, commit)


def append_refused_file(
    logs: LogStates, source: Source, file: LandingFile, fingerprints: Sequence[int], error: UnreadableFileError
) -> None:
    """Record that `file` cannot be read at all, once per delivery of the file.

    The first of `fingerprints` is recorded; each of them means this delivery.
    """

    def upload() -> list[AddAction]:
        record = BrokenRecord(None, "", str(error))
        return [upload_broken_records(logs.lake, source, file, [record], datetime.now(UTC))]

    app_id = refused_app_id(file)
    if logs.transactions(logs.lake.table("quarantine", source.name)).get(app_id) not in fingerprints:
        append(logs, source, CommitRecord({app_id: fingerprints[0]}), upload)


def upload_broken_records(
    lake: Lake, source: Source, file: LandingFile, records: Sequence[BrokenRecord], ingested_at: datetime
) -> AddAction:
    """Upload broken records of a raw file as one Parquet file, for `append` to commit."""
    lines, raw, reasons = (list(values) for values in zip(*records, strict=True))
    rows = text_table({"raw": raw, "reason": reasons}, lines)
    rows = lineage.add_file_columns(rows, file.batch, file.path, ingested_at)
    rows = rows.append_column("layer", lineage.constant_text("bronze", len(rows)))
    return commits.put_parquet(lake.table("quarantine", source.name), rows, {})
