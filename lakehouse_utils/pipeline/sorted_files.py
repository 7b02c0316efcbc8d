"""Sorted rows as Parquet files of about the target size, with statistics by which readers skip files.

A stream of rows becomes several files, each with a range of keys that follows the range of the file before it. The
files are encoded and uploaded by several threads while the engine produces more rows.
"""

import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from lakehouse_utils.lake import TableRef
from lakehouse_utils.pipeline import commits, file_statistics

_WORKERS = 2  # each holds the rows of one file in memory
_MAX_ROWS_BYTES = 64 << 20  # of one file, in memory
_ROW_GROUP_ROWS = 1 << 17
_SAMPLE_ROWS = 1 << 14  # from which the number of rows in a file is estimated


def write(ref: TableRef, batches: Iterable[pa.RecordBatch]) -> list[AddAction]:
    """Upload sorted rows as Parquet files into a table's folder, for a commit to add."""
    pending: deque[Future[AddAction]] = deque()
    actions: list[AddAction] = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        for rows in _rows_of_files(batches):
            if len(pending) >= _WORKERS:  # otherwise rows would pile up in memory
                actions.append(pending.popleft().result())
            pending.append(pool.submit(_upload, ref, rows))
            del rows
        return actions + [upload.result() for upload in pending]


def first_of_each_key(batches: Iterable[pa.RecordBatch], key: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows whose key differs from that of the row before them. No part of a key may be NULL."""
    last_key: list[pa.Scalar[Any]] | None = None
    for batch in batches:
        if not batch.num_rows:
            continue
        columns = [batch[name] for name in key]
        is_new = pc.not_equal(columns[0][1:], columns[0][:-1])
        for column in columns[1:]:
            is_new = pc.or_(is_new, pc.not_equal(column[1:], column[:-1]))
        is_first_new = [column[0] for column in columns] != last_key
        last_key = [column[-1] for column in columns]
        if is_first_new and pc.all(is_new).as_py():
            yield batch
            continue
        if is_first_new:
            yield batch[:1]
        yield batch[1:].filter(is_new)


def _rows_of_files(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows of each file, one file after the other."""
    held: list[pa.RecordBatch] = []
    count, rows_per_file = 0, None
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if rows_per_file is None and count >= _SAMPLE_ROWS:
            rows_per_file = _rows_per_file(pa.Table.from_batches(held).slice(0, _SAMPLE_ROWS))
        while rows_per_file and count >= rows_per_file:
            rows = pa.Table.from_batches(held)
            yield rows.slice(0, rows_per_file)
            held, count = rows.slice(rows_per_file).to_batches(), count - rows_per_file
    if count:
        yield pa.Table.from_batches(held)


def _rows_per_file(sample: pa.Table) -> int:
    by_size = len(sample) * commits.TARGET_FILE_BYTES // len(encode(sample))
    by_memory = len(sample) * _MAX_ROWS_BYTES // max(sample.nbytes, 1)
    return int(max(min(by_size, by_memory), 1))


def _upload(ref: TableRef, rows: pa.Table) -> AddAction:
    body = encode(rows)
    return commits.upload(ref, io.BytesIO(body), len(body), file_statistics.of_rows(rows))


def encode(rows: pa.Table) -> bytes:
    """The content of a Parquet file with these rows. Uses only encodings that Spark reads too."""
    repetitive = [name for name in rows.column_names if commits.is_repetitive(rows[name])]
    integers = [field.name for field in rows.schema if pa.types.is_integer(field.type)]
    buffer = io.BytesIO()
    pq.write_table(
        rows,
        buffer,
        row_group_size=_ROW_GROUP_ROWS,
        compression="snappy",
        use_dictionary=repetitive,
        column_encoding={name: "DELTA_BINARY_PACKED" for name in integers if name not in repetitive},
        # Statistics ignore NaN, so pyarrow would treat a row group with 1 and NaN as one with only 1.
        write_statistics=[name for name in rows.column_names if not file_statistics.has_unordered_values(rows[name])],
        store_schema=False,  # readers need no description of how Arrow held the rows in memory
        store_decimal_as_integer=True,
    )
    return buffer.getvalue()
