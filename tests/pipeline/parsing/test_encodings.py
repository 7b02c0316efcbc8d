"""Other encodings than UTF-8: the same rows, lines and broken records as in UTF-8."""

import pytest
from support.raw_files import THINGS, read_csv, read_json, refusal

from lakehouse_utils.pipeline.sources import Source

TEXT = 'id,größe\r\n1,"Äh, so\r\n€ 5"\r\n2\r\n3,Ñandú\r\n'
ENCODINGS = ["windows-1252", "iso-8859-15", "utf-16-le", "utf-16-be"]


def source(encoding: str) -> Source:
    return THINGS.model_copy(update={"encoding": encoding})


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-16"])
def test_encoding_of_csv(encoding, block, tiny_blocks):
    """A file in another encoding has the rows, lines and raw texts that it has in UTF-8, wherever blocks end."""
    tiny_blocks(block)
    content, expected = read_csv(TEXT.encode(encoding), source(encoding)), read_csv(TEXT)
    assert content.columns == ["id", "größe"]
    assert content.rows == expected.rows == [(2, ("1", "Äh, so\r\n€ 5")), (5, ("3", "Ñandú"))]
    assert content.broken == expected.broken


@pytest.mark.parametrize("encoding", ["latin-1", *ENCODINGS, "utf-16"])
def test_encoding_of_json_lines(encoding):
    """JSON lines in another encoding are read as in UTF-8."""
    content = read_json('{"id":1,"größe":"é\\n"}\nü\n{"id":2}\n'.encode(encoding), source(encoding))
    assert content.columns == ["id", "größe"]
    assert content.rows == [(1, ("1", "é\n")), (3, ("2", None))]
    assert content.broken[0][:2] == (2, "ü")


@pytest.mark.parametrize("described", ["utf-8", "latin-1", "utf-16", "utf-16-le"])
def test_encoding_by_byte_order_mark(described):
    """A byte order mark decides how a file is read, whatever its description says."""
    for encoding in ("utf-8-sig", "utf-16"):
        assert read_csv(TEXT.encode(encoding), source(described)).rows == read_csv(TEXT).rows


def test_encoding_utf16_without_byte_order_mark():
    """A file described as UTF-16 that has no byte order mark is refused; an empty file has no rows."""
    refused = refusal(read_csv, TEXT.encode("utf-16-le"), source("utf-16"))
    assert refused.startswith("the file does not start with the byte order mark of UTF-16; set encoding in")
    assert read_csv(b"", source("utf-16")).rows == []


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_encoding_invalid_bytes_break_only_their_row(block, tiny_blocks):
    """Invalid bytes break their own row; the raw text shows them as they are in the file."""
    tiny_blocks(block)
    content = read_csv(b"id,name\n1,M\xfcller\n2,\x81\x8d\n3,\xc3\xa9\n", source("windows-1252"))
    assert content.values == [("1", "Müller"), ("3", "Ã©")]
    assert content.broken == [(3, "2,\\x81\\x8d", "invalid windows-1252: byte 0x81")]
    for encoding, lone, shown in (("utf-16-be", b"\xd8\xa9", "\\xd8\\xa9"), ("utf-16-le", b"a\xdc", "\\x61\\xdc")):
        lines = ["id,name\n1,é\n2,b", "c\n3,\u00ff41\n"]
        content = read_csv(lone.join(line.encode(encoding) for line in lines), source(encoding))
        assert content.values == [("1", "é"), ("3", "ÿ41")]
        assert content.broken == [(3, f"2,b{shown}c", f"invalid {encoding}: byte 0x{shown[2:4]}")]
    cut_off = read_csv("id,name\n1,é\n2,".encode("utf-16-le") + b"x", source("utf-16-le"))
    assert cut_off.values == [("1", "é")]
    assert cut_off.broken == [(3, "2,\\x78", "invalid utf-16-le: byte 0x78")]


def test_encoding_header_with_invalid_bytes():
    """A header with bytes that the encoding does not have is refused, and the encoding is named."""
    assert refusal(read_csv, b"id,\x81\n", source("windows-1252")) == (
        "the header is not valid windows-1252; change encoding in the description of the table"
    )


def test_encoding_by_file():
    """Settings that the description gives for some files apply to these files only."""
    formats = [{"files": "b/*.csv", "encoding": "latin-1", "delimiter": ";"}]
    by_file = Source(name="things", key=["id"], columns=THINGS.columns, formats=formats)
    assert read_csv("id;name\n1;é\n".encode("latin-1"), by_file).values == [("1", "é")]
    assert read_json('{"id":1,"name":"é"}', by_file).values == [("1", "é")]
