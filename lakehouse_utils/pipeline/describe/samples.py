"""Some rows of a raw file, as text, and how the file is split into fields."""

import codecs
import csv
import gzip
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.sql import literal

SAMPLE_BYTES = 16 << 20
SAMPLE_ROWS = 50_000
_SNIFFED_RECORDS = 1000
_DELIMITERS = ",;\t|"
_NAME = re.compile(r"(?P<table>.+?)\.(?P<format>csv|jsonl|ndjson|parquet)(\.gz)?", re.IGNORECASE)
_UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Sample:
    """Rows of one file. `types` has the types of columns whose type is stored in the file, as descriptions write them.

    `reading` has the settings of the description that the file needs to be read, if they are not the defaults.
    """

    path: Path
    table: str
    headers: list[str]
    rows: list[list[str | None]]
    reading: dict[str, Any] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    is_complete: bool = True


def read(path: Path) -> Sample:
    """A sample of the file. Raises UnreadableFileError if it has another format or no rows."""
    match = _NAME.fullmatch(path.name)
    if not match:
        raise UnreadableFileError(
            f"{path}: its name does not end in .csv, .jsonl, .ndjson, one of these and .gz, or .parquet"
        )
    readers = {"csv": _read_csv, "parquet": _read_parquet}
    try:
        sample = readers.get(match["format"].lower(), _read_json_lines)(path, match["table"])
    except (OSError, EOFError, pa.ArrowInvalid, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise UnreadableFileError(f"{path}: could not read the file: {reason}") from None
    if not sample.headers or not sample.rows:
        raise UnreadableFileError(f"{path}: the file has no rows; describe a file with at least one")
    return sample


def _read_text(path: Path) -> tuple[str, str, bool]:
    """The start of a file, its encoding, and whether the start is all of the file."""
    with path.open("rb") as file:
        stream = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        data = stream.read(SAMPLE_BYTES)
        is_complete = not stream.read(1)
    encoding = _guess_encoding(data)
    text = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)("replace").decode(data)
    return text.removeprefix("\ufeff"), encoding, is_complete


def _guess_encoding(data: bytes) -> str:
    """UTF-8 if the bytes are valid in it. Otherwise windows-1252, which contains the printable letters of Latin-1."""
    if data.startswith(_UTF16_BOMS):
        return "utf-16"
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        half = data[start:2000:2]
        if half and half.count(0) > len(half) * 0.7:
            return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return "windows-1252"
    return "utf-8"


def _read_csv(path: Path, table: str) -> Sample:
    text, encoding, is_complete = _read_text(path)
    delimiter, quote = _sniff(text)
    parse: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    csv.field_size_limit(SAMPLE_BYTES)

    def records(skipped_lines: int, count: int) -> Iterator[list[str]]:
        stream = io.StringIO(text, newline="")
        for _ in range(skipped_lines):
            stream.readline()
        return islice((record for record in csv.reader(stream, delimiter=delimiter, **parse) if record), count)

    skip_rows = _lines_before_header(text, delimiter, parse)
    first, *rest = list(records(skip_rows, SAMPLE_ROWS + 1)) or [[]]
    rows: list[list[str | None]] = [list[str | None](record) for record in rest if len(record) == len(first)]
    settings = {"delimiter": delimiter, "quote": quote, "encoding": encoding, "skip_rows": skip_rows}
    defaults = {"delimiter": ",", "quote": '"', "encoding": "utf-8", "skip_rows": 0}
    reading = {name: value for name, value in settings.items() if value != defaults[name]}
    return Sample(path, table, first, rows, reading, is_complete=is_complete and len(rest) < SAMPLE_ROWS)


def _sniff(text: str) -> tuple[str, str]:
    """The delimiter and the quote, by DuckDB's sniffer; if it finds no rows, by the most frequent delimiter."""
    start = "".join(islice(io.StringIO(text, newline=""), _SNIFFED_RECORDS))
    delimiter = max(_DELIMITERS, key=start.count)
    with (
        tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".csv") as file,
        duckdb.connect() as database,
    ):
        file.write(start)
        file.flush()
        try:
            query = f"SELECT Delimiter, Quote FROM sniff_csv({literal(file.name)}, all_varchar = true)"
            sniffed, quote = database.execute(query).fetchone() or ("", "")
        except duckdb.Error:
            sniffed, quote = "", ""
    if sniffed in tuple(_DELIMITERS):
        delimiter = sniffed
    return delimiter, quote if quote == "'" and '"' not in start else '"'


def _lines_before_header(text: str, delimiter: str, parse: dict[str, Any]) -> int:
    """The number of lines before the first record that has as many fields as most records, none of them empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **parse)
    records, lines, start = [], [], 0
    for record in islice(reader, _SNIFFED_RECORDS):
        if record:
            records.append(record)
            lines.append(start)
        start = reader.line_num
    usual = Counter(map(len, records)).most_common(1)[0][0] if records else 0
    for record, line in zip(records, lines, strict=True):
        if len(record) == usual and all(name.strip() for name in record):
            return line
    return 0


def _read_json_lines(path: Path, table: str) -> Sample:
    text, encoding, is_complete = _read_text(path)
    objects = []
    lines = text.split("\n")
    for line in lines[: SAMPLE_ROWS if is_complete else max(1, min(SAMPLE_ROWS, len(lines) - 1))]:
        try:
            parsed = json.loads(line, parse_int=str, parse_float=str)
        except ValueError:
            continue
        if isinstance(parsed, dict):
            objects.append(parsed)
    headers = list(dict.fromkeys(name for row in objects for name in row))
    rows = [[_json_text(row.get(name)) for name in headers] for row in objects]
    reading = {} if encoding == "utf-8" else {"encoding": encoding}
    return Sample(path, table, headers, rows, reading, is_complete=is_complete and len(lines) <= SAMPLE_ROWS)


def _json_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _read_parquet(path: Path, table: str) -> Sample:
    file = pq.ParquetFile(path)
    batch = next(file.iter_batches(SAMPLE_ROWS), None)
    schema = file.schema_arrow
    types = {name: type_ for name, arrow in zip(schema.names, schema.types, strict=True) if (type_ := _type(arrow))}
    columns = [] if batch is None else [batch.column(index).to_pylist() for index in range(batch.num_columns)]
    rows = [[None if value is None else str(value) for value in row] for row in zip(*columns, strict=True)]
    return Sample(path, table, schema.names, rows, {}, types, len(rows) == file.metadata.num_rows)


def _type(arrow: pa.DataType) -> str | None:
    """The type of a Parquet column, as descriptions write it; None for text, which may be anything."""
    if pa.types.is_boolean(arrow):
        return "boolean"
    if pa.types.is_integer(arrow):
        return "integer"
    if pa.types.is_floating(arrow):
        return "double"
    if pa.types.is_decimal(arrow) and arrow.precision <= 38 and 0 <= arrow.scale <= arrow.precision:
        return f"decimal({arrow.precision},{arrow.scale})"
    if pa.types.is_date(arrow):
        return "date"
    return "timestamp" if pa.types.is_timestamp(arrow) else None
