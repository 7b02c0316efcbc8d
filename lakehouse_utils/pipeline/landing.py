"""Raw files as they came: where they are, and what stands in them, block by block, good rows apart from broken ones.

A file is `<landing>/<batch>/<table>.<csv|jsonl|parquet>`, `.gz` after csv and jsonl; batches are taken in name order.
Files directly in the folder are one batch, named `.`. Values stay the text that they are in the file.
"""

import csv
import gzip
import hashlib
import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError, explained
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline.sources import Source

csv.field_size_limit(2**31 - 1)  # a long field is no error
MIB = 1 << 20
BLOCK = 24 * MIB  # of text; becomes one Parquet file of about a third
LONGEST_RECORD = 256 * MIB  # a longer line is quarantined, with its first MiB
LONGEST_QUOTED = 64 * MIB  # a quote still open after this much is taken for an unclosed one

LINE = "_source_line"
_NEWLINE, _QUOTE = ord("\n"), ord('"')
_UNFIT_FOR_NAMES = str.maketrans(dict.fromkeys(" ,;{}()\n\r\t=", "_"))  # Delta's and Parquet's forbidden characters


class UnreadableFile(Exception):
    """A file that can't be read at all; the message says why, for people."""


@dataclass(frozen=True)
class LandingFile:
    """One raw file: `path`, relative to the landing, stays its identity when the landing moves."""

    batch: str
    table: str
    path: str
    format: str
    gzipped: bool
    size: int


@dataclass
class Block:
    """A part of a file: `rows` are text columns and `_source_line`; `broken` is a list of (line, raw, reason)."""

    rows: pl.DataFrame
    broken: list[tuple[int | None, str, str]] = field(default_factory=list)
    read: int = 0  # records, counted from the raw bytes, not from what parsing made of them
    size: int = 0  # of the raw bytes


# -- where files are


