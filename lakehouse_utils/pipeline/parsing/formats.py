"""What stands in raw files, block by block: rows of text, apart from records that are broken.

Values stay the text that they are in the file, and each row knows its line. What isn't described, such as one column
more, never makes a file unreadable.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from functools import cache, partial
from operator import methodcaller
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from arro3.core import Array, DataType, Table

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.landing import LandingFile
from lakehouse_utils.pipeline.sources import Source

MIB = 1 << 20
BLOCK = 24 * MIB  # of text; becomes one Parquet file, several times smaller
LONGEST_RECORD = 128 * MIB  # a longer line is quarantined, with its first LONGEST_RAW
LONGEST_QUOTED = 64 * MIB  # a quote still open after this much is taken for an unclosed one
LONGEST_HEADER = 16 * MIB
LONGEST_RAW = 16 * MIB  # of a line in quarantine
MOST_CELLS = 6 << 20  # of a block: short values take more memory than their text
MOST_OBJECTS = 1 << 20  # of Python, for cells
MOST_COLUMNS = 20_000  # of a file; a table's schema is in its log, again with each new column

LINE = "_source_line"
_NEWLINE, _RETURN, _QUOTE = b'\n\r"'
_BOM = b"\xef\xbb\xbf"
_NO_TEXT = {
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
    b"PAR1": "it is a Parquet file: name it .parquet",
    b"PK\3\4": "it is a zip archive or an Excel file: unpack it, or save it as CSV",
    b"\x1f\x8b": "it is gzipped: name it .gz",
}
_UNFIT_FOR_NAMES = str.maketrans(dict.fromkeys([*map(chr, range(32)), *" ,;{}()=\x7f"], "_"))  # for Delta and Parquet


@dataclass
class Block:
    """A part of a file: `rows` are text columns and `_source_line`; `broken` is a list of (line, raw, reason)."""

    rows: pa.Table
    broken: list[tuple[int | None, str, str]] = field(default_factory=list)
    read: int = 0  # records, counted from the raw bytes, not from what parsing made of them
    size: int = 0  # of the raw bytes


Part = Callable[[], Iterable[Block]]


def read(stream: BinaryIO, file: LandingFile, source: Source) -> Iterator[Part]:
    """The file as a series of parts, each a function that parses it into blocks: those may run at the same time.

    Raises UnreadableFileError, here or in a part, where the file as a whole is no good.
    """
    readers = {"csv": _read_csv, "jsonl": _read_json_lines, "parquet": _read_parquet}
    return readers[file.format](stream, source)


def refuse_too_many(columns: Sized) -> None:
    """Raises UnreadableFileError where a file has more than MOST_COLUMNS: each takes memory, however small the file is."""
    if len(columns) > MOST_COLUMNS:
        raise UnreadableFileError(f"it has more than {MOST_COLUMNS:,} different columns: are its keys data?")


def _column_name(name: str, source: Source, position: int = 0) -> str:
    """A name that Delta accepts, in lower case; a described column gets the description's spelling."""
    fit = name.strip().translate(_UNFIT_FOR_NAMES).lower()
    if not fit or fit.startswith("_"):  # those are the pipeline's own
        fit = f"column{fit or f'_{position}'}"
    return next((described for described in source.columns if described.lower() == fit), fit)


def _column_names(names: list[str], source: Source) -> list[str]:
    """The names of a file's columns; one that is there twice gets its position, if it isn't described."""
    refuse_too_many(names)
    fit = {}
    for position, name in enumerate(names, start=1):
        name = _column_name(name, source, position)
        if name in source.columns and name in fit:
            raise UnreadableFileError(f"the column {name!r} is there twice")
        if name in fit:
            while name in fit or name in source.columns:
                name += f"_{position}"
        fit[name] = None
    if not source.columns.keys() & fit.keys():
        raise UnreadableFileError(
            f"none of its columns ({', '.join(names)[:100]!r}) is in the description of {source.name}: is the header"
            f" missing, or the delimiter not {source.delimiter!r}?"
        )
    return list(fit)


