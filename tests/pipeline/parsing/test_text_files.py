"""What CSV and JSON lines share: line ends, and lines that are too long."""

import pytest
from support.raw_files import read_csv, read_json

from lakehouse_utils.pipeline.parsing import limits


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
def test_text_file_with_carriage_returns(block, tiny_blocks):
    """Lines may end in a carriage return alone, and line ends inside fields stay as they are."""
    tiny_blocks(max(block, 20))  # the header is in what is read first
    text = '\ufeffid,name,note\r1,a,b\r\r2,"two\rlines, and\none",c\r3,x\r4,d,e'
    content = read_csv(text)
    assert content.rows == [(2, ("1", "a", "b")), (4, ("2", "two\rlines, and\none", "c")), (7, ("4", "d", "e"))]
    assert content.broken == [(6, "3,x", "expected 3 fields, found 2")]
    assert read_json('{"id":1}\r{"id":2}\rx').lines == [1, 2]


@pytest.mark.parametrize("block", [11, 12, 13, 14, 15, 1 << 20])
def test_text_file_with_two_carriage_returns(block, tiny_blocks):
    r"""Lines may end in `\r\r\n`, which counts as one line end, also inside fields."""
    tiny_blocks(block)  # the first line end is in what is read first, at least its first character
    text = '\ufeffid,name\r\r\n1,Turku\r\r\n2,\r\r\n\r\r\n"3","Po\r\r\nri"\r\r\n4\r\r\n5,a\rb\n6,c\r\r'
    content = read_csv(text)
    assert content.rows == [
        (2, ("1", "Turku")),
        (3, ("2", "")),
        (5, ("3", "Po\r\nri")),
        (8, ("5", "a\rb")),
        (9, ("6", "c\r")),
    ]
    assert content.broken == [(7, "4", "expected 2 fields, found 1")]
    assert read_json('{"id":1}\r\r\nx\r\r\n{"id":2}').broken[0][:2] == (2, "x")


@pytest.mark.parametrize("block", [1, 4, 5, 1 << 20])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_text_file_with_byte_order_marks(count, block, tiny_blocks):
    """Several byte order marks at the start are skipped, as one is."""
    tiny_blocks(block)
    assert read_csv("\ufeff" * count + "id,name\n1,Turku\n").rows == [(2, ("1", "Turku"))]
    assert read_json("\ufeff" * count + '{"id":1}').rows == [(1, ("1",))]
    assert read_csv(("\ufeff" * count + "id,name\n1,Turku\n").encode("utf-16-be")).rows == [(2, ("1", "Turku"))]


@pytest.mark.parametrize("longest", [40, 100])
def test_text_file_line_that_is_too_long(longest, monkeypatch):
    """A line over the limit becomes a broken record, and the lines after it are read."""
    monkeypatch.setattr(limits, "BLOCK_BYTES", 8)
    monkeypatch.setattr(limits, "HEAD_BYTES", 16)
    monkeypatch.setattr(limits, "MAX_RAW_BYTES", 16)
    monkeypatch.setattr(limits, "MAX_RECORD_BYTES", longest)
    long = "2," + "é" * 100 + ",b"
    content = read_csv(f"id,name,note\n1,a,b\n{long}\n3,c,d\n{long}")
    assert content.rows == [(2, ("1", "a", "b")), (4, ("3", "c", "d"))]
    assert list(content.reasons) == [3, 5]
    assert f"the line has {len(long.encode())} bytes, more than the limit of {longest}" in content.reasons[3]
    assert content.broken[0][1].startswith("2,éé")
    json_lines = '{"id":1}\n{"id":"' + "x" * 300 + '"}\n{"id":3}\n'
    assert read_json(json_lines).lines == [1, 3]
