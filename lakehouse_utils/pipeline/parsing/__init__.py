"""Raw files as blocks of rows: CSV, JSON lines, Parquet.

Every value is kept as the text in the file, and every row has its line number. A broken record does not affect other
rows. Columns that are not described are kept.

`csv.py`, `json_lines.py` and `parquet.py` read one format each; `text_files.py` is what the first two share, and
`encodings.py` makes UTF-8 of other encodings.
`column_names.py` makes names that Delta accepts, `blocks.py` defines the result, and `limits.py` bounds memory use.
"""

from collections.abc import Iterator
from typing import BinaryIO

from lakehouse_utils.pipeline.landing import LandingFile
from lakehouse_utils.pipeline.parsing.blocks import Block, BrokenRecord, Part
from lakehouse_utils.pipeline.parsing.csv import read_csv
from lakehouse_utils.pipeline.parsing.json_lines import read_json_lines
from lakehouse_utils.pipeline.parsing.parquet import read_parquet
from lakehouse_utils.pipeline.sources import Source

__all__ = ["Block", "BrokenRecord", "Part", "read"]

_READERS = {"csv": read_csv, "jsonl": read_json_lines, "parquet": read_parquet}


def read(stream: BinaryIO, file: LandingFile, source: Source) -> Iterator[Part]:
    """The parts of a file, each a function that parses its part into blocks; parts may run at the same time.

    Raises UnreadableFileError, here or in a part, if the file as a whole cannot be read.
    """
    return _READERS[file.format](stream, source, source.format_of(file.path))
