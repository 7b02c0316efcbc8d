"""What CSV and JSON lines have in common: encoding, line ends, and cutting a file into chunks of whole records."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.parsing.blocks import Block, BrokenRecord, Part, escaped_text, text_table
from lakehouse_utils.pipeline.parsing.encodings import BYTE_ORDER_MARK, Utf8Stream, detect_encoding, name_encoding

NEWLINE, CARRIAGE_RETURN = b"\n\r"
LINE_END = rb"(\r\r\n|\r?\n|\r)"  # at the end of the first record, this decides how the lines of a file end
_OTHER_FORMATS = {  # by their first bytes
    b"PAR1": "this is a Parquet file; rename it to end in .parquet",
    b"PK\3\4": "this is a zip archive or an Excel file; extract it, or save it as CSV",
    b"\x1f\x8b": "the file is gzip-compressed; rename it to end in .gz",
}
_SWAPPED_BYTES = bytes.maketrans(b"\r\n", b"\n\r")
_NEWLINES_ONLY = bytes.maketrans(b"\r", b"\n")
_SWAPPED_TEXT = str.maketrans("\r\n", "\n\r")


@dataclass(frozen=True)
class Chunk:
    r"""Whole records, each of which ends in `\n`; the first starts on `line` of the file."""

    line: int
    data: bytes


class _Stream(Protocol):
    def read(self, size_bytes: int, /) -> bytes: ...


class TextFile:
    r"""A stream of UTF-8 text whose lines end in `\n`, without byte order marks.

    Lines may also end in `\r` alone, as on very old Macs. If values can contain line ends, `\r` and `\n` are swapped
    while the file is read, and swapped back in the parsed blocks; otherwise each `\r` becomes `\n`.

    They may also end in `\r\r\n`, if a program wrote `\r\n` to a file that writes `\r\n` for each `\n`. Then `\r\r\n`
    becomes `\r\n`, also inside values, where it comes from the same mistake.
    """

    def __init__(
        self,
        stream: BinaryIO,
        first_record: re.Pattern[bytes],
        encoding: str = "utf-8",
        line_ends_in_values: bool = True,
    ) -> None:
        """`first_record` matches the first record; its first group is the line end.

        Raises UnreadableFileError if the file has another format or encoding.
        """
        self._stream: _Stream = stream
        head = stream.read(limits.HEAD_BYTES)
        for magic, reason in _OTHER_FORMATS.items():
            if head.startswith(magic):
                raise UnreadableFileError(reason)
        self.encoding = detect_encoding(head, encoding)
        if self.encoding != "utf-8":
            self._stream = Utf8Stream(stream, head, self.encoding)
            head = self._stream.read(limits.HEAD_BYTES)
        while head.startswith(BYTE_ORDER_MARK):  # some programs write one more each time
            head = head.removeprefix(BYTE_ORDER_MARK)
            if len(head) < len(BYTE_ORDER_MARK):
                head += self._stream.read(limits.HEAD_BYTES)
        for _ in range(2):
            if head.endswith(b"\r"):
                head += self._stream.read(1)
        match = first_record.match(head)
        line_end = match[1] if match else b"\n"
        is_old_mac = line_end == b"\r" and b"\r\n" not in head
        self._translation = (_SWAPPED_BYTES if line_ends_in_values else _NEWLINES_ONLY) if is_old_mac else None
        self._swaps_back = is_old_mac and line_ends_in_values
        self._doubles = line_end == b"\r\r\n"
        self._held_back = b""
        self.head = self._converted(head)

    def read(self, size_bytes: int) -> bytes:
        """About the next `size_bytes` after `head`; nothing only at the end of the file."""
        data = self._stream.read(size_bytes)
        converted = self._converted(data)
        while data and not converted:
            data = self._stream.read(size_bytes)
            converted = self._converted(data)
        return converted

    def _converted(self, data: bytes) -> bytes:
        """`data` with line ends as this class promises; nothing may mean that the next bytes decide."""
        if self._translation:
            return data.translate(self._translation)
        if not self._doubles:
            return data
        whole = self._held_back + data
        end = max(len(whole.rstrip(b"\r")), len(whole) - 2) if data else len(whole)
        self._held_back = whole[end:]
        return whole[:end].replace(b"\r\r\n", b"\r\n")

    def parts(
        self,
        buffer: bytes,
        line: int,
        end_of_records: Callable[[bytes, bool], int],
        parse: Callable[[Chunk], Iterable[Block]],
    ) -> Iterator[Part]:
        """The rest of the file in parts. `buffer` is the part that has been read already; it starts on `line`.

        `end_of_records(buffer, at_end_of_file)` is the number of bytes at the start of `buffer` that are whole records;
        it must not be 0 at the end of the file. A record that is too long to be parsed becomes a broken record.
        """
        at_end = False
        while buffer or not at_end:
            data = self.read(limits.BLOCK_BYTES)
            at_end = not data
            buffer += data
            if at_end and buffer and not buffer.endswith(b"\n"):
                buffer += b"\n"
            end = end_of_records(buffer, at_end)
            if end:
                chunk, buffer = Chunk(line, buffer[:end]), buffer[end:]
                line += count_byte(chunk.data, NEWLINE)
                yield self._part(partial(parse, chunk))
            elif len(buffer) > limits.MAX_RECORD_BYTES:
                start, size_bytes = buffer[: limits.MAX_RAW_BYTES], len(buffer)
                while (buffer := self.read(limits.BLOCK_BYTES)) and b"\n" not in buffer:
                    size_bytes += len(buffer)
                rest, _, buffer = buffer.partition(b"\n")
                yield self._part(partial(_oversized, line, start, size_bytes + len(rest)))
                line += 1

    def _part(self, parse: Part) -> Part:
        if self._swaps_back:
            parse = partial(_swap_back, parse)
        return parse if self.encoding == "utf-8" else name_encoding(parse, self.encoding)


def count_byte(data: bytes, byte: int) -> int:
    """How often `byte` occurs in `data`."""
    codes, step = np.frombuffer(data, np.uint8), limits.STEP_BYTES
    return sum(int(np.count_nonzero(codes[start : start + step] == byte)) for start in range(0, len(codes), step))


def _oversized(line: int, start: bytes, size_bytes: int) -> list[Block]:
    reason = (
        f"the line has {size_bytes:,} bytes, more than the limit of {limits.MAX_RECORD_BYTES:,}; raw holds the first"
        f" {len(start):,}"
    )
    return [Block(text_table({}, []), [BrokenRecord(line, escaped_text(start), reason)], 1, size_bytes)]


def _swap_back(parse: Part) -> Iterator[Block]:
    for block in parse():
        rows = block.rows
        for position, column in enumerate(rows.columns[:-1]):
            if pc.any(pc.match_substring_regex(column, "[\r\n]")).as_py():
                values = [value and value.translate(_SWAPPED_TEXT) for value in column.to_pylist()]
                rows = rows.set_column(position, rows.field(position), pa.array(values, pa.string()))
        broken = [record._replace(raw=record.raw.translate(_SWAPPED_TEXT)) for record in block.broken]
        yield replace(block, rows=rows, broken=broken)