def text_table(columns: dict[str, list], lines: list[int]) -> pa.Table:
    """The values, each of them UTF-8 or text, as columns of text, and the lines that they came from.

    By way of arro3, which delta-rs brings: `pa.array` of Python's objects imports pandas first, and that takes seconds.
    """
    first = next((value for values in columns.values() for value in values if value is not None), None)
    kind = DataType.binary() if isinstance(first, bytes) else DataType.string()
    arrays = [*(Array(values, type=kind) for values in columns.values()), Array(lines, type=DataType.int64())]
    table = pa.RecordBatchReader.from_stream(Table.from_arrays(arrays, names=[*columns, LINE])).read_all()
    return table.cast(pa.schema([*((name, pa.string()) for name in columns), (LINE, pa.int64())]))


def _numbers(values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values.astype(np.int64, copy=False))])


class _AppleStream:
    """A stream whose lines end in \\r, as on the first Macintosh, with \\r and \\n exchanged."""

    exchange = bytes.maketrans(b"\r\n", b"\n\r")
    back = str.maketrans("\r\n", "\n\r")

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return self._stream.read(size).translate(self.exchange)

    @staticmethod
    def part(parse: Part) -> Iterator[Block]:
        """What `parse` makes of the exchanged bytes, exchanged back."""
        for block in parse():
            rows = block.rows
            for position, column in enumerate(rows.columns[:-1]):
                if pc.any(pc.match_substring_regex(column, "[\r\n]")).as_py():
                    values = [value and value.translate(_AppleStream.back) for value in column.to_pylist()]
                    rows = rows.set_column(position, rows.field(position), pa.array(values, pa.string()))
            broken = [(line, raw.translate(_AppleStream.back), reason) for line, raw, reason in block.broken]
            yield Block(rows, broken, block.read, block.size)


def _beginning(stream: BinaryIO, line_end: re.Pattern[bytes]) -> tuple[BinaryIO, bytes, Callable[[Part], Part]]:
    """The stream, its first bytes without a byte order mark, and what is to be done to each part of it."""
    head = stream.read(MIB)
    if head.endswith(b"\r"):
        head += stream.read(1)
    for magic, reason in _NO_TEXT.items():
        if head.startswith(magic):
            raise UnreadableFileError(reason)
    head = head.removeprefix(_BOM)
    if (end := line_end.match(head)) and end[1] == b"\r" and b"\r\n" not in head:
        return _AppleStream(stream), head.translate(_AppleStream.exchange), lambda p: partial(_AppleStream.part, p)
    return stream, head, lambda part: part


def _chunks(
    stream: BinaryIO, buffer: bytes, line: int, cut: Callable[[bytes, bool], int]
) -> Iterator[tuple[int, bytes, int | None]]:
    """(line it begins on, whole records that end in \\n, None), or (line, its start, size) of one that is too long.

    `cut(buffer, ended)` tells how many bytes from the start are whole records: some, once the file has ended.
    """
    ended = False
    while buffer or not ended:
        part = stream.read(BLOCK)
        ended = not part
        buffer += part
        if ended and buffer and not buffer.endswith(b"\n"):
            buffer += b"\n"
        end = cut(buffer, ended)
        if end:
            data, buffer = buffer[:end], buffer[end:]
            yield line, data, None
            line += _count(data, _NEWLINE)
        elif len(buffer) > LONGEST_RECORD:
            start, size = buffer[:LONGEST_RAW], len(buffer)
            while (buffer := stream.read(BLOCK)) and b"\n" not in buffer:
                size += len(buffer)
            rest, _, buffer = buffer.partition(b"\n")
            yield line, start, size + len(rest)
            line += 1


def _count(data: bytes, byte: int) -> int:
    codes = np.frombuffer(data, np.uint8)
    return sum(int(np.count_nonzero(codes[start : start + MIB] == byte)) for start in range(0, len(codes), MIB))


def _too_long(line: int, start: bytes, size: int) -> list[Block]:
    reason = f"the line has {size:,} bytes, more than {LONGEST_RECORD:,}; raw holds the first {len(start):,}"
    return [Block(text_table({}, []), [(line, start.decode(errors="backslashreplace"), reason)], 1, size)]


# CSV (RFC 4180). Clean blocks go through Arrow, which counts the fields of each row, and whose count of rows is held
# against the block's own line ends; a block where anything is off is read again, record by record, by a reader that
# explains itself. Empty lines are no records. A quote within a field that doesn't begin with one is text, and so is a
# lone \r.

