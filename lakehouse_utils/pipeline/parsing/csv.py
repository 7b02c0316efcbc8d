"""CSV files: Arrow reads clean chunks, and the others are read record by record.

Arrow is fast, but all it checks is the number of fields in each row. Its number of rows is compared with the line ends
that are counted in the chunk itself. A chunk that is not clean is read again by `csv_records`, which reports what is
wrong with which record. Empty lines are not records.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.lineage import SOURCE_LINE
from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.parsing.blocks import (
    Block,
    ParsedRecord,
    Part,
    assemble_blocks,
    invalid_utf8,
    line_numbers,
)
from lakehouse_utils.pipeline.parsing.column_names import column_names
from lakehouse_utils.pipeline.parsing.csv_records import (
    FIRST_LINE_END,
    QuoteProblem,
    Record,
    end_of_records,
    quote_positions,
    read_record,
)
from lakehouse_utils.pipeline.parsing.text_files import BYTE_ORDER_MARK, NEWLINE, Chunk, TextFile, count_byte
from lakehouse_utils.pipeline.sources import Source

_NO_LINES = np.arange(0)


def read_csv(stream: BinaryIO, source: Source) -> Iterator[Part]:
    """The parts of a CSV file with a header. Raises UnreadableFileError."""
    file = TextFile(stream, FIRST_LINE_END)
    header, line, rest = _read_header(file, source.delimiter)
    if not header:
        return
    parse = partial(parse_chunk, columns=column_names(header, source), delimiter=source.delimiter)
    yield from file.parts(rest, line, partial(end_of_records, delimiter=source.delimiter), parse)


def _read_header(file: TextFile, delimiter: str) -> tuple[list[str], int, bytes]:
    """The fields of the first record, the line after it, and the bytes from there on; no fields in an empty file."""
    buffer, line, at_end = file.head, 1, False
    while True:
        text = buffer.lstrip(b"\r\n")
        line += count_byte(buffer[: len(buffer) - len(text)], NEWLINE)
        limit = text.rfind(b"\n") + 1
        record = read_record(text, 0, limit, delimiter) if limit else Record(0, [], QuoteProblem.UNCLOSED)
        if record.problem is not QuoteProblem.UNCLOSED or at_end:
            break
        if len(text) > limits.MAX_HEADER_BYTES:
            raise UnreadableFileError(
                f"the header does not end within {limits.MAX_HEADER_BYTES:,} bytes; check it for a quote that is never"
                " closed"
            )
        data = file.read(limits.HEAD_BYTES)
        at_end = not data
        buffer = text + (data or b"\n" * bool(text))
    if record.problem and text:
        raise UnreadableFileError(f"the header is invalid: {record.problem}")
    if b"\0" in text[: record.end]:
        raise UnreadableFileError("the header contains NUL bytes; check that the file is text, and encoded as UTF-8")
    try:
        names = [name.decode() for name in record.fields]
    except UnicodeDecodeError:
        raise UnreadableFileError("the header is not valid UTF-8; save the file as UTF-8") from None
    return names, line + count_byte(text[: record.end], NEWLINE), text[record.end :]


def parse_chunk(chunk: Chunk, columns: list[str], delimiter: str) -> Iterator[Block]:
    """The rows of a chunk: read by Arrow if the chunk is clean, otherwise record by record."""
    lines, has_quotes = record_lines(chunk, delimiter)
    if len(lines) > 1 and len(lines) * len(columns) > limits.MAX_CELLS:
        middle_line = int(lines[len(lines) // 2])
        line_ends = np.flatnonzero(np.frombuffer(chunk.data, np.uint8) == NEWLINE)
        middle = int(line_ends[middle_line - chunk.line - 1]) + 1
        yield from parse_chunk(Chunk(chunk.line, chunk.data[:middle]), columns, delimiter)
        yield from parse_chunk(Chunk(middle_line, chunk.data[middle:]), columns, delimiter)
        return
    rows = arrow_table(chunk.data, columns, delimiter, has_quotes) if len(lines) else None
    if rows is not None and len(rows) == len(lines):
        rows = rows.append_column(SOURCE_LINE, line_numbers(lines))
        yield Block(rows, read=len(lines), size_bytes=len(chunk.data))
    else:
        yield from parse_record_by_record(chunk, columns, delimiter)


def record_lines(chunk: Chunk, delimiter: str) -> tuple[NDArray[np.integer[Any]], bool]:
    r"""The line on which each record starts, and whether there are quotes around fields.

    There are no lines if Arrow would read the chunk differently, for example because of a lone `\r`.
    """
    data = chunk.data
    codes = np.frombuffer(data, np.uint8)
    quotes = quote_positions(codes, delimiter) if b'"' in data else _NO_LINES
    if quotes is None or len(quotes) % 2 or len(delimiter.encode()) > 1 or data.startswith(BYTE_ORDER_MARK):
        return _NO_LINES, True
    if b"\r" in data and data.count(b"\r") > data.count(b"\r\n"):
        return _NO_LINES, True
    if not len(quotes):
        return np.arange(chunk.line, chunk.line + count_byte(data, NEWLINE)), False
    line_ends = np.flatnonzero(codes == NEWLINE)
    is_outside_quotes = np.searchsorted(quotes, line_ends) % 2 == 0
    return chunk.line + np.concatenate([[0], np.flatnonzero(is_outside_quotes)[:-1] + 1]), True


def arrow_table(data: bytes, columns: list[str], delimiter: str, has_quotes: bool) -> pa.Table | None:
    """What Arrow reads; None for invalid UTF-8, a wrong number of fields, or a record that is too long for Arrow."""
    # With quotes, everything is one block: between two blocks, Arrow loses the \n of a \r\n inside a field.
    # Blocks with few rows waste memory in each column, so the more columns, the larger the blocks.
    block_size = len(data) if has_quotes else max(limits.STEP_BYTES, len(columns) << 10)
    try:
        return pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(column_names=columns, block_size=block_size),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if has_quotes else False, newlines_in_values=has_quotes
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=False,
                check_utf8=not data.isascii(),
            ),
            memory_pool=pa.system_memory_pool(),  # Arrow's own pool keeps returning memory and asking for it again
        )
    except pa.ArrowInvalid:
        return None


def parse_record_by_record(chunk: Chunk, columns: list[str], delimiter: str) -> Iterator[Block]:
    """The rows of a chunk and its broken records, with what is wrong with each."""
    return assemble_blocks(_records(chunk, columns, delimiter), len(chunk.data))


def _records(chunk: Chunk, columns: list[str], delimiter: str) -> Iterator[ParsedRecord]:
    line, position = chunk.line, 0
    while position < len(chunk.data):
        end, fields, problem = read_record(chunk.data, position, len(chunk.data), delimiter)
        raw = chunk.data[position:end]
        if raw not in (b"\n", b"\r\n"):
            reason = problem.value if problem else _wrong_count(fields, columns) or invalid_utf8(raw)
            yield line, raw, reason or dict(zip(columns, fields, strict=True))
        line += raw.count(b"\n")
        position = end


def _wrong_count(fields: list[bytes], columns: list[str]) -> str | None:
    return None if len(fields) == len(columns) else f"expected {len(columns)} fields, found {len(fields)}"
