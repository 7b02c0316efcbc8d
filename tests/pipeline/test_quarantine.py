"""Quarantine: what is appended, and that nothing is appended twice."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from support.suppliers import THINGS

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline import quarantine
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.landing import LandingFile
from lakehouse_utils.pipeline.log_states import LogStates
from lakehouse_utils.pipeline.parsing import BrokenRecord

FILE = LandingFile("2026-01-02", "things", "2026-01-02/things.csv", "csv", False, 9)
INGESTED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def rows(lake):
    """The rows of quarantine in the order of their reasons, without the time of ingestion."""
    table_rows = (
        lake.delta("quarantine", "things").to_pyarrow_table().drop_columns(["_ingested_at", "resolved_at"]).to_pylist()
    )
    return sorted(table_rows, key=lambda row: row["reason"])


def test_quarantine_has_broken_records(lake):
    """A broken record is kept with its file, line, raw text and reason, and the table has the described schema."""
    records = [BrokenRecord(3, "2", "expected 2 fields, table_rows 1"), BrokenRecord(4, "é", "invalid UTF-8")]
    file = quarantine.upload_broken_records(lake, THINGS, FILE, records, INGESTED_AT)
    quarantine.append(LogStates(lake), THINGS, CommitRecord({"landing:2026-01-02/things.csv": 7}), lambda: [file])
    table = lake.delta("quarantine", "things")
    assert pa.schema(table.schema()).equals(quarantine.SCHEMA)
    origin = {"_batch": "2026-01-02", "_source_file": "2026-01-02/things.csv", "layer": "bronze"}
    assert rows(lake) == [
        origin | {"_source_line": 3, "reason": "expected 2 fields, table_rows 1", "raw": "2"},
        origin | {"_source_line": 4, "reason": "invalid UTF-8", "raw": "é"},
    ]


def test_quarantine_append_once_per_version(lake):
    """A version that the log already records is not uploaded again; another version is."""
    file = quarantine.upload_broken_records(lake, THINGS, FILE, [BrokenRecord(3, "2", "broken")], INGESTED_AT)
    quarantine.append(LogStates(lake), THINGS, CommitRecord({"landing:x": 7}), lambda: [file])
    quarantine.append(
        LogStates(lake), THINGS, CommitRecord({"landing:x": 7}), lambda: pytest.fail("it was uploaded twice")
    )
    assert len(rows(lake)) == 1
    other = quarantine.upload_broken_records(lake, THINGS, FILE, [BrokenRecord(3, "2", "broken")], INGESTED_AT)
    quarantine.append(LogStates(lake), THINGS, CommitRecord({"landing:x": 8}), lambda: [other])
    assert len(rows(lake)) == 2


def test_quarantine_refused_file_once_per_delivery(lake):
    """A refused file is recorded without line and raw text, once per fingerprint."""
    error = UnreadableFileError("the file is encoded as UTF-16; save it as UTF-8")
    for fingerprints in ([7], [7, 5], [9, 7], [8]):
        quarantine.append_refused_file(LogStates(lake), THINGS, FILE, fingerprints, error)
    assert [(row["_source_line"], row["raw"], row["reason"], row["layer"]) for row in rows(lake)] == [
        (None, "", "the file is encoded as UTF-16; save it as UTF-8", "bronze")
    ] * 2