_CSV_LINE_END = re.compile(rb'(?:[^"\r\n]++|"[^"]*+")*+(\r?\n|\r)')
_CSV_QUOTED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')
_OPEN = "a quote is opened and never closed"


def _read_csv(stream: BinaryIO, source: Source) -> Iterator[Part]:
    stream, head, adapted = _beginning(stream, _CSV_LINE_END)
    header, first_line, rest = _csv_header(stream, head, source.delimiter)
    if not header:
        return
    columns = _column_names(header, source)
    cut = partial(_whole_csv_records, delimiter=source.delimiter)
    for line, data, size in _chunks(stream, rest, first_line, cut):
        if size is None:
            yield adapted(partial(_parse_csv, line, data, columns, source.delimiter))
        else:
            yield adapted(partial(_too_long, line, data, size))


def _csv_header(stream: BinaryIO, head: bytes, delimiter: str) -> tuple[list[str], int, bytes]:
    """The fields of the first record, the line behind it, and the bytes from there on; no fields in an empty file."""
    line, ended = 1, False
    while True:
        record = head.lstrip(b"\r\n")
        line += _count(head[: len(head) - len(record)], _NEWLINE)
        whole = record.rfind(b"\n") + 1
        end, fields, wrong = _csv_record(record, 0, whole, delimiter) if whole else (0, [], _OPEN)
        if wrong != _OPEN or ended:
            break
        if len(record) > LONGEST_HEADER:
            raise UnreadableFileError(f"its header doesn't end within {LONGEST_HEADER:,} bytes: is a quote not closed?")
        part = stream.read(MIB)
        ended = not part
        head = record + (part or b"\n" * bool(record))
    if wrong and record:
        raise UnreadableFileError(f"its header can't be read: {wrong}")
    if b"\0" in record[:end]:
        raise UnreadableFileError("its header has NUL bytes: is it UTF-16, or no text at all?")
    try:
        names = [name.decode() for name in fields]
    except UnicodeDecodeError:
        raise UnreadableFileError("its header is not UTF-8") from None
    return names, line + _count(record[:end], _NEWLINE), record[end:]


@cache
def _csv_field(delimiter: str) -> re.Pattern[bytes]:
    """A field, quoted or plain, and what ends it."""
    end = re.escape(delimiter.encode())
    # Not possessive as a group: Python 3.11.2 then reads past the delimiter.
    plain = rb"[^%b\n]*+" % end if len(delimiter.encode()) == 1 else rb"(?:(?!%b)[^\n])*" % end
    return re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"(?=\r?\n|%b)\r?|((?!")%b))(%b|\n)' % (end, plain, end))


def _csv_record(data: bytes, start: int, limit: int, delimiter: str) -> tuple[int, list[bytes], str | None]:
    """Where the record that begins at `start` ends, its fields, and what is wrong with its quotes.

    Where a quote is wrong, only the first line is given up, so that the rows below it get their chance.
    """
    end = data.index(b"\n", start, limit) + 1
    if data.find(b'"', start, end) < 0:
        return end, data[start : end - 1].removesuffix(b"\r").split(delimiter.encode()), None
    field = _csv_field(delimiter)
    fields, position = [], start
    while match := field.match(data, position, limit):
        quoted, plain, ending = match.groups()
        position = match.end()
        if quoted is not None:
            fields.append(quoted.replace(b'""', b'"'))
        else:
            fields.append(plain.removesuffix(b"\r") if ending == b"\n" else plain)
        if ending == b"\n":
            return position, fields, None
    closed = _CSV_QUOTED.match(data, position, limit)
    return end, [], "text stands behind a closing quote" if closed else _OPEN


def _csv_quotes(codes: np.ndarray, delimiter: str) -> np.ndarray | None:
    """Where the quotes around fields are; None when one stands where none belongs, so that odd and even tell nothing.

    `codes` are whole lines.
    """
    if len(delimiter.encode()) > 1:
        return None
    quotes = np.flatnonzero(codes == _QUOTE)
    before = codes[quotes - 1]  # before the first byte: the last, a line end
    begins = (before == ord(delimiter)) | (before == _NEWLINE)
    if not begins.any():
        return quotes[:0]
    closing = quotes[1::2]
    after = codes[closing + 1]
    ends = (after == ord(delimiter)) | (after == _NEWLINE) | (after == _QUOTE)
    ends[after == _RETURN] = codes[closing[after == _RETURN] + 2] == _NEWLINE
    return quotes if ends.all() and (begins | (before == _QUOTE))[::2].all() else None


