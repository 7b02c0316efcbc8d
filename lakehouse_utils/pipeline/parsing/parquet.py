"""Parquet files: every value as text, and timestamps with a time zone in UTC. `_source_line` is the row number."""

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from operator import methodcaller
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.formats import Format
from lakehouse_utils.pipeline.lineage import SOURCE_LINE
from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.parsing.blocks import (
    Block,
    BrokenRecord,
    Part,
    escaped_text,
    invalid_utf8,
    line_numbers,
    text_table,
)
from lakehouse_utils.pipeline.parsing.column_names import ColumnNames
from lakehouse_utils.pipeline.parsing.json_lines import dict_without_duplicates
from lakehouse_utils.pipeline.parsing.parquet_pages import oversized_column
from lakehouse_utils.pipeline.sources import Source

_MAX_BATCH_ROWS = 128 * 1024


class _BrokenValue(NamedTuple):
    """A value that cannot become text. `position` is its row in the batch, `raw` as much of it as can be shown."""

    position: int
    raw: str
    reason: str


def read_parquet(stream: BinaryIO, source: Source, _file_format: Format) -> Iterator[Part]:
    """The parts of a Parquet file. Raises UnreadableFileError, also in the middle of a damaged file."""
    row = 1
    try:
        # Nanoseconds, Arrow's default for INT96, are wrong before 1677 and after 2262. Silver has microseconds anyway.
        file = pq.ParquetFile(stream, page_checksum_verification=True, coerce_int96_timestamp_unit="us")
        columns = ColumnNames(source).of_header(file.schema_arrow.names)
        for batch in _batches(file, stream):
            if isinstance(batch, _UnreadRows):
                yield partial(_unread_block, row, batch)
                row += batch.row_count
                continue
            part = partial(_parse_batch, row, batch, columns)
            row += batch.num_rows
            if batch.nbytes > limits.MAX_RECORD_BYTES:  # not kept in memory while the next batch is read
                part = partial(iter, list(part()))
            del batch
            yield part
    except MemoryError:  # ArrowMemoryError is one, and says nothing about the file
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        first_line = str(error).split("\n")[0]
        raise UnreadableFileError(f"invalid Parquet file: damaged from row {row} on ({first_line})") from None
    if row - 1 != file.metadata.num_rows:
        raise UnreadableFileError(
            f"invalid Parquet file: only {row - 1:,} of its {file.metadata.num_rows:,} rows could be read"
        )


class _UnreadRows(NamedTuple):
    """Rows that would take too much memory to read, and the reason."""

    row_count: int
    reason: str


def _batches(file: pq.ParquetFile, stream: BinaryIO) -> Iterator[pa.RecordBatch | _UnreadRows]:
    """The rows of the file, in order."""
    batch_size = _rows_per_batch(file.metadata)
    oversized = {
        number: column
        for number in range(file.num_row_groups)
        if (column := oversized_column(stream, file.metadata.row_group(number)))
    }
    for column, numbers in groupby(range(file.num_row_groups), oversized.get):
        groups = list(numbers)
        if column is None:
            yield from file.iter_batches(batch_size=batch_size, row_groups=groups)
            continue
        reason = (
            f"{column}: a page of this column is larger than the limit of {limits.MAX_PAGE_BYTES:,} bytes, so the rows"
            " of its row group are not read; write smaller values or row groups"
        )
        yield _UnreadRows(sum(file.metadata.row_group(number).num_rows for number in groups), reason)


def _unread_block(first_row: int, rows: _UnreadRows) -> Iterator[Block]:
    listed = min(rows.row_count, limits.MAX_BROKEN_RECORDS + 1)
    broken = [BrokenRecord(first_row + index, "", rows.reason) for index in range(listed)]
    yield Block(text_table({}, []), broken, rows.row_count, unlisted=rows.row_count - listed)