class Landing:
    """The folder, or `s3://bucket/prefix`, that raw files arrive in."""

    def __init__(self, address: str, lake: Lake) -> None:
        self.address = address.rstrip("/")
        self._lake = lake.sibling(settings.s3_uri(address)) if address.startswith("s3://") else None
        if self._lake is None and not Path(address).is_dir():
            raise LakehouseError(f"The landing folder {address} doesn't exist: check --landing or LAKEHOUSE_LANDING.")

    def files(self) -> tuple[list[LandingFile], list[str]]:
        """The files to load, by batch and name, and one sentence for each file that is left alone."""
        found, ignored = [], []
        for path, size in sorted(self._list()):
            *folders, name = path.split("/")
            if any(part.startswith((".", "_")) for part in (*folders, name)):
                continue  # hidden, or a marker like _SUCCESS
            stem, *endings = name.split(".")
            match [ending.lower() for ending in endings]:
                case [("csv" | "jsonl" | "ndjson" | "parquet") as kind] if len(folders) <= 1:
                    gzipped = False
                case [("csv" | "jsonl" | "ndjson") as kind, "gz"] if len(folders) <= 1:
                    gzipped = True
                case _:
                    ignored.append(f"{path}: not <batch>/<table>.csv, .jsonl (both also .gz) or .parquet; left alone")
                    continue
            kind = "jsonl" if kind == "ndjson" else kind
            found.append(LandingFile(folders[0] if folders else ".", stem, path, kind, gzipped, size))
        return sorted(found, key=lambda file: (file.batch, file.path)), ignored

    def _list(self) -> Iterator[tuple[str, int]]:
        if self._lake is None:
            folder = Path(self.address)
            for path in folder.rglob("*"):
                if path.is_file():
                    yield path.relative_to(folder).as_posix(), path.stat().st_size
            return
        prefix = f"{self._lake.prefix}/" if self._lake.prefix else ""
        with explained(f"list the landing {self.address}", self._lake):
            pages = self._lake.s3.get_paginator("list_objects_v2").paginate(Bucket=self._lake.bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", []):
                    if not entry["Key"].endswith("/"):
                        yield entry["Key"].removeprefix(prefix), entry["Size"]

    @contextmanager
    def open(self, file: LandingFile) -> Iterator[BinaryIO]:
        """The bytes of `file`, unpacked when gzipped. Raises UnreadableFile."""
        try:
            with self._stream(file) as stream:
                yield gzip.GzipFile(fileobj=stream) if file.gzipped else stream
        except FileNotFoundError:
            raise UnreadableFile("the file vanished before it was read") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UnreadableFile(f"the gzip data is cut off or damaged ({error})") from None
        except PermissionError:
            raise UnreadableFile("no permission to read the file") from None
        except OSError as error:
            raise UnreadableFile(f"reading failed: {error.strerror or error}") from None

    @contextmanager
    def _stream(self, file: LandingFile) -> Iterator[BinaryIO]:
        if self._lake is None:
            with (Path(self.address) / file.path).open("rb") as stream:
                yield stream
            return
        with self._spooled(file) as stream:
            yield stream

    @contextmanager
    def _spooled(self, file: LandingFile) -> Iterator[BinaryIO]:
        """An object on S3 by way of a temporary file: Parquet is read from its end, and a download can be resumed."""
        with tempfile.TemporaryFile() as stream:
            with explained(f"read {self.address}/{file.path}", self._lake):
                try:
                    self._lake.s3.download_fileobj(self._lake.bucket, self._key(file), stream)
                except ClientError as error:
                    if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                        raise FileNotFoundError(file.path) from None
                    raise
            stream.seek(0)
            yield stream

    def _key(self, file: LandingFile) -> str:
        return f"{self._lake.prefix}/{file.path}".lstrip("/")

    def fingerprint(self, file: LandingFile) -> int:
        """63 bits that tell this delivery of the file from another one under the same name.

        Taken from the size and, of a file over 1 MiB, eight samples of 64 KiB, so that a rerun needn't read everything.
        """
        size = self._size(file)
        digest = hashlib.blake2b(str(size).encode(), digest_size=8)
        for offset, length in _samples(size):
            digest.update(self._range(file, offset, length))
        return int.from_bytes(digest.digest()) >> 1

    def _size(self, file: LandingFile) -> int:
        if self._lake:
            return file.size  # an object is replaced as a whole, and downloaded as one
        try:
            return (Path(self.address) / file.path).stat().st_size
        except OSError:
            raise UnreadableFile("the file vanished before it was read") from None

    def _range(self, file: LandingFile, offset: int, length: int) -> bytes:
        try:
            if self._lake is None:
                with (Path(self.address) / file.path).open("rb") as stream:
                    stream.seek(offset)
                    return stream.read(length)
            with explained(f"read {self.address}/{file.path}", self._lake):
                span = f"bytes={offset}-{offset + length - 1}"
                answer = self._lake.s3.get_object(Bucket=self._lake.bucket, Key=self._key(file), Range=span)
                return answer["Body"].read()
        except (FileNotFoundError, ClientError):
            raise UnreadableFile("the file vanished before it was read") from None
        except OSError as error:
            raise UnreadableFile(f"reading failed: {error.strerror or error}") from None


def _samples(size: int) -> list[tuple[int, int]]:
    if size <= MIB:
        return [(0, size)] if size else []
    length, count = 64 * 1024, 8
    return [(round(i * (size - length) / (count - 1)), length) for i in range(count)]


# -- what stands in them


def read(stream: BinaryIO, file: LandingFile, source: Source) -> Iterator[Callable[[], Block]]:
    """The file as a series of parts, each a function that parses it: those may run at the same time.

    Raises UnreadableFile, here or in a part, where the file as a whole is no good.
    """
    readers = {"csv": _read_csv, "jsonl": _read_json_lines, "parquet": _read_parquet}
    return readers[file.format](stream, source)


def _column_names(names: list[str], source: Source) -> list[str]:
    """Names that Delta accepts; described columns get the description's spelling."""
    described = {name.casefold(): name for name in source.columns}
    fit = [name.strip().translate(_UNFIT_FOR_NAMES) for name in names]
    fit = [described.get(name.casefold(), name.lower()) for name in fit]
    folded = [name.casefold() for name in fit]
    for position, (name, low) in enumerate(zip(fit, folded, strict=True)):
        if not name:
            raise UnreadableFile(f"column {position + 1} has no name")
        if low.startswith("_"):
            raise UnreadableFile(f"the column name {name!r} begins with _, which is reserved")
    if len(set(folded)) < len(folded):
        twice = next(name for name, low in zip(fit, folded, strict=True) if folded.count(low) > 1)
        raise UnreadableFile(f"the column {twice!r} is there twice")
    if not described.keys() & set(folded):
        raise UnreadableFile(
            f"none of its columns ({', '.join(fit)[:100]}) is in the description of {source.name}: is the header"
            f" missing, or the delimiter not {source.delimiter!r}?"
        )
    return fit


def _text_frame(columns: dict[str, list[str | None]], lines: list[int]) -> pl.DataFrame:
    schema = dict.fromkeys(columns, pl.String) | {LINE: pl.Int64}
    return pl.DataFrame(columns | {LINE: lines}, schema=schema)


class _AppleLineEnds:
    """A stream whose lines end in \\r, as on the first Macintosh, read as if they ended in \\n."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return self._stream.read(size).replace(b"\r", b"\n")


def _beginning(stream: BinaryIO) -> tuple[BinaryIO, bytes]:
    """The stream and its first bytes, without a byte order mark."""
    head = stream.read(MIB)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableFile("it is UTF-16: save it as UTF-8")
    if b"\r" in head and b"\n" not in head:
        stream, head = _AppleLineEnds(stream), head.replace(b"\r", b"\n")
    return stream, head.removeprefix(b"\xef\xbb\xbf")


def _chunks(
    stream: BinaryIO, buffer: bytes, line: int, cut: Callable[[bytes], int]
) -> Iterator[tuple[int, bytes, int | None]]:
    """(line it begins on, whole records that end in \\n, None), or (line, first MiB, size) of one that is too long.

    `cut(buffer)` tells how many bytes from the start are whole records.
    """
    ended = False
    while not ended:
        part = stream.read(BLOCK)
        ended = not part
        buffer += part
        if ended and buffer and not buffer.endswith(b"\n"):
            buffer += b"\n"
        end = len(buffer) if ended else cut(buffer)
        if end:
            yield line, buffer[:end], None
            line += _count(buffer[:end], _NEWLINE)
            buffer = buffer[end:]
        elif len(buffer) > LONGEST_RECORD:
            start, size = buffer[:MIB], len(buffer)
            while (buffer := stream.read(BLOCK)) and b"\n" not in buffer:
                size += len(buffer)
            rest, _, buffer = buffer.partition(b"\n")
            yield line, start, size + len(rest)
            line += 1


def _count(data: bytes, byte: int) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == byte))


def _too_long(line: int, start: bytes, size: int, columns: list[str]) -> Block:
    raw = start.decode(errors="backslashreplace")
    reason = f"the line has {size:,} bytes, more than {LONGEST_RECORD:,}; raw holds the first {len(start):,}"
    return Block(_text_frame({name: [] for name in columns}, []), [(line, raw, reason)], 1, size)


# CSV (RFC 4180). Clean blocks go through Polars, whose count of rows and fields is held against the block's own line
# ends and delimiters; a block where anything is off is read again, record by record, by a reader that explains itself.


def _read_csv(stream: BinaryIO, source: Source) -> Iterator[Callable[[], Block]]:
    stream, head = _beginning(stream)
    while not _header_end(head) and (part := stream.read(MIB)):
        head += part
    if not head.strip():
        return
    end = _header_end(head) or len(head)
    try:
        header = next(csv.reader(io.StringIO(head[:end].decode(), newline=""), delimiter=source.delimiter))
    except UnicodeDecodeError:
        raise UnreadableFile("its header is not UTF-8") from None
    columns = _column_names(header, source)
    first_line = 1 + _count(head[:end], _NEWLINE)
    for line, data, size in _chunks(stream, head[end:], first_line, _whole_csv_records):
        if size is None:
            yield partial(_parse_csv, line, data, columns, source.delimiter)
        else:
            yield partial(_too_long, line, data, size, columns)


def _header_end(head: bytes) -> int:
    """Where the first record ends; 0 when that isn't to be seen yet."""
    position = -1
    while (position := head.find(b"\n", position + 1)) >= 0:
        if head.count(b'"', 0, position) % 2 == 0:
            return position + 1
    return 0


def _whole_csv_records(buffer: bytes) -> int:
    """Up to the last line end that is outside quotes: an even number of quotes stands before it."""
    position = buffer.rfind(b"\n")
    if position < 0 or b'"' not in buffer:
        return position + 1
    quotes = buffer.count(b'"', 0, position)
    while quotes % 2 and position >= 0:
        earlier = buffer.rfind(b"\n", 0, buffer.rfind(b'"', 0, position))
        quotes -= buffer.count(b'"', max(earlier, 0), position)
        position = earlier
    if position < 0 and len(buffer) > LONGEST_QUOTED:
        return buffer.rfind(b"\n") + 1
    return position + 1


def _parse_csv(line: int, data: bytes, columns: list[str], delimiter: str) -> Block:
    lines = _csv_record_lines(line, data, len(columns), delimiter)
    if lines is not None:
        try:
            rows = pl.read_csv(
                data,
                has_header=False,
                schema=dict.fromkeys(columns, pl.String),
                separator=delimiter,
                quote_char='"' if b'"' in data else None,
                empty_string_is_null=False,
            )
        except pl.exceptions.PolarsError:  # broken UTF-8, too many fields, text behind a closing quote
            rows = None
        if rows is not None and len(rows) == len(lines):
            return Block(rows.with_columns(pl.Series(LINE, lines, dtype=pl.Int64)), read=len(lines), size=len(data))
    return _parse_csv_carefully(line, data, columns, delimiter)


def _csv_record_lines(line: int, data: bytes, width: int, delimiter: str) -> np.ndarray | range | None:
    """The line on which each record begins; None when the delimiters show that not all have `width` fields."""
    if len(delimiter.encode()) > 1 or b"\n\n" in data or b"\n\r\n" in data or data.startswith((b"\n", b"\r\n")):
        return None  # blank lines
    codes = np.frombuffer(data, np.uint8)
    if b'"' not in data:
        records = _count(data, _NEWLINE)
        lines = range(line, line + records)
        delimiters = _count(data, ord(delimiter))
    else:
        quotes = np.flatnonzero(codes == _QUOTE)
        ends = np.flatnonzero(codes == _NEWLINE)
        outside = np.searchsorted(quotes, ends) % 2 == 0
        starts = np.concatenate([[0], np.flatnonzero(outside)[:-1] + 1])
        lines = line + starts
        records = int(outside.sum())
        delimiters = int((np.searchsorted(quotes, np.flatnonzero(codes == ord(delimiter))) % 2 == 0).sum())
    return lines if records and delimiters == records * (width - 1) else None


def _parse_csv_carefully(line: int, data: bytes, columns: list[str], delimiter: str) -> Block:
    physical = data.split(b"\n")[:-1]
    rows, lines, broken = [], [], []
    position = records = 0
    while position < len(physical):
        if not physical[position].strip():
            position += 1
            continue
        fields, length, reason = _csv_record(physical, position, delimiter)
        records += 1
        raw = b"\n".join(physical[position : position + length])
        if not reason and len(fields) != len(columns):
            reason = f"{len(fields)} fields where the header has {len(columns)}"
        if not reason:
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                reason = f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}"
        if reason:
            broken.append((line + position, raw.decode(errors="backslashreplace").rstrip("\r"), reason))
        else:
            rows.append(fields)
            lines.append(line + position)
        position += length
    values = zip(*rows, strict=True) if rows else [[] for _ in columns]
    return Block(_text_frame(dict(zip(columns, map(list, values), strict=True)), lines), broken, records, len(data))


