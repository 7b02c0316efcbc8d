"""Quarantine: what could not be loaded, where it came from, and why.

`quarantine/<table>` has one row per broken line of a raw file, per file that could not be read at all, and per row that
breaks a rule in silver. `layer` is bronze or silver, and `reason` says what is wrong. `raw` is the line exactly as in
the file (bronze), or the row's values as JSON (silver). A refused file has neither a line nor raw text.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pyarrow as pa
from deltalake import Transaction
from deltalake.transaction import AddAction

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.delta_log import progress
from lakehouse_utils.pipeline import commits, lineage
from lakehouse_utils.pipeline.landing import LandingFile
from lakehouse_utils.pipeline.parsing.blocks import BrokenRecord, text_table
from lakehouse_utils.pipeline.sources import Source

SCHEMA = pa.schema(
    [
        *lineage.BRONZE_FIELDS,
        pa.field("layer", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("raw", pa.string()),
    ]
)


def append(lake: Lake, source: Source, app_id: str, version: int, upload: Callable[[], list[AddAction]]) -> None:
    """Commit the files that `upload` puts into the folder of `quarantine/<table>`, once per `version` of `app_id`.

    `upload` is not called if the table's log already records that version.
    """
    ref = lake.table("quarantine", source.name)
    table = ref.open()
    if progress(table, app_id) != version:
        commits.append(ref, table, SCHEMA, upload(), Transaction(app_id, version))


def append_refused_file(
    lake: Lake, source: Source, file: LandingFile, fingerprints: Sequence[int], error: UnreadableFileError
) -> None:
    """Record that `file` cannot be read at all, once per delivery of the file.

    The first of `fingerprints` is recorded; each of them means this delivery.
    """

    def upload() -> list[AddAction]:
        return [upload_broken_records(lake, source, file, [BrokenRecord(None, "", str(error))], datetime.now(UTC))]

    app_id = f"refused:{file.path}"
    if progress(lake.delta("quarantine", source.name), app_id) not in fingerprints:
        append(lake, source, app_id, fingerprints[0], upload)


def upload_broken_records(
    lake: Lake, source: Source, file: LandingFile, records: Sequence[BrokenRecord], ingested_at: datetime
) -> AddAction:
    """Upload broken records of a raw file as one Parquet file, for `append` to commit."""
    lines, raw, reasons = (list(values) for values in zip(*records, strict=True))
    rows = text_table({"raw": raw, "reason": reasons}, lines)
    rows = lineage.add_file_columns(rows, file.batch, file.path, ingested_at)
    rows = rows.append_column("layer", lineage.constant_text("bronze", len(rows)))
    return commits.put_parquet(lake.table("quarantine", source.name), rows, {})
