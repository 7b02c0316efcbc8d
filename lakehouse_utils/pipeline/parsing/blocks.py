"""What parsing returns: blocks of rows as text columns, and the broken records between them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from arro3.core import Array, DataType, Table
from numpy.typing import NDArray

from lakehouse_utils.pipeline.lineage import SOURCE_LINE
from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.parsing.column_names import refuse_too_many_columns


class BrokenRecord(NamedTuple):
    """A record that cannot become a row. `line` is None if the whole file is broken; `raw` is its text."""

    line: int | None
    raw: str
    reason: str


@dataclass
class Block:
    """A part of a file.

    `rows` has text columns and `_source_line`. `read` counts the records in the raw bytes, independently of parsing, so
    that a lost row is noticed. `size_bytes` is the size of the raw bytes. `broken` lists the first broken records, of
    which a file can have millions, and `unlisted` counts those that come after them.
    """

    rows: pa.Table
    broken: list[BrokenRecord] = field(default_factory=list)
    read: int = 0
    size_bytes: int = 0
    unlisted: int = 0


Part = Callable[[], Iterable[Block]]  # parses one part of a file; parts may run at the same time
ParsedRecord = tuple[int, bytes, Mapping[str, str | bytes | None] | str]  # line, raw bytes, the row or what is wrong


def assemble_blocks(records: Iterable[ParsedRecord], size_bytes: int) -> Iterator[Block]:
    """Collect `records`, which come from `size_bytes` of raw text, into blocks that fit into memory."""
    columns: dict[str, list[str | bytes | None]] = {}
    lines: list[int] = []
    broken: list[BrokenRecord] = []
    read = unlisted = 0
    for line, raw, row in records:
        read += 1
        if isinstance(row, str):
            if len(broken) <= limits.MAX_BROKEN_RECORDS:  # one more, so that the reader of the blocks knows its line
                broken.append(broken_record(line, raw, row))
            else:
                unlisted += 1
            continue
        for name, value in row.items():
            if name not in columns:
                columns[name] = [None] * len(lines)
            columns[name].append(value)
        refuse_too_many_columns(columns)
        lines.append(line)
        if len(row) < len(columns):
            for values in columns.values():
                if len(values) < len(lines):
                    values.append(None)
        if len(columns) * len(lines) > limits.MAX_OBJECTS:
            yield Block(text_table(columns, lines), broken, read, unlisted=unlisted)
            columns, lines, broken, read, unlisted = {}, [], [], 0, 0
    yield Block(text_table(columns, lines), broken, read, size_bytes, unlisted)


def broken_record(line: int, raw: bytes, reason: str) -> BrokenRecord:
    """A broken record with its raw text, cut off after MAX_RAW_BYTES."""
    if len(raw) > limits.MAX_RAW_BYTES:
        reason += f"; the line has {len(raw):,} bytes, raw holds the first {limits.MAX_RAW_BYTES:,}"
        raw = raw[: limits.MAX_RAW_BYTES]
    return BrokenRecord(line, escaped_text(raw).removesuffix("\n").removesuffix("\r"), reason)


def escaped_text(raw: bytes) -> str:
    r"""`raw` as text, with `\xfc` for a byte that is not valid UTF-8."""
    return raw.decode(errors="backslashreplace")


def invalid_utf8(raw: bytes) -> str | None:
    """Where `raw` is not valid UTF-8, as a reason for quarantine; None if it is valid."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return f"invalid UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}"
    return None


def text_table(columns: Mapping[str, list[Any]], lines: list[Any]) -> pa.Table:
    """A table of the `columns`, whose values are text or UTF-8 bytes, and of `_source_line`.

    Uses arro3, which comes with delta-rs: `pa.array` of Python objects imports pandas first, which takes seconds.
    """
    first = next((value for values in columns.values() for value in values if value is not None), None)
    text_type = DataType.binary() if isinstance(first, bytes) else DataType.string()
    arrays = [*(Array(values, type=text_type) for values in columns.values()), Array(lines, type=DataType.int64())]
    table = pa.RecordBatchReader.from_stream(Table.from_arrays(arrays, names=[*columns, SOURCE_LINE])).read_all()
    return table.cast(pa.schema([*((name, pa.string()) for name in columns), (SOURCE_LINE, pa.int64())]))


def line_numbers(values: NDArray[np.integer[Any]]) -> pa.Array:
    """The numbers as a column `_source_line`, without a copy if they have 64 bits."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values.astype(np.int64, copy=False))])