def _csv_record(physical: list[bytes], position: int, delimiter: str) -> tuple[list[str], int, str | None]:
    """The fields of the record that begins on this line, how many lines it takes, and what is wrong with its quotes.

    Where a quote is wrong, only the first line is given up, so that the rows below it get their chance.
    """
    taken = 0

    def following() -> Iterator[str]:
        nonlocal taken
        for index in range(position, len(physical)):
            taken += 1
            yield physical[index].decode(errors="surrogateescape") + "\n"

    try:
        fields = next(csv.reader(following(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            return [], 1, "a quote is opened and never closed"
        return [], 1, "text stands behind a closing quote"
    return fields, taken, None


# JSON lines. Numbers stay as they are written; what is nested stays JSON.


def _read_json_lines(stream: BinaryIO, source: Source) -> Iterator[Callable[[], Block]]:
    stream, head = _beginning(stream)
    for line, data, size in _chunks(stream, head, 1, lambda buffer: buffer.rfind(b"\n") + 1):
        if size is None:
            yield partial(_parse_json_lines, line, data, source)
        else:
            yield partial(_too_long, line, data, size, [])


def _parse_json_lines(line: int, data: bytes, source: Source) -> Block:
    columns: dict[str, list[str | None]] = {}
    lines, broken = [], []
    records = 0
    for number, raw in enumerate(data.split(b"\n")[:-1], start=line):
        if not raw.strip():
            continue
        records += 1
        try:
            row = _json_object(raw)
        except ValueError as error:
            broken.append((number, raw.decode(errors="backslashreplace").rstrip("\r"), str(error)))
            continue
        for name, value in row.items():
            if name not in columns:
                columns[name] = [None] * len(lines)
            columns[name].append(value)
        lines.append(number)
        for values in columns.values():
            if len(values) < len(lines):
                values.append(None)
    names = _column_names(list(columns), source) if columns else []
    return Block(_text_frame(dict(zip(names, columns.values(), strict=True)), lines), broken, records, len(data))


def _json_object(raw: bytes) -> dict[str, str | None]:
    """The object on one line, each value as text. ValueError says what is wrong with the line."""
    try:
        row = json.loads(raw, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_no_repeats)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at position {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("JSON, but not an object")
    for name, value in row.items():
        if isinstance(value, bool):
            row[name] = str(value).lower()
        elif isinstance(value, dict | list):
            row[name] = json.dumps(json.loads(raw)[name], ensure_ascii=False)
    return row


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("an object names a field twice")
    return row


# Parquet. `_source_line` is the row's number, from 1.


def _read_parquet(stream: BinaryIO, source: Source) -> Iterator[Callable[[], Block]]:
    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"not a whole Parquet file ({str(error).splitlines()[0]})") from None
    columns = _column_names(file.schema_arrow.names, source)
    row = 1
    try:
        for batch in file.iter_batches(batch_size=128 * 1024):
            yield partial(_parquet_block, row, batch, columns)
            row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"damaged Parquet data from row {row} on ({str(error).splitlines()[0]})") from None


def _parquet_block(row: int, batch: pa.RecordBatch, columns: list[str]) -> Block:
    values = {name: _as_text(batch.column(i)) for i, name in enumerate(columns)}
    values[LINE] = pa.array(range(row, row + batch.num_rows), pa.int64())
    return Block(pl.from_arrow(pa.table(values)), read=batch.num_rows, size=batch.nbytes)


def _as_text(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        return values.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # nested, or bytes that are not UTF-8
        texts = [
            None if v is None else json.dumps(v, ensure_ascii=False, default=_json_default) for v in values.to_pylist()
        ]
        return pa.array(texts, pa.string())


def _json_default(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
