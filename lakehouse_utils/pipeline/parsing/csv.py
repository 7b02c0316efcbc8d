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
from lakehouse_utils.pipeline.formats import Format
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
from lakehouse_utils.pipeline.parsing.column_names import ColumnNames
from lakehouse_utils.pipeline.parsing.csv_records import (
    Dialect,
    QuoteProblem,
    Record,
    end_of_records,
    first_record,
    quote_positions,
    read_record,
)
from lakehouse_utils.pipeline.parsing.encodings import BYTE_ORDER_MARK
from lakehouse_utils.pipeline.parsing.text_files import NEWLINE, Chunk, TextFile, count_byte
from lakehouse_utils.pipeline.sources import Source

_NO_LINES = np.arange(0)


def read_csv(stream: BinaryIO, source: Source, file_format: Format) -> Iterator[Part]:
    """The parts of a CSV file with a header. Raises UnreadableFileError."""
    dialect = Dialect(file_format.delimiter, file_format.quote)
    # Lines before the header are not records, so a quote in them means nothing.
    file = TextFile(stream, first_record("" if file_format.skip_rows else dialect.quote), file_format.encoding)
    before_header = _skip_lines(file, file_format.skip_rows)
    header, line, rest = _read_header(file, before_header, file_format.skip_rows + 1, dialect)
    if not header:
        if file_format.skip_rows and file.head:
            raise UnreadableFileError(
                f"there is no header: the file ends within the {file_format.skip_rows:,} lines before it (skip_rows)"
            )
        return
    columns = ColumnNames(source).of_header(header, file_format.delimiter)
    parse = partial(parse_chunk, columns=columns, dialect=dialect)
    yield from file.parts(rest, line, partial(end_of_records, dialect=dialect), parse)


def _skip_lines(file: TextFile, count: int) -> bytes:
    """What has been read of `file` after its first `count` lines."""
    buffer, position = file.head, 0
    for _ in range(count):
        while (end := buffer.find(b"\n", position)) < 0:
            data = file.read(limits.HEAD_BYTES)
            if not data:
                return b""
            _refuse_long_header(len(buffer) - position)
            buffer, position = buffer[position:] + data, 0
        position = end + 1
    return buffer[position:]


def _refuse_long_header(size_bytes: int) -> None:
    if size_bytes > limits.MAX_HEADER_BYTES:
        raise UnreadableFileError(
            f"the header does not end within {limits.MAX_HEADER_BYTES:,} bytes; check it for a quote that is never"
            " closed"
        )


def _read_header(file: TextFile, buffer: bytes, line: int, dialect: Dialect) -> tuple[list[str], int, bytes]:
    """The fields of the first record, the line after it, and the bytes from there on; no fields in an empty file.

    `buffer` is what has been read of the file from the beginning of `line` on.
    """
    at_end = False
    while True:
        text = buffer.lstrip(b"\r\n")
        line += count_byte(buffer[: len(buffer) - len(text)], NEWLINE)
        limit = text.rfind(b"\n") + 1
        record = read_record(text, 0, limit, dialect) if limit else Record(0, [], QuoteProblem.UNCLOSED)
        if record.problem is not QuoteProblem.UNCLOSED or at_end:
            break
        _refuse_long_header(len(text))
        data = file.read(limits.HEAD_BYTES)
        at_end = not data
        buffer = text + (data or b"\n" * bool(text))
    if record.problem and text:
        raise UnreadableFileError(f"the header is invalid: {record.problem}")
    if b"\0" in text[: record.end]:
        raise UnreadableFileError(
            "the header contains NUL bytes; check that the file is text, and encoded as UTF-8, or set encoding in the"
            ' description of the table, such as encoding = "utf-16-le"'
        )
    try:
        names = [name.decode() for name in record.fields]
    except UnicodeDecodeError:
        if file.encoding != "utf-8":
            raise UnreadableFileError(
                f"the header is not valid {file.encoding}; change encoding in the description of the table"
            ) from None
        raise UnreadableFileError(
            "the header is not valid UTF-8; save the file as UTF-8, or set encoding in the description of the table,"
            ' such as encoding = "windows-1252"'
        ) from None
    return names, line + count_byte(text[: record.end], NEWLINE), text[record.end :]


