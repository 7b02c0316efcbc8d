"""Writes raw files (CSV, gzipped CSV, JSON lines, Parquet) and records every quirk in them.

Text files are identical byte for byte everywhere. Parquet and gzip files have identical content, but their bytes depend
on the library that writes them.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse_utils.sample_data.columns import Row, Table, join
from lakehouse_utils.sample_data.draws import Integers

CHUNK_ROWS = 65_536  # about how many rows are in memory at a time

# How a row is broken: the line cannot be split into fields, or a value is not valid for its type or breaks a rule.
BROKEN_LINE, BROKEN_VALUE = "line", "value"

_MAX_NOTES_PER_KIND = 10  # of good rows in one file; every broken row is noted
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ROWS_PER_REPORT = 1000  # of rows that are written one by one

OnProgress = Callable[[str, int, int], None]  # (batch, rows written so far, approximate total of rows)


class Quirk(NamedTuple):
    """Something unusual in the daily batches, and where it is.

    `file` is a path such as `2026-01-02/orders.csv`, or the batch in which a file is missing. `line` counts from 1, in
    Parquet files by row; None is the file as a whole. `broken` is BROKEN_LINE or BROKEN_VALUE if the row must be
    quarantined.
    """

    file: str
    line: int | None
    kind: str
    detail: str
    broken: str | None


class Writer:
    """Writes raw files into the folder `out`, and remembers what it has written.

    `files` has the number of rows, including broken ones, by path relative to `out`. `expected_rows` is about how many
    rows there will be, for `on_progress`.
    """

    def __init__(self, out: Path, expected_rows: int, on_progress: OnProgress) -> None:
        self.out = out
        self.files: dict[str, int] = {}
        self.quirks: list[Quirk] = []
        self.written_bytes = 0
        self._expected_rows, self._on_progress = expected_rows, on_progress
        self._written_rows = 0
        self._created: list[Path] = []  # in the order of creation

    def remove_all(self) -> None:
        """Remove every file and folder that was created, as far as that is possible."""
        for path in reversed(self._created):
            with suppress(OSError):  # must not hide the error that made this necessary
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()

    def count_rows(self, name: str, rows: int) -> None:
        """Count rows that were written to the file `name`, and report the progress."""
        self.files[name] = self.files.get(name, 0) + rows
        self._written_rows += rows
        if rows != 1 or self._written_rows % _ROWS_PER_REPORT == 0:
            total = max(self._written_rows, self._expected_rows)
            self._on_progress(name.partition("/")[0], self._written_rows, total)

    @contextmanager
    def text_file(
        self, name: str, columns: Iterable[str], *, byte_order_mark: bool = False, line_end: str = "\n"
    ) -> Iterator["TextFile"]:
        """The file to write rows to: CSV, gzipped CSV (.gz) or JSON lines (.jsonl), depending on its name."""
        path = self._create(name)
        self.count_rows(name, 0)
        with path.open("wb") as raw:
            if name.endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as compressed:
                    file = TextFile(self, name, cast("BinaryIO", compressed), list(columns), line_end)
                    file.write_head(byte_order_mark=byte_order_mark)
                    yield file
            else:
                file = TextFile(self, name, raw, list(columns), line_end)
                file.write_head(byte_order_mark=byte_order_mark)
                yield file
        self.written_bytes += path.stat().st_size

    def parquet_file(self, name: str, table: pa.Table) -> None:
        """Write `table` as the Parquet file `name`."""
        path = self._create(name)
        pq.write_table(table, path, row_group_size=CHUNK_ROWS)
        self.written_bytes += path.stat().st_size
        self.count_rows(name, len(table))

    def _create(self, name: str) -> Path:
        path = self.out / name
        self._create_folder(path.parent)
        self._created.append(path)
        return path

    def _create_folder(self, path: Path) -> None:
        if not path.exists():
            self._create_folder(path.parent)
            path.mkdir()
            self._created.append(path)


class TextFile:
    """One CSV or JSON lines file that is being written."""

    def __init__(self, writer: Writer, name: str, stream: BinaryIO, columns: list[str], line_end: str) -> None:
        self._writer, self._name, self._stream, self._columns, self._line_end = writer, name, stream, columns, line_end
        self._is_json = name.endswith(".jsonl")
        self._next_line = 1
        self._notes_by_kind: dict[str, int] = {}

    def write_head(self, *, byte_order_mark: bool) -> None:
        """Write what comes before the rows: the byte order mark, and the header of a CSV file."""
        if byte_order_mark:
            self._stream.write(_BYTE_ORDER_MARK)
        if not self._is_json:
            self._write((",".join(self._columns) + self._line_end).encode())

    def block(self, table: Table) -> None:
        """Write many rows at once."""
        *first, last = (_csv_column(table[name]) for name in self._columns)
        lines = pc.binary_join_element_wise(*first, join(last, self._line_end), ",")
        # Arrow stores the strings of an array one after the other: together they are the text of the file.
        _, ends, text = lines.buffers()
        self._stream.write(memoryview(text)[: np.frombuffer(ends, np.int32)[len(lines)]])
        self._writer.count_rows(self._name, len(lines))

    def rows(
        self, rows: Iterable[Row], kind: str = "", detail: str = "", broken: str | None = None, **changes: object
    ) -> None:
        """Write rows with `changes` in some of their values, and note each as a quirk if it has a `kind`."""
        for row in rows:
            changed = row | changes
            self.row(changed, kind, detail.format_map(changed), broken)

    def row(self, row: Row, kind: str = "", detail: str = "", broken: str | None = None) -> None:
        """Write one row, and note it as a quirk if it has a `kind`."""
        values = [row.get(name) for name in self._columns]
        if self._is_json:
            present = (None if value in ("NULL", "") else value for value in values)
            text = json.dumps(dict(zip(self._columns, present, strict=True)), ensure_ascii=False)
        else:
            text = csv_line(values)
        self.raw(text, kind, detail, broken)

    def raw(self, text: str | bytes, kind: str = "", detail: str = "", broken: str | None = None) -> None:
        """Write a line as it is, and note it as a quirk if it has a `kind`."""
        self._notes_by_kind[kind] = self._notes_by_kind.get(kind, 0) + 1
        if kind and (broken or self._notes_by_kind[kind] <= _MAX_NOTES_PER_KIND):
            self._writer.quirks.append(Quirk(self._name, self._next_line, kind, detail, broken))
        self._write((text.encode() if isinstance(text, str) else text) + self._line_end.encode())
        self._writer.count_rows(self._name, 1)

    def note(self, kind: str, detail: str) -> None:
        """Note a quirk of the file as a whole."""
        self._writer.quirks.append(Quirk(self._name, None, kind, detail, None))

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._next_line += data.count(b"\n")


def csv_line(values: Iterable[object]) -> str:
    """The values as one record of a CSV file, without its line end."""
    return ",".join(map(_csv_field, values))


def _csv_field(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in '",\r\n') else text


def _csv_column(column: pa.Array) -> pa.Array:
    """The same as `_csv_field`, for a whole column."""
    if not pa.types.is_string(column.type):
        return column.cast(pa.string()).fill_null("")
    needs_quotes = pc.match_substring_regex(column, '[",\r\n]')
    if not pc.any(needs_quotes).as_py():
        return column
    return pc.if_else(needs_quotes, join('"', pc.replace_substring(column, '"', '""'), '"'), column)


def chunks(first: int, last: int, rows_per_number: int = 1) -> Iterator[Integers]:
    """The numbers from `first` to `last`, in arrays that stand for about CHUNK_ROWS rows each."""
    size = max(1, CHUNK_ROWS // rows_per_number)
    for start in range(first, last + 1, size):
        yield np.arange(start, min(start + size, last + 1), dtype=np.int64)