def _whole_csv_records(buffer: bytes, ended: bool, delimiter: str) -> int:
    """Up to where the last record ends, as far as that is to be seen yet; up to a quote's line when it is given up."""
    whole = buffer.rfind(b"\n") + 1
    if buffer.find(b'"', 0, whole) < 0:
        return whole
    patience = 0 if ended else LONGEST_QUOTED
    quotes = _csv_quotes(np.frombuffer(buffer, np.uint8, whole), delimiter)
    if quotes is not None:
        end = whole
        while (before := np.searchsorted(quotes, end)) % 2:
            end = buffer.rfind(b"\n", 0, quotes[before - 1]) + 1
        if end or len(buffer) <= patience:
            return end
    position = 0
    while (quote := buffer.find(b'"', position, whole)) >= 0:
        start = max(buffer.rfind(b"\n", position, quote) + 1, position)
        position, _, wrong = _csv_record(buffer, start, whole, delimiter)
        if wrong == _OPEN:
            return start if start or len(buffer) <= patience else position
    return whole


def _parse_csv(line: int, data: bytes, columns: list[str], delimiter: str) -> Iterator[Block]:
    lines, quoted = _csv_record_lines(line, data, delimiter)
    if len(lines) > 1 and len(lines) * len(columns) > MOST_CELLS:
        below = lines[len(lines) // 2]
        middle = int(np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)[below - line - 1]) + 1
        yield from _parse_csv(line, data[:middle], columns, delimiter)
        yield from _parse_csv(int(below), data[middle:], columns, delimiter)
        return
    rows = _csv_table(data, columns, delimiter, quoted) if len(lines) else None
    if rows is not None and len(rows) == len(lines):
        yield Block(rows.append_column(LINE, _numbers(lines)), read=len(lines), size=len(data))
    else:
        yield from _parse_csv_carefully(line, data, columns, delimiter)


def _csv_record_lines(line: int, data: bytes, delimiter: str) -> tuple[np.ndarray, bool]:
    """The line on which each record begins, and whether quotes mean anything.

    There are no lines where Arrow would read something else: of some lone \\r, and of what begins like a file.
    """
    unlike = np.arange(0), True
    codes = np.frombuffer(data, np.uint8)
    quotes = _csv_quotes(codes, delimiter) if b'"' in data else codes[:0]
    if quotes is None or len(quotes) % 2 or len(delimiter.encode()) > 1 or data.startswith(_BOM):
        return unlike
    if b"\r" in data and data.count(b"\r") > data.count(b"\r\n"):
        return unlike
    if not len(quotes):
        return np.arange(line, line + _count(data, _NEWLINE)), False
    ends = np.flatnonzero(codes == _NEWLINE)
    outside = np.searchsorted(quotes, ends) % 2 == 0
    return line + np.concatenate([[0], np.flatnonzero(outside)[:-1] + 1]), True


def _csv_table(data: bytes, columns: list[str], delimiter: str, quoted: bool) -> pa.Table | None:
    # At once where there are quotes: between two blocks, Arrow loses the \n of a \r\n within a field.
    size = len(data) if quoted else max(MIB, len(columns) << 10)  # what is less of a column wastes memory
    try:
        return pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(column_names=columns, block_size=size),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=False,
                check_utf8=not data.isascii(),
            ),
            memory_pool=pa.system_memory_pool(),  # Arrow's own gives memory back and asks for it again, all the time
        )
    except pa.ArrowInvalid:  # broken UTF-8, more fields in one record and fewer in another, or a very long one
        return None


