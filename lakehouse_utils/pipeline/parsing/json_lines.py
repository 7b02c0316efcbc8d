"""JSON lines: one object per line. Numbers and nested values are kept as the text in the file."""

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO, NoReturn

from lakehouse_utils.pipeline.formats import Format
from lakehouse_utils.pipeline.parsing.blocks import Block, ParsedRecord, Part, assemble_blocks, invalid_utf8
from lakehouse_utils.pipeline.parsing.column_names import ColumnNames
from lakehouse_utils.pipeline.parsing.text_files import LINE_END, Chunk, TextFile
from lakehouse_utils.pipeline.sources import Source

_FIRST_LINE = re.compile(rb"[^\r\n]*+" + LINE_END)
_SPACE = re.compile(r"[ \t\r\n]*+")
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)


class BrokenLineError(Exception):
    """What is wrong with a line, as the reason in quarantine."""


def read_json_lines(stream: BinaryIO, source: Source, file_format: Format) -> Iterator[Part]:
    """The parts of a file with one JSON object per line. Raises UnreadableFileError."""
    # In JSON a line end inside a text is written as an escape, which must not be swapped with those of lines.
    file = TextFile(stream, _FIRST_LINE, file_format.encoding, line_ends_in_values=False)
    yield from file.parts(file.head, 1, lambda buffer, _: buffer.rfind(b"\n") + 1, partial(_parse_chunk, source=source))


def _parse_chunk(chunk: Chunk, source: Source) -> Iterator[Block]:
    return assemble_blocks(_records(chunk, source), len(chunk.data))


def _records(chunk: Chunk, source: Source) -> Iterator[ParsedRecord]:
    columns = ColumnNames(source)
    for line, raw in enumerate(chunk.data.split(b"\n")[:-1], start=chunk.line):
        if not raw.strip(b" \t\r"):
            continue
        try:
            row = _row(raw, source, columns)
        except BrokenLineError as error:
            yield line, raw, str(error)
        else:
            yield line, raw, row


def _row(raw: bytes, source: Source, columns: ColumnNames) -> dict[str, str | None]:
    """The row on one line, by the names of bronze's columns. Raises BrokenLineError."""
    values = _object(raw)
    row = dict(zip(columns.of_object(list(values)), values.values(), strict=True))
    if len(row) < len(values):
        raise BrokenLineError("two field names differ only in case or punctuation")
    if not source.columns.keys() & row.keys():
        raise BrokenLineError(f"none of its fields is described for the table {source.name}")
    return row


def _object(raw: bytes) -> dict[str, str | None]:
    """The object on one line, each value as text. Raises BrokenLineError."""
    try:
        text = raw.decode()
        values = json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
            object_pairs_hook=dict_without_duplicates,
        )
    except UnicodeDecodeError:
        raise BrokenLineError(invalid_utf8(raw)) from None
    except json.JSONDecodeError as error:
        raise BrokenLineError(f"invalid JSON: {error.msg.removesuffix(' at')} at position {error.pos + 1}") from None
    except RecursionError:
        raise BrokenLineError("invalid JSON: it is nested too deeply") from None
    if not isinstance(values, dict):
        raise BrokenLineError("not a JSON object: each line must be one object")
    nested = [name for name, value in values.items() if isinstance(value, dict | list)]
    values |= {name: str(value).lower() for name, value in values.items() if isinstance(value, bool)}
    if nested:
        values |= dict.fromkeys(nested)  # frees the parsed values before the text is parsed again
        written = _values_as_written(text)
        values |= {name: written[name] for name in nested}
    if "\\u" in text:
        try:
            "".join([*values, *filter(None, values.values())]).encode()
        except UnicodeEncodeError as error:
            code = ord(error.object[error.start])
            raise BrokenLineError(f"invalid text: \\u{code:04x} is only half of a surrogate pair") from None
    return values


def _refuse_constant(name: str) -> NoReturn:
    """Raise BrokenLineError for NaN, Infinity or -Infinity, which Python's json accepts."""
    raise BrokenLineError(f"invalid JSON: {name} is not a JSON value")


def _values_as_written(text: str) -> dict[str, str]:
    """The text of each value of a JSON object, which must be valid."""

    def skip_space(position: int) -> int:
        match = _SPACE.match(text, position)
        return match.end() if match else position

    written = {}
    position = text.index("{")
    while text[position] != "}":
        name, colon = _DECODER.raw_decode(text, skip_space(position + 1))
        start = skip_space(skip_space(colon) + 1)
        _, end = _DECODER.raw_decode(text, start)
        written[name] = text[start:end]
        position = skip_space(end)
    return written


def dict_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dict. Raises BrokenLineError if two have the same name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise BrokenLineError("an object has two fields with the same name")
    return values