def _rows_per_batch(metadata: pq.FileMetaData) -> int:
    """How many rows make up about the size of a block."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    row_bytes = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=0)
    return max(1, min(_MAX_BATCH_ROWS, int(limits.BLOCK_BYTES / max(row_bytes, 1))))


def _parse_batch(first_row: int, batch: pa.RecordBatch, columns: list[str]) -> Iterator[Block]:
    arrays: dict[str, pa.Array] = {}
    broken_values: dict[int, list[tuple[str, _BrokenValue]]] = defaultdict(list)
    for name, column in zip(columns, batch.columns, strict=True):
        arrays[name], broken_in_column = _as_text(column)
        for value in broken_in_column:
            broken_values[value.position].append((name, value))
    _remove_oversized(arrays, broken_values)
    arrays[SOURCE_LINE] = line_numbers(np.arange(first_row, first_row + batch.num_rows))
    broken = []
    for index, values in broken_values.items():
        raw = {name: arrays[name][index].as_py() for name in columns} | {name: value.raw for name, value in values}
        reason = "; ".join(f"{name}: {value.reason}" for name, value in values)
        broken.append(BrokenRecord(first_row + index, json.dumps(raw, ensure_ascii=False), reason))
    rows = pa.Table.from_arrays([*arrays.values()], names=[*arrays])
    if broken:
        rows = rows.filter(pc.invert(pc.is_in(rows[SOURCE_LINE], pa.array([record.line for record in broken]))))
    yield Block(rows, broken, batch.num_rows, batch.nbytes)


def _remove_oversized(arrays: dict[str, pa.Array], broken_values: dict[int, list[tuple[str, "_BrokenValue"]]]) -> None:
    """Take the values that are too long for a row out of `arrays`."""
    for name, values in arrays.items():
        if values.nbytes <= limits.MAX_RECORD_BYTES:
            continue
        sizes = pc.binary_length(values).to_numpy(zero_copy_only=False)
        positions = np.flatnonzero(sizes > limits.MAX_RECORD_BYTES).tolist()
        _, offsets, text = values.buffers()  # a scalar would be a copy of the value
        for position in positions:
            offset = int(np.frombuffer(offsets, np.int32)[values.offset + position])
            start = text.slice(offset, limits.MAX_RAW_BYTES).to_pybytes()
            reason = (
                f"the value has {int(sizes[position]):,} bytes, more than the limit of {limits.MAX_RECORD_BYTES:,}; raw"
                f" holds the first {len(start):,}"
            )
            broken_values[position].append((name, _BrokenValue(position, start.decode(errors="ignore"), reason)))
        if positions:
            kept = [None if sizes[i] > limits.MAX_RECORD_BYTES else values[i].as_py() for i in range(len(values))]
            arrays[name] = pa.array(kept, values.type)


def _as_text(values: pa.Array) -> tuple[pa.Array, list[_BrokenValue]]:
    """`values` as text, with NULL for each value that cannot become text, and those values."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(values.type) and values.type.tz:
        # Local times would need offsets with seconds, and would be after the year 9999 or before the year 1.
        in_utc = values.view(pa.timestamp(values.type.unit)).cast(pa.string())
        return pc.binary_join_element_wise(in_utc, "Z", ""), []
    try:
        values.validate(full=True)  # Parquet does not guarantee that a string is UTF-8
        if not isinstance(values.type, pa.UuidType):
            return values.cast(pa.string()), []
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        pass
    texts: list[str | None] = []
    broken: list[_BrokenValue] = []
    to_python = _to_python if "[ns" in str(values.type) else methodcaller("as_py")
    for index, value in enumerate(values):
        try:
            texts.append(_value_as_text(to_python(value)))
        except UnicodeDecodeError as error:
            texts.append(None)
            broken.append(_BrokenValue(index, escaped_text(error.object), invalid_utf8(error.object) or str(error)))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - several libraries: outside the range of Python's, pandas' or Arrow's types
            texts.append(None)
            broken.append(_BrokenValue(index, "", f"the value cannot be converted to text ({error})"))
    return pa.array(texts, pa.string()), broken


def _to_python(value: pa.Scalar) -> object:
    """Like `as_py()`, but nanoseconds become text: Python has no type for them, and Arrow would need pandas."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.MapScalar):
        return [(_to_python(pair[0]), _to_python(pair[1])) for pair in value.values]
    if isinstance(value, pa.ListScalar):
        return [_to_python(item) for item in value.values]
    if isinstance(value, pa.StructScalar):
        return dict_without_duplicates([(name, _to_python(item)) for name, item in value.items()])
    if getattr(value.type, "unit", None) == "ns":
        return value.cast(pa.string()).as_py()
    return value.as_py()


def _value_as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=_value_as_text)
    return str(value)