def _parse_csv_carefully(line: int, data: bytes, columns: list[str], delimiter: str) -> Iterator[Block]:
    def records() -> Iterator[tuple[int, bytes, dict[str, bytes] | str]]:
        number, position = line, 0
        while position < len(data):
            end, fields, wrong = _csv_record(data, position, len(data), delimiter)
            raw = data[position:end]
            if not wrong and len(fields) != len(columns):
                wrong = f"{len(fields)} fields where the header has {len(columns)}"
            if raw not in (b"\n", b"\r\n"):
                yield number, raw, wrong or _not_utf8(raw) or dict(zip(columns, fields, strict=True))
            number += raw.count(b"\n")
            position = end

    return _assembled(records(), len(data))


def _assembled(records: Iterable[tuple[int, bytes, dict | str]], size: int) -> Iterator[Block]:
    """Blocks of `records`, each of them (line, raw, the row or else what is wrong), `size` bytes in all."""
    columns: dict[str, list] = {}
    lines, broken = [], []
    read = 0
    for line, raw, row in records:
        read += 1
        if isinstance(row, str):
            broken.append((line, *_broken(raw, row)))
            continue
        for name, value in row.items():
            if name not in columns:
                columns[name] = [None] * len(lines)
            columns[name].append(value)
        refuse_too_many(columns)
        lines.append(line)
        if len(row) < len(columns):
            for values in columns.values():
                if len(values) < len(lines):
                    values.append(None)
        if len(columns) * len(lines) > MOST_OBJECTS:
            yield Block(text_table(columns, lines), broken, read)
            columns, lines, broken, read = {}, [], [], 0
    yield Block(text_table(columns, lines), broken, read, size)


def _broken(raw: bytes, reason: str) -> tuple[str, str]:
    if len(raw) > LONGEST_RAW:
        reason += f"; the line has {len(raw):,} bytes, raw holds the first {LONGEST_RAW:,}"
        raw = raw[:LONGEST_RAW]
    return raw.decode(errors="backslashreplace").removesuffix("\n").removesuffix("\r"), reason


def _not_utf8(raw: bytes) -> str | None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}"
    return None


# JSON lines. Numbers stay as they are written, and so does what is nested.

_JSON_LINE_END = re.compile(rb"[^\r\n]*+(\r?\n|\r)")
_JSON_SPACE = re.compile(r"[ \t\r\n]*+")
_JSON_TEXT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


def _read_json_lines(stream: BinaryIO, source: Source) -> Iterator[Part]:
    stream, head, adapted = _beginning(stream, _JSON_LINE_END)
    for line, data, size in _chunks(stream, head, 1, lambda buffer, _: buffer.rfind(b"\n") + 1):
        if size is None:
            yield adapted(partial(_parse_json_lines, line, data, source))
        else:
            yield adapted(partial(_too_long, line, data, size))


def _parse_json_lines(line: int, data: bytes, source: Source) -> Iterator[Block]:
    column = cache(partial(_column_name, source=source))

    def records() -> Iterator[tuple[int, bytes, dict[str, str | None] | str]]:
        for number, raw in enumerate(data.split(b"\n")[:-1], start=line):
            if not raw.strip(b" \t\r"):
                continue
            try:
                row = _json_object(raw)
                fit = {column(name): value for name, value in row.items()}
                if len(fit) < len(row):
                    raise ValueError("two of its fields have the same name, but for capitals and punctuation")
                if not source.columns.keys() & fit.keys():
                    raise ValueError(f"none of its fields is in the description of {source.name}")
            except ValueError as error:
                yield number, raw, str(error)
            else:
                yield number, raw, fit

    return _assembled(records(), len(data))


def _json_object(raw: bytes) -> dict[str, str | None]:
    """The object on one line, each value as text. ValueError says what is wrong with the line."""
    try:
        text = raw.decode()
        row = json.loads(text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_no_repeats)
    except UnicodeDecodeError:
        raise ValueError(_not_utf8(raw)) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg.removesuffix(' at')} at position {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("JSON, but not an object: each line must be one")
    nested = [name for name, value in row.items() if isinstance(value, dict | list)]
    row |= {name: str(value).lower() for name, value in row.items() if isinstance(value, bool)}
    if nested:
        row |= dict.fromkeys(nested)  # its memory is needed
        written = _json_as_written(text)
        row |= {name: written[name] for name in nested}
    if "\\u" in text:
        try:
            "".join([*row, *filter(None, row.values())]).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"no text: \\u{ord(error.object[error.start]):04x} is half a character") from None
    return row


