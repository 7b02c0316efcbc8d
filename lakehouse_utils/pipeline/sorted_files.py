"""Sorted rows as Parquet files of about the target size, with the statistics by which readers skip files.

A stream of rows becomes several files, each with a range of keys that follows the range of the file before it. The
files are encoded and uploaded by several threads while the engine produces more rows. The statistics go into the log
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics). Wrong statistics would hide rows
from queries, so a file gets none if readers could disagree about the order of a column: see `statistics`.
"""

import io
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from lakehouse_utils.lake import TableRef
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import commits

_WORKERS = 2  # each holds the rows of one file in memory
_MAX_ROWS_BYTES = 64 << 20  # of one file, in memory
_ROW_GROUP_ROWS = 1 << 17
_SAMPLE_ROWS = 1 << 14  # from which the number of rows in a file is estimated
_MAX_TEXT_LENGTH = 64  # characters; longer texts would make the log slower to read, and skip few more files
_LAST_CHARACTER, _FIRST_SURROGATE = "\U0010ffff", 0xD800  # surrogates are not characters
_LAST_MILLISECOND = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)


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
    body, path = encode(rows), f"part-{uuid.uuid4()}.parquet"
    with translate_errors(f"write to {ref.label}", ref.lake):
        ref.lake.s3.put_object(Bucket=ref.lake.bucket, Key=ref.key(path), Body=body)
    return AddAction(path, len(body), {}, int(time.time() * 1000), True, statistics(rows))


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
        write_statistics=[name for name in rows.column_names if not _has_unordered_values(rows[name])],
        store_schema=False,  # readers need no description of how Arrow held the rows in memory
        store_decimal_as_integer=True,
    )
    return buffer.getvalue()


# -- statistics


def statistics(rows: pa.Table) -> str:
    """The statistics of one file for the log, as JSON: numbers of rows and NULLs, minimum and maximum by column.

    Either all columns have a minimum and a maximum, except those with only NULLs, or none has: if only some have them,
    delta-rs 1.6.6 tells pyarrow that no row meets a condition on a column that lacks them.
    """
    nulls = {name: rows[name].null_count for name in rows.column_names}
    bounds = {name: _bounds(rows[name]) for name, count in nulls.items() if count < len(rows)}
    complete = {name: both for name, both in bounds.items() if both is not None}
    stats = f'"numRecords": {len(rows)}, "nullCount": {_json_object(nulls)}'
    if len(complete) == len(bounds):
        minimum = {name: low for name, (low, _) in complete.items()}
        maximum = {name: high for name, (_, high) in complete.items()}
        stats += f', "minValues": {_json_object(minimum)}, "maxValues": {_json_object(maximum)}'
    return f"{{{stats}}}"


def _json_object(values: Mapping[str, object]) -> str:
    return f"{{{', '.join(f'{_quoted(name)}: {value}' for name, value in values.items())}}}"


def _bounds(column: "pa.ChunkedArray[Any]") -> tuple[str, str] | None:
    """The minimum and maximum as JSON; None if a reader could skip rows by mistake, or for types without an order."""
    to_json = _to_json(column.type)
    if to_json is None or _has_unordered_values(column):
        return None
    both: Any = pc.min_max(column)
    return to_json(both["min"].as_py(), both["max"].as_py())


def _has_unordered_values(column: "pa.ChunkedArray[Any]") -> bool:
    """Whether there is NaN, about whose order readers disagree, or an infinity, which JSON does not have."""
    return pa.types.is_floating(column.type) and pc.all(pc.is_finite(column)).as_py() is False


def _to_json(data_type: pa.DataType) -> Callable[[Any, Any], tuple[str, str] | None] | None:
    types = pa.types
    if types.is_integer(data_type):
        return lambda low, high: (str(low), str(high))
    if types.is_date(data_type):
        return lambda low, high: (f'"{low.isoformat()}"', f'"{high.isoformat()}"')
    if types.is_timestamp(data_type) and data_type.tz == "UTC":
        return _timestamps_to_json
    if types.is_decimal(data_type):
        return lambda low, high: (f"{low:f}", f"{high:f}")
    if types.is_boolean(data_type):
        return lambda low, high: (json.dumps(low), json.dumps(high))
    if types.is_floating(data_type):
        # 0 and -0 are equal, but some readers sort them.
        return lambda low, high: (json.dumps(low or -0.0), json.dumps(high or 0.0))
    if types.is_string(data_type):
        return _texts_to_json
    return None


def _timestamps_to_json(low: datetime, high: datetime) -> tuple[str, str]:
    """In whole milliseconds, because some readers ignore the rest."""
    low = low.replace(microsecond=low.microsecond // 1000 * 1000)
    if high < _LAST_MILLISECOND:
        high += timedelta(microseconds=-high.microsecond % 1000)
    minimum, maximum = (moment.isoformat(timespec="microseconds").replace("+00:00", "Z") for moment in (low, high))
    return f'"{minimum}"', f'"{maximum}"'


def _texts_to_json(low: str, high: str) -> tuple[str, str] | None:
    """Long texts are cut off; the maximum is then a short text that sorts after them."""
    if len(high) > _MAX_TEXT_LENGTH:
        start = high[:_MAX_TEXT_LENGTH].rstrip(_LAST_CHARACTER)
        if not start:
            return None
        following = ord(start[-1]) + 1
        high = start[:-1] + ("\ue000" if following == _FIRST_SURROGATE else chr(following))
    return _quoted(low[:_MAX_TEXT_LENGTH]), _quoted(high)


def _quoted(text: str) -> str:
    """As JSON, without escape sequences: delta-rs 1.6.6 reads that of U+10FFFD as another character."""
    return json.dumps(text, ensure_ascii=False)
