"""Text in other encodings, read as UTF-8, so that everything else has to know only UTF-8."""

import codecs
import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.parsing.blocks import Block, BrokenRecord, Part

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_32_MARKS = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_MARKS = {BYTE_ORDER_MARK: "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_ERRORS = "lakehouse-mark-invalid-bytes"
_MARKED_BYTE = re.compile(r"\\xff([0-9a-f]{2})")
_INVALID_UTF8 = re.compile(r"invalid UTF-8: byte 0x([0-9a-f]{2}) at position \d+")


def detect_encoding(head: bytes, described: str) -> str:
    """The encoding of a file that starts with `head`: what a byte order mark says, otherwise what the description says.

    Raises UnreadableFileError for UTF-32, and if the description relies on a byte order mark that is missing.
    """
    if head.startswith(_UTF_32_MARKS):
        raise UnreadableFileError("the file is encoded as UTF-32, which is not supported; save it as UTF-8")
    encoding = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), described)
    if encoding == "utf-16" and head:
        raise UnreadableFileError(
            "the file does not start with the byte order mark of UTF-16; set encoding in the description of the table"
            ' to "utf-16-le", "utf-16-be", or the encoding that the file has'
        )
    return encoding


class Utf8Stream:
    """The text of a stream in another encoding, as UTF-8. Bytes that are invalid stay invalid.

    An invalid byte of a single-byte encoding stays as it is. Those of UTF-16 could be valid UTF-8 by chance, so each
    becomes the byte 0xff, which UTF-8 never uses, and two hexadecimal digits; `name_encoding` translates them back.
    """

    def __init__(self, stream: BinaryIO, head: bytes, encoding: str) -> None:
        """`head` is what has been read from `stream` already."""
        self._stream = stream
        self._head = head
        self._at_end = False
        errors = _ERRORS if encoding.startswith("utf-16") else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)

    def read(self, size_bytes: int) -> bytes:
        """The text of about the next `size_bytes` of the stream; nothing only at its end."""
        text = ""
        while not text and not self._at_end:
            data, self._head = self._head or self._stream.read(size_bytes), b""
            self._at_end = not data
            text = self._decoder.decode(data, final=self._at_end)
        return text.encode(errors="surrogateescape")


def _mark_invalid_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    invalid = error.object[error.start : error.end]
    return "".join(f"\udcff{byte:02x}" for byte in invalid), error.end


codecs.register_error(_ERRORS, _mark_invalid_bytes)


def name_encoding(part: Part, encoding: str) -> Part:
    """The same part, whose broken records show the bytes of the file itself and name its encoding."""
    return partial(_with_encoding, part, encoding)


def _with_encoding(part: Part, encoding: str) -> Iterator[Block]:
    for block in part():
        block.broken = [_restated(record, encoding) for record in block.broken]
        yield block


def _restated(record: BrokenRecord, encoding: str) -> BrokenRecord:
    byte, raw = _INVALID_UTF8.search(record.reason), record.raw
    if not byte:
        return record
    shown = f"0x{byte[1]}"
    if encoding.startswith("utf-16"):
        marked = _MARKED_BYTE.search(raw)
        shown = f"0x{marked[1]}" if marked else shown
        raw = _MARKED_BYTE.sub(r"\\x\1", raw)
    reason = _INVALID_UTF8.sub(f"invalid {encoding}: byte {shown}", record.reason)
    return BrokenRecord(record.line, raw, reason)