def parse_chunk(chunk: Chunk, columns: list[str], dialect: Dialect) -> Iterator[Block]:
    """The rows of a chunk: read by Arrow if the chunk is clean, otherwise record by record."""
    lines, has_quotes = record_lines(chunk, dialect)
    if len(lines) > 1 and len(lines) * len(columns) > limits.MAX_CELLS:
        middle_line = int(lines[len(lines) // 2])
        line_ends = np.flatnonzero(np.frombuffer(chunk.data, np.uint8) == NEWLINE)
        middle = int(line_ends[middle_line - chunk.line - 1]) + 1
        yield from parse_chunk(Chunk(chunk.line, chunk.data[:middle]), columns, dialect)
        yield from parse_chunk(Chunk(middle_line, chunk.data[middle:]), columns, dialect)
        return
    rows = arrow_table(chunk.data, columns, dialect, has_quotes) if len(lines) else None
    if rows is not None and len(rows) == len(lines):
        rows = rows.append_column(SOURCE_LINE, line_numbers(lines))
        yield Block(rows, read=len(lines), size_bytes=len(chunk.data))
    else:
        yield from parse_record_by_record(chunk, columns, dialect)


def record_lines(chunk: Chunk, dialect: Dialect) -> tuple[NDArray[np.integer[Any]], bool]:
    r"""The line on which each record starts, and whether there are quotes around fields.

    There are no lines if Arrow would read the chunk differently, for example because of a lone `\r`.
    """
    data = chunk.data
    codes = np.frombuffer(data, np.uint8)
    quotes = quote_positions(codes, dialect) if dialect.has_quote(data) else _NO_LINES
    if quotes is None or len(quotes) % 2 or len(dialect.delimiter_bytes) > 1 or data.startswith(BYTE_ORDER_MARK):
        return _NO_LINES, True
    if b"\r" in data and data.count(b"\r") > data.count(b"\r\n"):
        return _NO_LINES, True
    if not len(quotes):
        return np.arange(chunk.line, chunk.line + count_byte(data, NEWLINE)), False
    line_ends = np.flatnonzero(codes == NEWLINE)
    is_outside_quotes = np.searchsorted(quotes, line_ends) % 2 == 0
    return chunk.line + np.concatenate([[0], np.flatnonzero(is_outside_quotes)[:-1] + 1]), True


def arrow_table(data: bytes, columns: list[str], dialect: Dialect, has_quotes: bool) -> pa.Table | None:
    """What Arrow reads; None for invalid UTF-8, a wrong number of fields, or a record that is too long for Arrow."""
    # With quotes, everything is one block: between two blocks, Arrow loses the \n of a \r\n inside a field.
    # Blocks with few rows waste memory in each column, so the more columns, the larger the blocks.
    block_size = len(data) if has_quotes else max(limits.STEP_BYTES, len(columns) << 10)
    try:
        return pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(column_names=columns, block_size=block_size),
            parse_options=pa_csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote if has_quotes else False,
                newlines_in_values=has_quotes,
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


def parse_record_by_record(chunk: Chunk, columns: list[str], dialect: Dialect) -> Iterator[Block]:
    """The rows of a chunk and its broken records, with what is wrong with each."""
    return assemble_blocks(_records(chunk, columns, dialect), len(chunk.data))


def _records(chunk: Chunk, columns: list[str], dialect: Dialect) -> Iterator[ParsedRecord]:
    line, position = chunk.line, 0
    while position < len(chunk.data):
        end, fields, problem = read_record(chunk.data, position, len(chunk.data), dialect)
        raw = chunk.data[position:end]
        if raw not in (b"\n", b"\r\n"):
            reason = problem.value if problem else _wrong_count(fields, columns) or invalid_utf8(raw)
            yield line, raw, reason or dict(zip(columns, fields, strict=True))
        line += raw.count(b"\n")
        position = end


def _wrong_count(fields: list[bytes], columns: list[str]) -> str | None:
    return None if len(fields) == len(columns) else f"expected {len(columns)} fields, found {len(fields)}"
