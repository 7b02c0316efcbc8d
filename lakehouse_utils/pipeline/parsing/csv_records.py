r"""CSV as RFC 4180 defines it, record by record: where records end, their fields, and what is wrong with their quotes.

A quote inside a field that does not start with a quote is text, and so is a lone `\r`.
"""

import re
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.parsing.text_files import CARRIAGE_RETURN, NEWLINE

QUOTE = ord('"')
FIRST_LINE_END = re.compile(rb'(?:[^"\r\n]++|"[^"]*+")*+(\r?\n|\r)')  # the first one outside quotes
_QUOTED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')


class QuoteProblem(StrEnum):
    """What can be wrong with the quotes of a record, as the reason in quarantine."""

    UNCLOSED = "a quoted field is never closed"
    TEXT_AFTER = "there is text after a closing quote"


class Record(NamedTuple):
    """A record: the position after it, its fields, and the problem with its quotes, in which case it has no fields."""

    end: int
    fields: list[bytes]
    problem: QuoteProblem | None


@cache
def _field_pattern(delimiter: str) -> re.Pattern[bytes]:
    """A field, quoted or plain, and what ends it."""
    end = re.escape(delimiter.encode())
    # Not possessive as a group: Python 3.11.2 then reads past the delimiter.
    plain = rb"[^%b\n]*+" % end if len(delimiter.encode()) == 1 else rb"(?:(?!%b)[^\n])*" % end
    return re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"(?=\r?\n|%b)\r?|((?!")%b))(%b|\n)' % (end, plain, end))


def read_record(data: bytes, start: int, limit: int, delimiter: str) -> Record:
    """The record that starts at `start`. There must be a line end before `limit`.

    If a quote is wrong, only the first line is discarded, so that the rows below it can still be read.
    """
    end_of_line = data.index(b"\n", start, limit) + 1
    if data.find(b'"', start, end_of_line) < 0:
        line = data[start : end_of_line - 1].removesuffix(b"\r")
        return Record(end_of_line, line.split(delimiter.encode()), None)
    pattern = _field_pattern(delimiter)
    fields, position = [], start
    while match := pattern.match(data, position, limit):
        quoted, plain, ending = match.groups()
        position = match.end()
        if quoted is not None:
            fields.append(quoted.replace(b'""', b'"'))
        else:
            fields.append(plain.removesuffix(b"\r") if ending == b"\n" else plain)
        if ending == b"\n":
            return Record(position, fields, None)
    is_closed = _QUOTED.match(data, position, limit)
    return Record(end_of_line, [], QuoteProblem.TEXT_AFTER if is_closed else QuoteProblem.UNCLOSED)


def quote_positions(codes: NDArray[np.uint8], delimiter: str) -> NDArray[np.integer[Any]] | None:
    """Where the quotes around fields are, in turn an opening and a closing one; `codes` are whole lines.

    None if there is a quote in an invalid position, so that counting cannot tell opening and closing quotes apart.
    """
    if len(delimiter.encode()) > 1:
        return None
    quotes = np.flatnonzero(codes == QUOTE)
    before = codes[quotes - 1]  # for the first byte this is the last one, a line end
    opens = (before == ord(delimiter)) | (before == NEWLINE)
    if not opens.any():
        return quotes[:0]
    closing = quotes[1::2]
    after = codes[closing + 1]
    closes = (after == ord(delimiter)) | (after == NEWLINE) | (after == QUOTE)
    closes[after == CARRIAGE_RETURN] = codes[closing[after == CARRIAGE_RETURN] + 2] == NEWLINE
    return quotes if closes.all() and (opens | (before == QUOTE))[::2].all() else None


def end_of_records(buffer: bytes, at_end_of_file: bool, delimiter: str) -> int:
    """The end of the last complete record in `buffer`, as far as that is known yet.

    A quote that stays open for MAX_QUOTED_BYTES, or to the end of the file, counts as never closed: then the answer is
    the end of its line.
    """
    end_of_lines = buffer.rfind(b"\n") + 1
    if buffer.find(b'"', 0, end_of_lines) < 0:
        return end_of_lines
    max_quoted_bytes = 0 if at_end_of_file else limits.MAX_QUOTED_BYTES
    quotes = quote_positions(np.frombuffer(buffer, np.uint8, end_of_lines), delimiter)
    if quotes is not None:
        end = end_of_lines
        while (quotes_before := int(np.searchsorted(quotes, end))) % 2:  # inside a quoted field
            end = buffer.rfind(b"\n", 0, int(quotes[quotes_before - 1])) + 1
        if end or len(buffer) <= max_quoted_bytes:
            return end
    position = 0
    while (quote := buffer.find(b'"', position, end_of_lines)) >= 0:
        start = max(buffer.rfind(b"\n", position, quote) + 1, position)
        position, _, problem = read_record(buffer, start, end_of_lines, delimiter)
        if problem is QuoteProblem.UNCLOSED:
            return start if start or len(buffer) <= max_quoted_bytes else position
    return end_of_lines
