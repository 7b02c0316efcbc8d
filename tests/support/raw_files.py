"""Raw files for the tests of parsing: what is in a file, with the blocks of all its parts together."""

import io

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.landing import LandingFile
from lakehouse_utils.pipeline.lineage import SOURCE_LINE
from lakehouse_utils.pipeline.parsing import read
from lakehouse_utils.pipeline.sources import Source

THINGS = Source(
    name="things",
    key=["id"],
    columns={"id": {"type": "integer"}, "name": {"type": "text"}, "note": {"type": "text"}},
)

NAMES = ["id", "name", "note"]

WORDS = [
    "",
    "a",
    "bc",
    " ",
    "é",
    "🚲",
    '"',
    '""',
    ",",
    "\n",
    "\r\n",
    "\r",
    "\u2028",
    "\0",
    "\ufeff",
    "NULL",
    "x,y",
    "#",
    "'",
]


class Content:
    """All blocks of a file together."""

    def __init__(self, data: bytes, kind: str, source: Source, gzipped: bool = False) -> None:
        stream = io.BytesIO(data)
        file = LandingFile("b", source.name, f"b/{source.name}.{kind}", kind, gzipped, len(data))
        self.blocks = [block for part in read(stream, file, source) for block in part()]
        frames = [pl.from_arrow(block.rows) for block in self.blocks if len(block.rows)]
        frame = pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema={SOURCE_LINE: pl.Int64})
        assert set(frame.drop(SOURCE_LINE).dtypes) <= {pl.String}
        self.lines = frame[SOURCE_LINE].to_list()
        self.columns = [name for name in frame.columns if name != SOURCE_LINE]
        self.values = frame.drop(SOURCE_LINE).rows()
        self.rows = list(zip(self.lines, self.values, strict=True))
        self.broken = [record for block in self.blocks for record in block.broken]
        self.reasons = {line: reason for line, _, reason in self.broken}
        assert sum(block.read for block in self.blocks) == len(self.rows) + len(self.broken) + sum(
            block.unlisted for block in self.blocks
        )


def read_csv(data: bytes | str, source: Source = THINGS) -> Content:
    return Content(data.encode() if isinstance(data, str) else data, "csv", source)


def read_json(data: bytes | str, source: Source = THINGS) -> Content:
    return Content(data.encode() if isinstance(data, str) else data, "jsonl", source)


def read_parquet(table: pa.Table | bytes, **how) -> Content:
    if isinstance(table, pa.Table):
        table = parquet(table, **how)
    return Content(table, "parquet", THINGS)


def parquet(table: pa.Table, **how) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **how)
    return buffer.getvalue()


def refusal(read, *args, **kwargs) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read(*args, **kwargs)
    return str(caught.value)
