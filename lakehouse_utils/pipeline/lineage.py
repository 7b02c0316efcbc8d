"""The lineage columns: where a row comes from, and when. Defined here once, with their types in Arrow and in SQL.

Bronze and quarantine have `_batch`, `_source_file`, `_source_line` and `_ingested_at`. Silver keeps the first three and
adds `_version_at` and `_bronze_version`. Names that start with `_` are reserved for the pipeline (see `sources.py`).
"""

from datetime import datetime

import numpy as np
import pyarrow as pa

BATCH = "_batch"  # the name of the landing folder
SOURCE_FILE = "_source_file"  # the file's path, relative to the landing folder
SOURCE_LINE = "_source_line"  # the line on which the record starts, from 1; in a Parquet file, the number of the row
INGESTED_AT = "_ingested_at"  # when bronze read the file, in UTC
VERSION_AT = "_version_at"  # when the row's values became valid, if the source says so
BRONZE_VERSION = "_bronze_version"  # the version of the bronze table that the row was made from

BRONZE_FIELDS = (
    pa.field(BATCH, pa.string()),
    pa.field(SOURCE_FILE, pa.string()),
    pa.field(SOURCE_LINE, pa.int64()),
    pa.field(INGESTED_AT, pa.timestamp("us", "UTC")),
)
BRONZE_SQL_TYPES = {BATCH: "VARCHAR", SOURCE_FILE: "VARCHAR", SOURCE_LINE: "BIGINT", INGESTED_AT: "TIMESTAMPTZ"}
SILVER_ORIGIN = (BATCH, SOURCE_FILE, SOURCE_LINE, BRONZE_VERSION)  # in silver, where a row comes from
SILVER_COLUMNS = (VERSION_AT, *SILVER_ORIGIN)


def add_file_columns(rows: pa.Table, batch: str, source_file: str, ingested_at: datetime) -> pa.Table:
    """`rows`, which have `_source_line`, with bronze's other lineage columns, which are constant within a file."""
    count = len(rows)
    microseconds = np.full(count, int(ingested_at.timestamp() * 1_000_000), np.int64)
    timestamps = pa.Array.from_buffers(pa.timestamp("us", "UTC"), count, [None, pa.py_buffer(microseconds)])
    return (
        rows.append_column(BATCH, constant_text(batch, count))
        .append_column(SOURCE_FILE, constant_text(source_file, count))
        .append_column(INGESTED_AT, timestamps)
    )


def constant_text(value: str, count: int) -> pa.DictionaryArray:
    """A column that repeats the same text `count` times, but holds it in memory only once.

    Made from buffers: `pa.array` of Python objects would import pandas first, which takes seconds.
    """
    text = value.encode()
    offsets = np.array([0, len(text)], np.int32)
    dictionary = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    indices = pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(bytes(4 * count))])
    return pa.DictionaryArray.from_arrays(indices, dictionary)
