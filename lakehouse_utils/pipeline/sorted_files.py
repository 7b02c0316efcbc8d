"""Sorted rows as Parquet files of about the target size, with the statistics by which readers skip files.

A stream of rows becomes several files, each with a range of keys that follows the range of the file before it. The
files are encoded and uploaded by several threads while the engine produces more rows. The statistics go into the log
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics). A wrong one would hide rows from
queries, so a column gets none wherever readers could disagree about its order: see `statistics`.
"""

import io
import json
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from lakehouse_utils.lake import TableRef
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline.commits import TARGET_FILE_BYTES, is_repetitive

_WORKERS = 2  # each holds the rows of one file in memory
_MAX_ROWS_BYTES = 64 << 20  # of one file, in memory
_ROW_GROUP_ROWS = 1 << 17
_INDEXED_COLUMNS = 32  # of a table with more columns, only the first ones get statistics, as with other writers
_MAX_TEXT_LENGTH = 64  # characters; longer texts in the log would cost more than they save
_EXACT_DIGITS = 15  # the log has decimals as JSON numbers, which many readers parse as doubles


def write(ref: TableRef, batches: Iterable[pa.RecordBatch], key: Sequence[str]) -> list[AddAction]:
    """Upload rows that are sorted by `key` as Parquet files into a table's folder, for a commit to add.

    Of several rows with the same key, only the first is written.
    """
    pending: deque[Future[AddAction]] = deque()
    actions: list[AddAction] = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        for rows in _rows_of_files(_without_repeated_keys(batches, key)):
            if len(pending) >= _WORKERS:  # otherwise rows would pile up in memory
                actions.append(pending.popleft().result())
            pending.append(pool.submit(_upload, ref, rows))
            del rows
        return actions + [upload.result() for upload in pending]


def _without_repeated_keys(batches: Iterable[pa.RecordBatch], key: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows whose key differs from that of the row before them."""
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
    """The rows of one file after the other."""
    held: list[pa.RecordBatch] = []
    count, rows_per_file = 0, math.inf
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count >= _ROW_GROUP_ROWS and rows_per_file == math.inf:
            rows_per_file = _rows_per_file(pa.Table.from_batches(held))
        if count >= rows_per_file:
            yield pa.Table.from_batches(held)
            held, count = [], 0
    if count:
        yield pa.Table.from_batches(held)


def _rows_per_file(sample: pa.Table) -> int:
    by_size = len(sample) * TARGET_FILE_BYTES // len(encode(sample))
    by_memory = len(sample) * _MAX_ROWS_BYTES // max(sample.nbytes, 1)
    return int(min(by_size, by_memory))


def _upload(ref: TableRef, rows: pa.Table) -> AddAction:
    body, path = encode(rows), f"part-{uuid.uuid4()}.parquet"
    with translate_errors(f"write to {ref.label}", ref.lake):
        ref.lake.s3.put_object(Bucket=ref.lake.bucket, Key=ref.key(path), Body=body)
    return AddAction(path, len(body), {}, int(time.time() * 1000), True, statistics(rows))


def encode(rows: pa.Table) -> bytes:
    """The content of a Parquet file with these rows. Uses only encodings that Spark reads too."""
    repetitive = [name for name in rows.column_names if is_repetitive(rows[name])]
    integers = [field.name for field in rows.schema if pa.types.is_integer(field.type)]
    buffer = io.BytesIO()
    pq.write_table(
        rows,
        buffer,
        row_group_size=_ROW_GROUP_ROWS,
        compression="snappy",
        use_dictionary=repetitive,
        column_encoding={name: "DELTA_BINARY_PACKED" for name in integers if name not in repetitive},
        store_schema=False,  # readers need no description of how Arrow held the rows in memory
        store_decimal_as_integer=True,
    )
    return buffer.getvalue()


# -- statistics


def statistics(rows: pa.Table) -> str:
    """The statistics of one file for the log, as JSON: numbers of rows and NULLs, minimum and maximum by column."""
    names = rows.column_names[:_INDEXED_COLUMNS]
    nulls = {name: rows[name].null_count for name in names}
    bounds = {name: _bounds(rows[name]) for name in names if nulls[name] < len(rows)}
    minimum = {name: both[0] for name, both in bounds.items() if both}
    maximum = {name: both[1] for name, both in bounds.items() if both}
    return (
        f'{{"numRecords": {len(rows)}, "minValues": {_json_object(minimum)}, "maxValues": {_json_object(maximum)},'
        f' "nullCount": {json.dumps(nulls)}}}'
    )


def _json_object(values: dict[str, str]) -> str:
    return f"{{{', '.join(f'{json.dumps(name)}: {value}' for name, value in values.items())}}}"


def _bounds(column: "pa.ChunkedArray[Any]") -> tuple[str, str] | None:
    """The minimum and maximum as JSON; None if a reader could skip rows by mistake, or for types without an order."""
    to_json = _to_json(column.type)
    if to_json is None or (pa.types.is_floating(column.type) and not pc.all(pc.is_finite(column)).as_py()):
        return None  # readers disagree about the order of NaN, and JSON has no infinities
    both: Any = pc.min_max(column)
    return to_json(both["min"].as_py(), both["max"].as_py())


def _to_json(data_type: pa.DataType) -> Callable[[Any, Any], tuple[str, str] | None] | None:
    types = pa.types
    if types.is_integer(data_type):
        return lambda low, high: (str(low), str(high))
    if types.is_date(data_type):
        return lambda low, high: (f'"{low.isoformat()}"', f'"{high.isoformat()}"')
    if types.is_timestamp(data_type) and data_type.tz == "UTC":
        return _timestamps_to_json
    if types.is_decimal(data_type):
        return _decimals_to_json
    if types.is_floating(data_type):
        # 0 and -0 are equal, but some readers sort them.
        return lambda low, high: (json.dumps(low or -0.0), json.dumps(high or 0.0))
    if types.is_string(data_type):
        return _texts_to_json
    return None


def _timestamps_to_json(low: datetime, high: datetime) -> tuple[str, str] | None:
    """In whole milliseconds, because some readers ignore the rest."""
    low = low.replace(microsecond=low.microsecond // 1000 * 1000)
    try:
        high += timedelta(microseconds=-high.microsecond % 1000)
    except OverflowError:  # the last millisecond of the year 9999
        return None
    minimum, maximum = (moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") for moment in (low, high))
    return f'"{minimum}"', f'"{maximum}"'


def _decimals_to_json(low: Decimal, high: Decimal) -> tuple[str, str] | None:
    """None for more digits than a double holds: many readers parse the numbers of the log as doubles."""
    if any(len(value.as_tuple().digits) > _EXACT_DIGITS for value in (low, high)):
        return None
    return f"{low:f}", f"{high:f}"


def _texts_to_json(low: str, high: str) -> tuple[str, str] | None:
    if max(len(low), len(high)) > _MAX_TEXT_LENGTH:
        return None
    return json.dumps(low), json.dumps(high)
