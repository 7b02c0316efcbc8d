"""Parquet: every value as text, and a damaged file is refused as a whole."""

import io
import json
import random
import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.raw_files import parquet, read_parquet, refusal

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.parsing import limits

DAMAGED = [b"", b"PAR1", b"PAR1PAR1", b"id,name\n1,a\n"]


@pytest.mark.parametrize("data", DAMAGED)
def test_parquet_other_format(data):
    """A file that is not Parquet is refused."""
    assert "invalid Parquet file" in refusal(read_parquet, data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_parquet_truncated(share):
    """A truncated file is refused, wherever it ends."""
    data = parquet(pa.table({"id": range(10_000)}))
    assert "invalid Parquet file" in refusal(read_parquet, data[: int(len(data) * share)])


def test_parquet_damaged_page():
    """A page that does not match its checksum makes the file unreadable."""
    table = pa.table({"id": [str(uuid.uuid5(uuid.NAMESPACE_DNS, str(i))) for i in range(50_000)]})
    data = bytearray(parquet(table, row_group_size=10_000, write_page_checksum=True, use_dictionary=False))
    data[len(data) // 2] ^= 0xFF
    assert "damaged from row" in refusal(read_parquet, bytes(data))


def test_parquet_damaged_anywhere():
    """Damage anywhere either makes the file unreadable or leaves all its rows."""
    data = parquet(
        pa.table({"id": range(500), "name": [f"n{i % 7}" for i in range(500)], "note": [[i] for i in range(500)]}),
        write_page_checksum=True,
        row_group_size=100,
    )
    chance = random.Random(1)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            content = read_parquet(bytes(damaged))
        except UnreadableFileError:
            continue
        assert len(content.rows) + len(content.broken) == 500


VALUES = {
    "int8": (pa.array([-1, None], pa.int8()), ["-1", None]),
    "uint64": (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
    "half": (pa.array([1.5]).cast(pa.float32()).cast(pa.float16()), ["1.5"]),
    "float": (pa.array([0.1, float("nan"), float("inf")], pa.float32()), ["0.1", "nan", "inf"]),
    "double": (pa.array([0.1, 1.0, -0.0, 1e300]), ["0.1", "1", "-0", "1e+300"]),
    "bool": (pa.array([True, None]), ["true", None]),
    "decimal": (pa.array([Decimal("1.10")], pa.decimal128(10, 2)), ["1.10"]),
    "date": (pa.array([date(2026, 1, 31)]), ["2026-01-31"]),
    "seconds": (pa.array([0], pa.timestamp("s")), ["1970-01-01 00:00:00.000"]),
    "nanoseconds": (pa.array([1], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001"]),
    "utc": (pa.array([0], pa.timestamp("us", "UTC")), ["1970-01-01 00:00:00.000000Z"]),
    "zone": (pa.array([0], pa.timestamp("ms", "America/New_York")), ["1970-01-01 00:00:00.000Z"]),
    "no such zone": (pa.array([0], pa.timestamp("ms", "Mars/Base")), ["1970-01-01 00:00:00.000Z"]),
    "time": (pa.array([1], pa.time64("us")), ["00:00:00.000001"]),
    "duration": (pa.array([timedelta(seconds=5)], pa.duration("s")), ["5"]),
    "text": (pa.array(["", "a\0\n", None]), ["", "a\0\n", None]),
    "large": (pa.array(["é"], pa.large_string()), ["é"]),
    "dictionary": (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    "binary": (pa.array([b"abc", b"\xff\x00", "é".encode(), None]), ["abc", "ff00", "é", None]),
    "fixed": (pa.array([b"ab"], pa.binary(2)), ["ab"]),
    "null": (pa.nulls(2), [None, None]),
    "list": (pa.array([[1, None], None, []]), ["[1, null]", None, "[]"]),
    "struct": (
        pa.array([{"at": datetime.fromisoformat("2026-01-01"), "b": Decimal("1.10"), "c": b"\xff", "d": "é"}]),
        ['{"at": "2026-01-01 00:00:00", "b": "1.10", "c": "ff", "d": "é"}'],
    ),
    "map": (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), ['[["a", 1]]']),
    "nanoseconds in a list": (
        pa.array([[1], [None], None], pa.list_(pa.timestamp("ns"))),
        ['["1970-01-01 00:00:00.000000001"]', "[null]", None],
    ),
    "nanoseconds in a struct": (
        pa.array(
            [{"at": [1_000], "utc": [("a", 1)], "n": 1.5, "time": 1, "for": 1}],
            pa.struct(
                {
                    "at": pa.large_list(pa.timestamp("ns")),
                    "utc": pa.map_(pa.string(), pa.timestamp("ns", "UTC")),
                    "n": pa.float64(),
                    "time": pa.time64("ns"),
                    "for": pa.duration("ns"),
                }
            ),
        ),
        [
            (
                '{"at": ["1970-01-01 00:00:00.000001000"], "utc": [["a", "1970-01-01 00:00:00.000000001Z"]],'
                ' "n": 1.5, "time": "00:00:00.000000001", "for": "1"}'
            )
        ],
    ),
    "uuid": (
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"\x12" * 16], pa.binary(16))),
        ["12121212-1212-1212-1212-121212121212"],
    ),
}


@pytest.mark.parametrize("kind", VALUES)
def test_parquet_value_as_text(kind):
    """A value of every type becomes the expected text."""
    values, texts = VALUES[kind]
    content = read_parquet(pa.table({"id": values}))
    assert content.rows == [(i, (text,)) for i, text in enumerate(texts, start=1)]
    assert content.broken == []


def test_parquet_int96_far_dates():
    """Timestamps of Spark, Hive and Impala are right in all years that silver can hold, also as list items."""
    texts = [
        "0001-01-01",
        "1492-10-12 06:00:00",
        "1677-09-20",
        "2026-05-04 08:15:00.123456",
        "2262-04-12",
        "9999-12-31",
    ]
    dates = pa.array([datetime.fromisoformat(text) for text in texts], pa.timestamp("us"))
    table = pa.table({"id": range(len(texts)), "name": dates, "note": pa.array([[date] for date in dates.to_pylist()])})
    content = read_parquet(table, use_deprecated_int96_timestamps=True)
    expected = [datetime.fromisoformat(text).isoformat(" ", "microseconds") for text in texts]
    assert [name for _, name, _ in content.values] == expected
    assert [note for _, _, note in content.values] == [f'["{text.removesuffix(".000000")}"]' for text in expected]


def test_parquet_named_time_zones():
    """A timestamp with a time zone is written in UTC: offsets with seconds and the ends of time stay right."""
    texts = ["0001-01-01 00:00:00", "1900-01-01 00:00:00", "2026-07-01 12:00:00", "9999-12-31 23:59:59"]
    in_utc = pa.array([datetime.fromisoformat(f"{text}+00:00") for text in texts], pa.timestamp("s", "UTC"))
    for zone in ("Europe/Paris", "America/Sao_Paulo", "Asia/Tokyo", "America/New_York", "Africa/Monrovia", "+05:30"):
        values = in_utc.cast(pa.timestamp("us", zone))
        content = read_parquet(pa.table({"id": values, "name": values.dictionary_encode()}))
        assert content.values == [(f"{text}.000000Z",) * 2 for text in texts], zone


@pytest.mark.parametrize("value_type", [pa.string(), pa.large_string(), pa.binary(), pa.list_(pa.string())])
def test_parquet_giant_value(value_type, monkeypatch):
    """A value that is longer than a line may be breaks its own row only, and is cut off in quarantine."""
    monkeypatch.setattr(limits, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(limits, "MAX_RAW_BYTES", 9)
    texts = ["a", "é" * 600, None, "b" * 900, "c" * 2000]
    is_list = pa.types.is_list(value_type)
    names = pa.array([[text] for text in texts] if is_list else texts, value_type)
    content = read_parquet(pa.table({"id": range(5), "name": names}))
    assert [row[0] for row in content.values] == ["0", "2", "3"]
    assert content.lines == [1, 3, 4]
    size, shown = (1204, '["ééé') if is_list else (1200, "éééé")
    line, raw, reason = content.broken[0]
    assert (line, json.loads(raw)) == (2, {"id": "1", "name": shown})
    assert reason == f"name: the value has {size:,} bytes, more than the limit of 1,000; raw holds the first 9"
    assert content.broken[1].line == 5


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_dictionary": False, "compression": "none"},
        {"data_page_version": "2.0", "compression": "zstd", "write_page_checksum": True},
        {"write_page_index": True, "data_page_size": 10},
    ],
)
def test_parquet_page_that_is_too_large(how, monkeypatch):
    """Row groups with a page that would take too much memory are quarantined without being read; the others are not."""
    monkeypatch.setattr(limits, "MAX_PAGE_BYTES", 50_000)
    monkeypatch.setattr(limits, "MAX_BROKEN_RECORDS", 3)
    names = [f"{number} " * 1000 for number in range(30)]
    names[7] = names[17] = names[18] = "x" * 60_000
    notes = [[name[:30]] for name in names]
    content = read_parquet(pa.table({"id": range(30), "name": names, "note": notes}), row_group_size=5, **how)
    assert content.lines == [*range(1, 6), *range(11, 16), *range(21, 31)]
    assert [name for _, name, _ in content.values] == [names[line - 1] for line in content.lines]
    assert [(line, raw) for line, raw, _ in content.broken] == [(line, "") for line in (6, 7, 8, 9, 16, 17, 18, 19)]
    assert content.broken[0].reason == (
        "name: a page of this column is larger than the limit of 50,000 bytes, so the rows of its row group are"
        " not read; write smaller values or row groups"
    )
    assert sum(block.unlisted for block in content.blocks) == 2


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_parquet_many_pages(version, dictionary, monkeypatch):
    """A row group that is large because it has many pages is read."""
    monkeypatch.setattr(limits, "MAX_PAGE_BYTES", 3000)
    table = pa.table(
        {"id": range(2000), "name": [f"name {number}" for number in range(2000)], "note": [True, None] * 1000}
    )
    data = parquet(
        table,
        data_page_size=500,
        write_batch_size=10,
        dictionary_pagesize_limit=1000,
        use_dictionary=dictionary,
        data_page_version=version,
    )
    assert pq.read_metadata(io.BytesIO(data)).row_group(0).column(1).total_uncompressed_size > 10_000
    assert read_parquet(data).lines == list(range(1, 2001))


def test_parquet_value_without_text_breaks_only_its_row():
    """A value that cannot become text breaks its own row only."""
    offsets, letters = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffc")
    text = pa.Array.from_buffers(pa.string(), 3, [None, offsets, letters])
    far = pa.array([[2**62], [0], None], pa.list_(pa.timestamp("us")))
    content = read_parquet(pa.table({"id": [1, 2, 3], "name": text, "note": far}))
    assert content.values == [("3", "c", None)]
    assert [line for line, _, _ in content.broken] == [2, 1]
    assert content.reasons[2] == "name: invalid UTF-8: byte 0xff at position 1"
    assert json.loads(content.broken[0][1]) == {"id": "2", "name": "\\xff", "note": '["1970-01-01 00:00:00"]'}
    assert content.reasons[1].startswith("note: the value cannot be converted to text")


def test_parquet_columns():
    """Empty files, unknown columns, repeated names and names that Delta does not accept are handled as in CSV."""
    assert read_parquet(pa.table({"id": pa.array([], pa.int64())})).rows == []
    assert "none of its columns" in refusal(read_parquet, pa.table({"other": [1]}))
    assert "none of its columns" in refusal(read_parquet, pa.table({"x": [1]}).select([]))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "ID"])
    assert "the column 'id' appears twice in the file" in refusal(read_parquet, twice)
    assert read_parquet(pa.table({"ID": [1], "_a": [2], " b c": [3], "": [4]})).columns == [
        "id",
        "column_a",
        "b_c",
        "column_4",
    ]


def test_parquet_batches(monkeypatch):
    """A file is read in batches of about the size of a block."""
    monkeypatch.setattr(limits, "BLOCK_BYTES", 10_000)
    table = pa.table({"id": range(100), "name": ["x" * 999] * 100})
    content = read_parquet(table, use_dictionary=False, row_group_size=50)
    assert content.lines == list(range(1, 101))
    assert all(block.size_bytes < 12_000 for block in content.blocks)
