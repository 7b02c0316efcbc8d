"""What CSV and JSON lines have in common: encoding, line ends, and cutting a file into chunks of whole records."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.parsing.blocks import Block, BrokenRecord, Part, escaped_text, text_table

NEWLINE, CARRIAGE_RETURN = b"\n\r"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_FORMATS = {  # by their first bytes
    b"\xff\xfe": "the file is encoded as UTF-16; save it as UTF-8",
    b"\xfe\xff": "the file is encoded as UTF-16; save it as UTF-8",
    b"PAR1": "this is a Parquet file; rename it to end in .parquet",
    b"PK\3\4": "this is a zip archive or an Excel file; extract it, or save it as CSV",
    b"\x1f\x8b": "the file is gzip-compressed; rename it to end in .gz",
}
_SWAPPED_BYTES = bytes.maketrans(b"\r\n", b"\n\r")
_SWAPPED_TEXT = str.maketrans("\r\n", "\n\r")


@dataclass(frozen=True)
class Chunk:
    r"""Whole records, each of which ends in `\n`; the first starts on `line` of the file."""

    line: int
    data: bytes


class TextFile:
    r"""A stream of text whose lines end in `\n`, without a byte order mark.

    Lines may also end in `\r` alone, as on very old Macs. Then `\r` and `\n` are swapped while the file is read, and
    swapped back in the parsed blocks.
    """

    def __init__(self, stream: BinaryIO, line_end: re.Pattern[bytes]) -> None:
        """`line_end` matches the first record; its first group is the line end.

        Raises UnreadableFileError if the file has another format or encoding.
        """
        self._stream = stream
        head = stream.read(limits.HEAD_BYTES)
        if head.endswith(b"\r"):
            head += stream.read(1)
        for magic, reason in _OTHER_FORMATS.items():
            if head.startswith(magic):
                raise UnreadableFileError(reason)
        head = head.removeprefix(BYTE_ORDER_MARK)
        first_record = line_end.match(head)
        self._swaps = first_record is not None and first_record[1] == b"\r" and b"\r\n" not in head
        self.head = head.translate(_SWAPPED_BYTES) if self._swaps else head

    def read(self, size_bytes: int) -> bytes:
        """The next bytes after `head`; none at the end of the file."""
        data = self._stream.read(size_bytes)
        return data.translate(_SWAPPED_BYTES) if self._swaps else data

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
        return partial(_swap_back, parse) if self._swaps else parse


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
        yield Block(rows, broken, block.read, block.size_bytes)
