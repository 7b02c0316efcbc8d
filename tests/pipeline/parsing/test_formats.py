"""What stands in raw files: every record comes out once, as it is written, with the line on which it begins."""

import csv
import gzip
import io
import json
import random
import re
import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse_utils.pipeline.landing import LandingFile, UnreadableFileError
from lakehouse_utils.pipeline.parsing import formats
from lakehouse_utils.pipeline.parsing.formats import LINE
from lakehouse_utils.pipeline.sources import Source

THINGS = Source(
    name="things",
    key=["id"],
    columns={"id": {"type": "integer"}, "name": {"type": "text"}, "note": {"type": "text"}},
)
NAMES = ["id", "name", "note"]


class Content:
    """All blocks of a file together."""

    def __init__(self, data: bytes, kind: str, source: Source, gzipped: bool = False) -> None:
        stream = io.BytesIO(data)
        file = LandingFile("b", source.name, f"b/{source.name}.{kind}", kind, gzipped, len(data))
        self.blocks = [block for part in formats.read(stream, file, source) for block in part()]
        frames = [pl.from_arrow(block.rows) for block in self.blocks if len(block.rows)]
        frame = pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema={LINE: pl.Int64})
        assert set(frame.drop(LINE).dtypes) <= {pl.String}
        self.lines = frame[LINE].to_list()
        self.columns = [name for name in frame.columns if name != LINE]
        self.values = frame.drop(LINE).rows()
        self.rows = list(zip(self.lines, self.values, strict=True))
        self.broken = [found for block in self.blocks for found in block.broken]
        self.reasons = {line: reason for line, _, reason in self.broken}
        assert sum(block.read for block in self.blocks) == len(self.rows) + len(self.broken)


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


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Makes the sizes so small that every boundary is somewhere in a short file."""

    def shrink(block: int) -> None:
        monkeypatch.setattr(formats, "BLOCK", block)
        monkeypatch.setattr(formats, "MIB", max(block, 4))  # a byte order mark is read whole
        monkeypatch.setattr(formats, "MOST_CELLS", block)
        monkeypatch.setattr(formats, "MOST_OBJECTS", block)

    return shrink


# -- CSV against readers that are too simple to be wrong

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


def written_csv(chance: random.Random) -> tuple[str, list[tuple[int, tuple[str, ...]]]]:
    """A well-formed CSV file, and its rows with the lines on which they begin."""
    ends = chance.choice([["\n"], ["\r\n"], ["\n", "\r\n"]])
    quoting = chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    blanks = chance.choice([0, 0, 0.2])
    text, rows = "", []
    for number in range(chance.randrange(12) + 1):
        fields = NAMES if number == 0 else ["".join(chance.choices(WORDS, k=chance.randrange(4))) for _ in NAMES]
        while chance.random() < blanks:
            text += chance.choice(ends)
        if number:
            rows.append((text.count("\n") + 1, tuple(fields)))
        out = io.StringIO()
        csv.writer(out, quoting=quoting).writerow(fields)
        text += out.getvalue().removesuffix("\r\n") + chance.choice(ends)
    if chance.random() < 0.3:
        text = text.removesuffix("\n").removesuffix("\r")
    return text, rows


@pytest.mark.parametrize("seed", range(80))
def test_well_formed_csv_comes_out_as_it_is_written(seed, tiny_blocks):
    chance = random.Random(seed)
    text, rows = written_csv(chance)
    by_python = [tuple(row) for row in csv.reader(io.StringIO(text, newline="")) if row]
    assert [values for _, values in rows] == by_python[1:]
    data = chance.choice(["", "\ufeff"]) + text
    for block in {1, 2, 3, 5, 7, 16, 61, 1 << 20}:
        tiny_blocks(block)
        content = read_csv(data)
        assert content.rows == rows, block
        assert content.broken == []


def by_character(text: str, width: int) -> tuple[list, list]:
    """(line, fields) of good records, and the lines of broken ones: the grammar, one character at a time."""
    good, broken = [], []
    position, line = 0, 1
    while position < len(text):
        begin, fields, wrong = position, [], False
        while not wrong:
            field, ended = "", ""
            if text[position] == '"':
                position += 1
                while position < len(text):
                    if text[position] != '"':
                        field += text[position]
                    elif text[position + 1 : position + 2] == '"':
                        field += '"'
                        position += 1
                    else:
                        break
                    position += 1
                behind = re.match(r",|\r?\n", text[position + 1 :])
                wrong = behind is None
                if behind:
                    ended = behind[0]
                    position += 1 + len(ended)
            else:
                ended = re.search(r",|\n", text[position:])[0]
                end = text.index(ended, position)
                field = text[position:end]
                position = end + 1
                if ended == "\n" and field.endswith("\r"):
                    field = field[:-1]
            fields.append(field)
            if ended.endswith("\n"):
                break
        if wrong:
            position = text.index("\n", begin) + 1
        if text[begin:position] not in ("\n", "\r\n"):
            if wrong or len(fields) != width:
                broken.append(line)
            else:
                good.append((line, tuple(fields)))
        line += text.count("\n", begin, position)
    return good, broken


@pytest.mark.parametrize("seed", range(80))
def test_broken_csv_is_split_the_same_wherever_blocks_end(seed, tiny_blocks):
    chance = random.Random(seed)
    letters = chance.choice(['a,"\n', 'aé,,"\n\r', "a,,,\n\n\r", 'a,"",""\n'])
    for _ in range(6):
        text = "".join(chance.choices(letters, k=chance.randrange(60))) + "\n"
        good, broken = by_character(text, 3)
        shift = 1  # the header
        for block in {1, 2, 3, 7, 1 << 20}:
            tiny_blocks(block)
            content = read_csv("id,name,note\n" + text)
            assert content.rows == [(line + shift, values) for line, values in good], (text, block)
            assert [line for line, _, _ in content.broken] == [line + shift for line in broken], (text, block)
            physical = text.split("\n")
            for line, raw, _ in content.broken:
                assert raw.split("\n")[0].rstrip("\r") == physical[line - shift - 1].rstrip("\r")


@pytest.mark.parametrize("seed", range(40))
def test_the_fast_and_the_careful_reader_agree(seed):
    chance = random.Random(seed)
    text, rows = written_csv(chance)
    body = text[text.index("\n", text.index("note")) + 1 :] if rows else "1,2,3\n"
    data = (body if body.endswith("\n") else body + "\n").encode()
    careful = list(formats._parse_csv_carefully(5, data, NAMES, ","))
    lines, _ = formats._csv_record_lines(5, data, ",")
    assert len(lines) != len(careful[0].rows) or list(lines) == careful[0].rows[LINE].to_pylist()
    (either,) = formats._parse_csv(5, data, NAMES, ",")
    assert either.rows.equals(careful[0].rows)
    assert (either.broken, either.read, either.size) == (careful[0].broken, careful[0].read, careful[0].size)


def test_clean_blocks_go_the_fast_way(monkeypatch):
    monkeypatch.setattr(formats, "_parse_csv_carefully", lambda *args: pytest.fail("the careful reader was called"))
    content = read_csv('id,name,note\r\n1,"a ""b"", c",x\r\n2,"two\r\nlines",\r\n3,é,"",\r\n'.replace('"",\r', '""\r'))
    assert content.rows == [(2, ("1", 'a "b", c', "x")), (3, ("2", "two\r\nlines", "")), (5, ("3", "é", ""))]


def test_blocks_of_many_short_values_are_halved(monkeypatch):
    monkeypatch.setattr(formats, "MOST_CELLS", 9)
    content = read_csv("id,name,note\n" + '1,"\n",\n2,"\nx\n",\n3,,\n' * 20)
    assert [line for line, _ in content.rows] == [2 + 6 * i + j for i in range(20) for j in (0, 2, 5)]
    assert [values[1] for _, values in content.rows] == ["\n", "\nx\n", ""] * 20
    assert max(block.rows.num_rows for block in content.blocks) <= 3


@pytest.mark.parametrize(
    "body",
    [
        "1,a\n2,b,c,d\n",  # too few and too many make up for each other
        "1,a,b,c\n2,b\n",
        '1,5" tube,"a"\n2,6" tube,b\n',
        '1,"a\n2,b"x,c\n',
        "1,a,b\n\n2,a,b\n",
        "\ufeff1,a,b\n",
    ],
)
def test_blocks_that_are_not_clean_go_the_careful_way(body, monkeypatch):
    careful = []
    parse = formats._parse_csv_carefully
    monkeypatch.setattr(formats, "_parse_csv_carefully", lambda *args: careful.append(args) or parse(*args))
    read_csv("id,name,note\n" + body)
    assert careful


# -- CSV, case by case


@pytest.mark.parametrize(
    ("body", "rows", "reasons"),
    [
        ("", [], {}),
        ("1,a,b", [(2, ("1", "a", "b"))], {}),
        ("\n\n1,a,b\n\r\n2,c,d\n\n\n", [(4, ("1", "a", "b")), (6, ("2", "c", "d"))], {}),
        ("1,a,b\r\n2,c,d\n3,e,f\r\n", [(2, ("1", "a", "b")), (3, ("2", "c", "d")), (4, ("3", "e", "f"))], {}),
        ("   \n1,a,b\n", [(3, ("1", "a", "b"))], {2: "1 fields where the header has 3"}),
        (",,\n", [(2, ("", "", ""))], {}),
        (" 1 , a ,\t\n", [(2, (" 1 ", " a ", "\t"))], {}),
        ("1,a\n2,b,c,d\n3,c,d\n", [(4, ("3", "c", "d"))], {2: "2 fields", 3: "4 fields"}),
        ("1,a\0b,\n", [(2, ("1", "a\0b", ""))], {}),
        ("1,a\u2028b\x85\x0b\x0cc,\n", [(2, ("1", "a\u2028b\x85\x0b\x0cc", ""))], {}),
        ("1,a\rb,c\r\r\n", [(2, ("1", "a\rb", "c\r"))], {}),
        ('1,5" tube,"6"" tube"\n', [(2, ("1", '5" tube', '6" tube'))], {}),
        ('1,"a"b,c\n2,b,c\n', [(3, ("2", "b", "c"))], {2: "text stands behind a closing quote"}),
        ('1,"a,c\n2,b,c\n', [(3, ("2", "b", "c"))], {2: "a quote is opened and never closed"}),
        ('1,"a,c\n2,b,c\n3,"d",e\n', [(3, ("2", "b", "c")), (4, ("3", "d", "e"))], {2: "text stands behind"}),
        ('1, "a, b"\n', [(2, ("1", ' "a', ' b"'))], {}),
        ("NULL,null,\n", [(2, ("NULL", "null", ""))], {}),
        ("1,NaN,-Infinity\n", [(2, ("1", "NaN", "-Infinity"))], {}),
        ("2026-02-30,007,1e999\n", [(2, ("2026-02-30", "007", "1e999"))], {}),
        ("\ufeff1,a,b\n", [(2, ("\ufeff1", "a", "b"))], {}),
    ],
)
def test_csv_bodies(body, rows, reasons):
    content = read_csv("id,name,note\n" + body)
    assert content.rows == rows
    assert content.reasons.keys() == reasons.keys()
    for line, reason in reasons.items():
        assert content.reasons[line].startswith(reason)


def test_a_byte_that_is_not_utf8_costs_its_row_only():
    content = read_csv(b"id,name,note\n1,M\xfcller,\n2,M\xc3\xbcller,\n3,\xed\xa0\x80,\r\n")
    assert content.rows == [(3, ("2", "Müller", ""))]
    assert content.broken == [
        (2, "1,M\\xfcller,", "not UTF-8: byte 0xfc at position 4"),
        (4, "3,\\xed\\xa0\\x80,", "not UTF-8: byte 0xed at position 3"),
    ]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("\ufeffid,name", ["id", "name"]),
        ('\ufeff"id","name"', ["id", "name"]),
        ("ID, Name ", ["id", "name"]),
        ("\r\n\n\nid,name", ["id", "name"]),
        ("id,", ["id", "column_2"]),
        (",id", ["column_1", "id"]),
        ("id,_source_line", ["id", "column_source_line"]),
        ("id,(net) price\t=;{x}", ["id", "column_net__price____x_"]),
        ('id,"two\nlines"', ["id", "two_lines"]),
        ('id,"a ""b"" c\'d.e`f%g#h"', ["id", 'a_"b"_c\'d.e`f%g#h']),
        ("id,Größe", ["id", "größe"]),
        ("id,a\0b".replace("\0", "\x01"), ["id", "a_b"]),
    ],
)
def test_csv_headers(header, columns):
    content = read_csv(header + "\n1,x\n")
    assert content.columns == columns
    assert content.rows == [(header.count("\n") + 2, ("1", "x"))]


def test_names_that_are_there_twice_are_told_apart_unless_they_are_described():
    assert read_csv("id,x,X,x\n1,2,3,4\n").columns == ["id", "x", "x_3", "x_4"]
    assert read_csv("id,x,x_4,x\n1,2,3,4\n").columns == ["id", "x", "x_4", "x_4_4"]
    described = THINGS.model_copy(update={"columns": THINGS.columns | {"x_3": THINGS.columns["note"]}})
    assert read_csv("id,x,x\n1,2,3\n", described).columns == ["id", "x", "x_3_3"]
    assert "'id' is there twice" in refusal(read_csv, "id,name,ID\n1,2,3\n")


@pytest.mark.parametrize("data", [b"", b"\n\n\r\n", b"\xef\xbb\xbf", b"id,name,note", b"id,name,note\r\n\r\n"])
def test_files_without_a_row(data):
    content = read_csv(data)
    assert (content.rows, content.broken) == ([], [])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"1,a,b\n2,c,d\n", "is the header missing"),
        (b"id;name;note\n1;a;b\n", "the delimiter not ','"),
        ("id,name\n1,a\n".encode("utf-16"), "UTF-16"),
        ("id,name\n1,a\n".encode("utf-16-le"), "UTF-16"),
        ("id,größe\n1,a\n".encode("latin-1"), "header is not UTF-8"),
        (b"PAR1....", "Parquet"),
        (b"PK\x03\x04....", "zip"),
        (gzip.compress(b"id\n1\n", mtime=0), "gzipped"),
        (b'id,"name\n1,a\n', "header can't be read: a quote is opened and never closed"),
        (b'id,"name"x\n1,a\n', "header can't be read: text stands behind"),
    ],
)
def test_files_that_are_no_csv(data, reason):
    assert reason in refusal(read_csv, data)


def test_a_header_that_never_ends_is_given_up_early(monkeypatch):
    monkeypatch.setattr(formats, "MIB", 1000)
    monkeypatch.setattr(formats, "LONGEST_HEADER", 5000)
    stream = io.BytesIO(b'id,"name\n' + b"1,a\n" * 100_000)
    file = LandingFile("b", "things", "b/things.csv", "csv", False, 0)
    assert "doesn't end within 5,000 bytes" in refusal(lambda: list(formats.read(stream, file, THINGS)))
    assert stream.tell() < 10_000


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
def test_lines_that_end_in_carriage_returns(block, tiny_blocks):
    tiny_blocks(max(block, 20))  # the header is in what is read first
    text = '\ufeffid,name,note\r1,a,b\r\r2,"two\rlines, and\none",c\r3,x\r4,d,e'
    content = read_csv(text)
    assert content.rows == [(2, ("1", "a", "b")), (4, ("2", "two\rlines, and\none", "c")), (7, ("4", "d", "e"))]
    assert content.broken == [(6, "3,x", "2 fields where the header has 3")]
    assert read_json('{"id":1}\r{"id":2}\rx').lines == [1, 2]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", " ", "¦", ".", "^", "\\"])
def test_other_delimiters(delimiter):
    source = THINGS.model_copy(update={"delimiter": delimiter})
    lines = ["id,name,note", "1,a,", ",,", '2,"x,y",z', "3"]
    content = read_csv("\n".join(lines).replace(",", delimiter), source)
    assert content.rows == [(2, ("1", "a", "")), (3, ("", "", "")), (4, ("2", f"x{delimiter}y", "z"))]
    assert content.reasons == {5: "1 fields where the header has 3"}


@pytest.mark.parametrize("text", ["id\n1\n\n  \n2\n", 'id\r\n1\r\n\r\n  \r\n"2"\r\n', 'id\n"1"\n\n"  "\n2'])
def test_one_column(text):
    assert read_csv(text).rows == [(2, ("1",)), (4, ("  ",)), (5, ("2",))]


def test_a_quote_that_is_never_closed_costs_one_line_and_little_memory(tiny_blocks, monkeypatch):
    tiny_blocks(1000)
    monkeypatch.setattr(formats, "LONGEST_QUOTED", 5000)
    lines = [f'{i},"a\nb",c' for i in range(2000)]
    lines[700] = '700,"a,b'
    for i in range(701, 1600):
        lines[i] = f"{i},ab,cdef"
    content = read_csv("id,name,note\n" + "\n".join(lines))
    assert [values[0] for values in content.values] == [str(i) for i in range(2000) if i != 700]
    assert content.broken == [(2 + 2 * 700, '700,"a,b', "a quote is opened and never closed")]
    assert max(block.rows.num_rows for block in content.blocks) < 1000
    for (line, _), i in zip(content.rows, (i for i in range(2000) if i != 700), strict=True):
        assert line == 2 + i + min(i, 700) + max(0, i - 1600)


@pytest.mark.parametrize("longest", [40, 100])
def test_a_line_that_is_too_long(longest, monkeypatch):
    monkeypatch.setattr(formats, "BLOCK", 8)
    monkeypatch.setattr(formats, "MIB", 16)
    monkeypatch.setattr(formats, "LONGEST_RAW", 16)
    monkeypatch.setattr(formats, "LONGEST_RECORD", longest)
    long = "2," + "é" * 100 + ",b"
    content = read_csv(f"id,name,note\n1,a,b\n{long}\n3,c,d\n{long}")
    assert content.rows == [(2, ("1", "a", "b")), (4, ("3", "c", "d"))]
    assert list(content.reasons) == [3, 5]
    assert f"the line has {len(long.encode())} bytes, more than {longest}" in content.reasons[3]
    assert content.broken[0][1].startswith("2,éé")
    json_lines = '{"id":1}\n{"id":"' + "x" * 300 + '"}\n{"id":3}\n'
    assert read_json(json_lines).lines == [1, 3]


def test_many_columns_are_not_cut_into_many_pieces():
    names = [f"c{i}" for i in range(4000)]  # a piece of a column takes two pages of memory, however short it is
    rows = formats._csv_table((b"1," * 3999 + b"1\n") * 500, names, ",", False)
    assert (rows.num_rows, rows["c0"].num_chunks) == (500, 1)


def test_ten_thousand_columns():
    names = ["id", *(f"extra {i}" for i in range(9_999))]
    rows = [[f"{r}.{i}" for i in range(10_000)] for r in range(3)]
    out = io.StringIO()
    csv.writer(out).writerows([names, *rows])
    content = read_csv(out.getvalue() + "1,2\n")
    assert content.values == [tuple(row) for row in rows]
    assert content.columns[:3] == ["id", "extra_0", "extra_1"]
    assert content.reasons == {5: "2 fields where the header has 10000"}
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    assert read_json("\n".join(lines)).values == [tuple(row) for row in rows]


# -- JSON lines


@pytest.mark.parametrize("seed", range(40))
def test_json_lines_come_out_as_they_are_written(seed, tiny_blocks):
    chance = random.Random(seed)
    text, rows = "", []
    for _ in range(chance.randrange(10)):
        while chance.random() < 0.2:
            text += chance.choice(["\n", "\r\n", " \t\n"])
        keys = ["id", *chance.sample(["name", "note", "a", "b"], k=chance.randrange(4))]
        row = {key: "".join(chance.choices([w for w in WORDS if w != "\0"], k=3)) for key in keys}
        rows.append((text.count("\n") + 1, row))
        text += json.dumps(row, ensure_ascii=chance.random() < 0.5) + chance.choice(["\n", "\r\n"])
    for block in {1, 2, 5, 16, 1 << 20}:
        tiny_blocks(block)
        content = read_json(text)
        found = [(line, dict(zip(content.columns, values, strict=True))) for line, values in content.rows]
        assert [(line, {k: v for k, v in row.items() if v is not None}) for line, row in found] == rows
        assert content.broken == []


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("1e999", "1e999"),
        ("-0", "-0"),
        ("-0.0", "-0.0"),
        ("1.10", "1.10"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("9" * 5000, "9" * 5000),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("true", "true"),
        ("null", None),
        ('""', ""),
        ('"null"', "null"),
        ('"\\u0000\\n\\ud83d\\udeb2"', "\0\n🚲"),
        ("[]", "[]"),
        ('[1.10, 1e999 ,{"a":"\\u00e9"}]', '[1.10, 1e999 ,{"a":"\\u00e9"}]'),
        ('{ "b" : {"c": [NaN, 12345678901234567890.10]} }', '{ "b" : {"c": [NaN, 12345678901234567890.10]} }'),
        ('{"s":"}, \\" ]"}', '{"s":"}, \\" ]"}'),
    ],
)
def test_json_values_stay_as_they_are_written(written, text):
    content = read_json(f' {{"id" : {written} , "name":{written},"note":[{written}]}} \r\n')
    assert content.values == [(text, text, f"[{written}]")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id":1', "not JSON: Expecting"),
        ('{"id":1}}', "not JSON: Extra data at position 9"),
        ('[{"id":1},{"id":2}]', "JSON, but not an object"),
        ("null", "JSON, but not an object"),
        ('{"id":1,"id":2}', "names a field twice"),
        ('{"id":1,"ID":2}', "two of its fields have the same name"),
        ('{"id":1,"note":{"a":1,"a":2}}', "names a field twice"),
        ('{"id":"\\ud800"}', "\\ud800 is half a character"),
        ('{"id":1,"\\udfff":1}', "\\udfff is half a character"),
        ("{}", "none of its fields is in the description of things"),
        ('{"order":1}', "none of its fields"),
        ('{"id":' + "[" * 100_000, "nested too deeply"),
        ('{"id":' + '{"a":' * 100_000 + "1" + "}" * 100_001, "nested too deeply"),
        ('{"id":1,}', "not JSON"),
        ("{'id':1}", "not JSON"),
        ('{"id":"a\tb"}', "not JSON: Invalid control character"),
        ("\x0c", "not JSON"),
        ('\ufeff{"id":1}', "not JSON"),
    ],
)
def test_json_lines_that_are_broken_cost_no_other(line, reason):
    content = read_json('{"id":"first"}\n' + line + '\n{"id":"last"}\n')
    assert content.values == [("first",), ("last",)]
    assert content.broken[0][:2] == (2, line)
    assert reason in content.reasons[2]


@pytest.mark.parametrize("raw", [b'{"id":"\xfc"}', b'{"id":"\xed\xa0\x80"}', b'{\0"\0i\0d\0"\0:\0' + b"1\0}\0"])
def test_json_lines_that_are_not_utf8(raw):
    content = read_json(b'{"id":1}\n' + raw + b'\n{"id":3}\n')
    assert content.lines == [1, 3]
    assert list(content.reasons) == [2]


def test_pretty_printed_json_is_quarantined_line_by_line():
    text = json.dumps([{"id": 1}, {"id": 2}], indent=2)
    content = read_json(text)
    assert not content.rows
    assert "\n".join(raw for _, raw, _ in content.broken) == text


def test_json_keys_become_columns():
    content = read_json('{"ID":1,"a.b":2," c d":3,"_id":4,"":5}\n{"id":6,"c_d":7,"(x)":8}\n')
    assert content.columns == ["id", "a.b", "c_d", "column_id", "column_0", "column_x_"]
    assert content.values == [("1", "2", "3", "4", "5", None), ("6", None, "7", None, None, "8")]


def test_columns_come_and_go_between_blocks(tiny_blocks):
    tiny_blocks(10)
    content = read_json('{"id":1,"a":1}\n{"id":2}\n{"b":3,"id":3}\n{"a":4,"id":4}\n')
    assert content.columns == ["id", "a", "b"]
    assert content.values == [("1", "1", None), ("2", None, None), ("3", None, "3"), ("4", "4", None)]


def test_more_columns_than_a_table_can_have_are_refused_before_they_fill_memory(monkeypatch):
    monkeypatch.setattr(formats, "MOST_COLUMNS", 50)
    names = ["id", *(f"c{i}" for i in range(50))]
    for refused in (
        refusal(read_csv, ",".join(names) + "\n"),
        refusal(read_json, json.dumps(dict.fromkeys(names, 1))),
        refusal(read_json, "".join(f'{{"id":1,"{name}":1}}\n' for name in names[1:])),
        refusal(read_parquet, pa.table(dict.fromkeys(names, [1]))),
    ):
        assert refused == "it has more than 50 different columns: are its keys data?"
    assert len(read_csv(",".join(names[:50]) + "\n" + "1," * 49 + "1\n").columns) == 50


def test_a_line_with_keys_of_its_own_each_does_not_fill_memory(monkeypatch):
    monkeypatch.setattr(formats, "MOST_OBJECTS", 10_000)
    content = read_json("".join(f'{{"id":{i},"k{i}":{i}}}\n' for i in range(1500)))
    assert content.lines == list(range(1, 1501))
    assert [row[0] for row in content.values] == [str(i) for i in range(1500)]
    assert max(block.rows.num_columns * block.rows.num_rows for block in content.blocks) < 13_000


# -- Parquet

DAMAGED = [b"", b"PAR1", b"PAR1PAR1", b"id,name\n1,a\n"]


@pytest.mark.parametrize("data", DAMAGED)
def test_what_is_no_parquet(data):
    assert "not a whole Parquet file" in refusal(read_parquet, data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_parquet_that_is_cut_off(share):
    data = parquet(pa.table({"id": range(10_000)}))
    assert "not a whole Parquet file" in refusal(read_parquet, data[: int(len(data) * share)])


def test_parquet_with_a_damaged_page():
    table = pa.table({"id": [str(uuid.uuid5(uuid.NAMESPACE_DNS, str(i))) for i in range(50_000)]})
    data = bytearray(parquet(table, row_group_size=10_000, write_page_checksum=True, use_dictionary=False))
    data[len(data) // 2] ^= 0xFF
    assert "damaged from row" in refusal(read_parquet, bytes(data))


def test_damage_anywhere_in_parquet_is_no_crash():
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
    "zone": (pa.array([0], pa.timestamp("ms", "America/New_York")), ["1969-12-31 19:00:00.000-0500"]),
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
        pa.array([{"at": datetime(2026, 1, 1), "b": Decimal("1.10"), "c": b"\xff", "d": "é"}]),
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
            '{"at": ["1970-01-01 00:00:00.000001000"], "utc": [["a", "1970-01-01 00:00:00.000000001Z"]],'
            ' "n": 1.5, "time": "00:00:00.000000001", "for": "1"}'
        ],
    ),
    "uuid": (
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"\x12" * 16], pa.binary(16))),
        ["12121212-1212-1212-1212-121212121212"],
    ),
}


@pytest.mark.parametrize("kind", VALUES)
def test_parquet_values_as_text(kind):
    values, texts = VALUES[kind]
    content = read_parquet(pa.table({"id": values}))
    assert content.rows == [(i, (text,)) for i, text in enumerate(texts, start=1)]
    assert content.broken == []


def test_parquet_text_that_is_none_costs_its_row_only():
    offsets, letters = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffc")
    text = pa.Array.from_buffers(pa.string(), 3, [None, offsets, letters])
    far = pa.array([[2**62], [0], None], pa.list_(pa.timestamp("us")))
    content = read_parquet(pa.table({"id": [1, 2, 3], "name": text, "note": far}))
    assert content.values == [("3", "c", None)]
    assert [line for line, _, _ in content.broken] == [2, 1]
    assert content.reasons[2] == "name: not UTF-8: byte 0xff at position 1"
    assert json.loads(content.broken[0][1]) == {"id": "2", "name": "\\xff", "note": '["1970-01-01 00:00:00"]'}
    assert content.reasons[1].startswith("note: no text can be made of it")


def test_parquet_shapes():
    assert read_parquet(pa.table({"id": pa.array([], pa.int64())})).rows == []
    assert "none of its columns" in refusal(read_parquet, pa.table({"other": [1]}))
    assert "none of its columns" in refusal(read_parquet, pa.table({"x": [1]}).select([]))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "ID"])
    assert "'id' is there twice" in refusal(read_parquet, twice)
    assert read_parquet(pa.table({"ID": [1], "_a": [2], " b c": [3], "": [4]})).columns == [
        "id",
        "column_a",
        "b_c",
        "column_4",
    ]


def test_parquet_is_read_in_batches_of_about_a_block(monkeypatch):
    monkeypatch.setattr(formats, "BLOCK", 10_000)
    table = pa.table({"id": range(100), "name": ["x" * 999] * 100})
    content = read_parquet(table, use_dictionary=False, row_group_size=50)
    assert content.lines == list(range(1, 101))
    assert all(block.size < 12_000 for block in content.blocks)
