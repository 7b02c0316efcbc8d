r"""CSV as RFC 4180 defines it, record by record: where records end, their fields, and what is wrong with their quotes.

A quote inside a field that does not start with a quote is text, and so is a lone `\r`. The delimiter and the quote may
be other characters than in the RFC, and there may be no quote at all.
"""

import re
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.parsing.text_files import CARRIAGE_RETURN, LINE_END, NEWLINE


class Dialect(NamedTuple):
    """How a file is split into fields: its delimiter, and the ASCII character around quoted fields, or nothing."""

    delimiter: str = ","
    quote: str = '"'

    @property
    def delimiter_bytes(self) -> bytes:
        """The delimiter in UTF-8."""
        return self.delimiter.encode()

    @property
    def quote_bytes(self) -> bytes:
        """The quote in UTF-8."""
        return self.quote.encode()

    def has_quote(self, data: bytes, start: int = 0, end: int | None = None) -> bool:
        """Whether there is a quote in this part of `data`."""
        return bool(self.quote) and data.find(self.quote_bytes, start, len(data) if end is None else end) >= 0


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
def first_record(quote: str) -> re.Pattern[bytes]:
    """The first record up to its line end, the first one outside quotes, which is the first group."""
    if not quote:
        return re.compile(rb"[^\r\n]*+" + LINE_END)
    (q,) = _escaped(quote)
    return re.compile(rb"(?:[^%b\r\n]++|%b[^%b]*+%b)*+" % (q, q, q, q) + LINE_END)


@cache
def _field_pattern(dialect: Dialect) -> re.Pattern[bytes]:
    """A field, quoted or plain, and what ends it."""
    end, q = _escaped(dialect.delimiter, dialect.quote)
    # Not possessive as a group: Python 3.11.2 then reads past the delimiter.
    plain = rb"[^%b\n]*+" % end if len(dialect.delimiter_bytes) == 1 else rb"(?:(?!%b)[^\n])*" % end
    quoted = rb"%b([^%b]*+(?:%b%b[^%b]*+)*+)%b(?=\r?\n|%b)\r?" % (q, q, q, q, q, q, end)
    return re.compile(rb"(?:%b|((?!%b)%b))(%b|\n)" % (quoted, q, plain, end))


@cache
def _quoted_pattern(quote: str) -> re.Pattern[bytes]:
    """A quoted field, whatever follows."""
    (q,) = _escaped(quote)
    return re.compile(rb"%b[^%b]*+(?:%b%b[^%b]*+)*+%b" % (q, q, q, q, q, q))


def _escaped(*characters: str) -> list[bytes]:
    return [re.escape(character.encode()) for character in characters]


def read_record(data: bytes, start: int, limit: int, dialect: Dialect) -> Record:
    """The record that starts at `start`. There must be a line end before `limit`.

    If a quote is wrong, only the first line is discarded, so that the rows below it can still be read.
    """
    end_of_line = data.index(b"\n", start, limit) + 1
    if not dialect.has_quote(data, start, end_of_line):
        line = data[start : end_of_line - 1].removesuffix(b"\r")
        return Record(end_of_line, line.split(dialect.delimiter_bytes), None)
    pattern, quote = _field_pattern(dialect), dialect.quote_bytes
    fields, position = [], start
    while match := pattern.match(data, position, limit):
        quoted, plain, ending = match.groups()
        position = match.end()
        if quoted is not None:
            fields.append(quoted.replace(quote * 2, quote))
        else:
            fields.append(plain.removesuffix(b"\r") if ending == b"\n" else plain)
        if ending == b"\n":
            return Record(position, fields, None)
    is_closed = _quoted_pattern(dialect.quote).match(data, position, limit)
    return Record(end_of_line, [], QuoteProblem.TEXT_AFTER if is_closed else QuoteProblem.UNCLOSED)


def quote_positions(codes: NDArray[np.uint8], dialect: Dialect) -> NDArray[np.integer[Any]] | None:
    """Where the quotes around fields are, in turn an opening and a closing one; `codes` are whole lines.

    None if there is a quote in an invalid position, so that counting cannot tell opening and closing quotes apart.
    """
    if len(dialect.delimiter_bytes) > 1:
        return None
    delimiter, quote = ord(dialect.delimiter), ord(dialect.quote)
    quotes = np.flatnonzero(codes == quote)
    before = codes[quotes - 1]  # for the first byte this is the last one, a line end
    opens = (before == delimiter) | (before == NEWLINE)
    if not opens.any():
        return quotes[:0]
    closing = quotes[1::2]
    after = codes[closing + 1]
    closes = (after == delimiter) | (after == NEWLINE) | (after == quote)
    closes[after == CARRIAGE_RETURN] = codes[closing[after == CARRIAGE_RETURN] + 2] == NEWLINE
    return quotes if closes.all() and (opens | (before == quote))[::2].all() else None


def end_of_records(buffer: bytes, at_end_of_file: bool, dialect: Dialect) -> int:
    """The end of the last complete record in `buffer`, as far as that is known yet.

    A quote that stays open for MAX_QUOTED_BYTES, or to the end of the file, counts as never closed: then the answer is
    the end of its line.
    """
    end_of_lines = buffer.rfind(b"\n") + 1
    if not dialect.has_quote(buffer, 0, end_of_lines):
        return end_of_lines
    max_quoted_bytes = 0 if at_end_of_file else limits.MAX_QUOTED_BYTES
    quotes = quote_positions(np.frombuffer(buffer, np.uint8, end_of_lines), dialect)
    if quotes is not None:
        end = end_of_lines
        while (quotes_before := int(np.searchsorted(quotes, end))) % 2:  # inside a quoted field
            end = buffer.rfind(b"\n", 0, int(quotes[quotes_before - 1])) + 1
        if end or len(buffer) <= max_quoted_bytes:
            return end
    position = 0
    while (quote := buffer.find(dialect.quote_bytes, position, end_of_lines)) >= 0:
        start = max(buffer.rfind(b"\n", position, quote) + 1, position)
        position, _, problem = read_record(buffer, start, end_of_lines, dialect)
        if problem is QuoteProblem.UNCLOSED:
            return start if start or len(buffer) <= max_quoted_bytes else position
    return end_of_lines