def _json_as_written(text: str) -> dict[str, str]:
    """The text of each value of a JSON object that is known to be one."""

    def behind(mark: int) -> int:
        return _JSON_SPACE.match(text, mark).end()

    written = {}
    position = text.index("{")
    while text[position] != "}":
        name, colon = _JSON_TEXT.raw_decode(text, behind(position + 1))
        start = behind(behind(colon) + 1)
        _, end = _JSON_TEXT.raw_decode(text, start)
        written[name] = text[start:end]
        position = behind(end)
    return written


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("an object names a field twice")
    return row


# Parquet. `_source_line` is the row's number, from 1.


def _read_parquet(stream: BinaryIO, source: Source) -> Iterator[Part]:
    row = 1
    try:
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        columns = _column_names(file.schema_arrow.names, source)
        for batch in file.iter_batches(batch_size=_parquet_batch(file.metadata)):
            yield partial(_parquet_blocks, row, batch, columns)
            row += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        first_line = str(error).split("\n")[0]
        raise UnreadableFileError(f"not a whole Parquet file: damaged from row {row} on ({first_line})") from None
    if row - 1 != file.metadata.num_rows:
        raise UnreadableFileError(f"not a whole Parquet file: {row - 1:,} rows of {file.metadata.num_rows:,}")


def _parquet_batch(metadata: pq.FileMetaData) -> int:
    """So many rows that they are about a block."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=0)
    return max(1, min(128 * 1024, int(BLOCK / max(widest, 1))))


def _parquet_blocks(row: int, batch: pa.RecordBatch, columns: list[str]) -> Iterator[Block]:
    values, unfit = {}, {}
    for name, column in zip(columns, batch.columns, strict=True):
        values[name], bad = _as_text(column)
        for index, raw, reason in bad:
            unfit.setdefault(index, []).append((name, raw, reason))
    values[LINE] = _numbers(np.arange(row, row + batch.num_rows))
    broken = []
    for index, bad in unfit.items():
        raw = {name: values[name][index].as_py() for name in columns} | {name: raw for name, raw, _ in bad}
        reason = "; ".join(f"{name}: {reason}" for name, _, reason in bad)
        broken.append((row + index, json.dumps(raw, ensure_ascii=False), reason))
    rows = pa.Table.from_arrays([*values.values()], names=[*values])
    if unfit:
        rows = rows.filter(pc.invert(pc.is_in(rows[LINE], pa.array([row + index for index in unfit]))))
    yield Block(rows, broken, batch.num_rows, batch.nbytes)


def _as_text(values: pa.Array) -> tuple[pa.Array, list[tuple[int, str, str]]]:
    """`values` as text, and (index, raw, reason) for each that is none."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        values.validate(full=True)  # a string of Parquet needn't be UTF-8
        if not isinstance(values.type, pa.UuidType):
            return values.cast(pa.string()), []
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        pass
    if pa.types.is_timestamp(values.type):  # in a zone that nobody knows
        in_utc = values.view(pa.timestamp(values.type.unit)).cast(pa.string())
        return pc.binary_join_element_wise(in_utc, "Z", ""), []
    texts, bad = [], []
    as_python = _as_python if "[ns" in str(values.type) else methodcaller("as_py")
    for index, value in enumerate(values):
        try:
            texts.append(_value_as_text(as_python(value)))
        except UnicodeDecodeError as error:
            texts.append(None)
            bad.append((index, error.object.decode(errors="backslashreplace"), _not_utf8(error.object)))
        except Exception as error:  # beyond what Python's, pandas' or Arrow's types can hold
            texts.append(None)
            bad.append((index, "", f"no text can be made of it ({error})"))
    return pa.array(texts, pa.string()), bad


def _as_python(value: pa.Scalar) -> object:
    """As `as_py()`, but nanoseconds are text: Python has none, and Arrow would need pandas for them."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.MapScalar):
        return [(_as_python(pair[0]), _as_python(pair[1])) for pair in value.values]
    if isinstance(value, pa.ListScalar):
        return [_as_python(item) for item in value.values]
    if isinstance(value, pa.StructScalar):
        return _no_repeats([(name, _as_python(item)) for name, item in value.items()])
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
